"""Holes and islands of a mask, found on its runs."""

from __future__ import annotations

import numpy as np

from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs, components, overlapping


def filled(mask: Mask) -> Mask:
    """The mask without holes: background that no path of edge-sharing pixels joins to the border becomes mask."""
    height, width = mask.size
    starts, ends = column_runs(mask)
    column = starts // height
    if not (column[1:] == column[:-1]).any():
        return mask  # no column holds a gap between two runs
    # Gaps: background runs between two runs of one column; the only background that can be enclosed.
    inner = np.flatnonzero(column[1:] == column[:-1])
    gap_start, gap_end = ends[inner], starts[inner + 1]
    # A gap is open if, in a column next to it, it touches background that reaches that column's top or bottom.
    first = np.full(width, height, np.int64)  # rows of each column's first mask pixel and past its last
    last = np.zeros(width, np.int64)
    np.minimum.at(first, column, starts - column * height)
    np.maximum.at(last, column, ends - column * height)
    gap_column = gap_start // height
    top, bottom = gap_start - gap_column * height, gap_end - gap_column * height
    is_open = (gap_column == 0) | (gap_column == width - 1)
    for step in (-1, 1):
        beside = np.clip(gap_column + step, 0, width - 1)
        is_open |= (top < first[beside]) | (bottom > last[beside])
    # Gaps of neighbouring columns that share rows are one background: openness spreads along them.
    a, b = overlapping(gap_start + height, gap_end + height, gap_start, gap_end)
    is_open = _spread(is_open, a, b)
    if is_open.all():
        return mask
    closed = inner[~is_open]
    keep = np.ones(2 * len(starts), bool)
    keep[2 * closed + 1] = keep[2 * closed + 2] = False
    return Mask.from_flips(mask.size, np.stack([starts, ends], axis=1).ravel()[keep])


def without_islands(mask: Mask) -> Mask:
    """The mask without its pixels that touch no other, not even at a corner."""
    height, width = mask.size
    starts, ends = column_runs(mask)
    single = np.flatnonzero(ends - starts == 1)
    if not single.size:
        return mask
    column = starts[single] // height
    row = starts[single] - column * height
    alone = np.ones(single.size, bool)
    for step in (-1, 1):
        beside = column + step
        low = beside * height + np.maximum(row - 1, 0)
        high = beside * height + np.minimum(row + 2, height)
        # A run reaches into [low, high) when it starts before high and ends after low.
        touches = np.searchsorted(starts, high, "left") > np.searchsorted(ends, low, "right")
        alone &= ~touches | (beside < 0) | (beside >= width)
    keep = np.ones(starts.size, bool)
    keep[single[alone]] = False
    flips = np.stack([starts[keep], ends[keep]], axis=1).ravel()
    return Mask.from_flips(mask.size, flips)


def _spread(marked: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mark everything that pairs (a[k], b[k]) join, directly or through others, to what is marked."""
    root = components(marked.size, a, b)
    return np.bincount(root, marked, marked.size)[root] > 0
