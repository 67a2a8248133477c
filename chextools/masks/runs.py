"""Arithmetic on the runs of a mask, column by column: what overlaps what, and what is connected."""

from __future__ import annotations

import numpy as np

from chextools.masks.mask import Mask


def column_runs(mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the runs, cut where one goes on in the next column."""
    height = mask.size[0]
    crosses = mask.starts // height != (mask.ends - 1) // height
    if not crosses.any():
        return mask.starts, mask.ends
    first = mask.starts[crosses] // height + 1  # columns that begin inside a run
    count = (mask.ends[crosses] - 1) // height - first + 1
    cuts = (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)) * height
    return np.sort(np.concatenate([mask.starts, cuts])), np.sort(np.concatenate([mask.ends, cuts]))


def overlapping(
    a_start: np.ndarray, a_end: np.ndarray, b_start: np.ndarray, b_end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j) for which run i of a and run j of b share a position; both sorted and disjoint."""
    low = np.searchsorted(b_end, a_start, "right")
    high = np.searchsorted(b_start, a_end, "left")
    count = np.maximum(high - low, 0)
    i = np.repeat(np.arange(a_start.size), count)
    j = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    return i, j


def components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The least member of each item's connected component, int64 [n], for edges (a[k], b[k])."""
    root = np.arange(n)
    while a.size:
        # Hook the greater root under the lesser, then shorten all paths (Shiloach and Vishkin 1982).
        a, b = root[a], root[b]
        join = a != b
        a, b = a[join], b[join]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while True:
            parent = root[root]
            if np.array_equal(parent, root):
                break
            root = parent
    return root
