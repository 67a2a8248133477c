"""The closed lines around a mask, found on its runs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs


def loops_around(mask: Mask) -> list[np.ndarray]:
    """The closed lines around a mask and its holes: float64 [n, 2] (x, y) in pixels, the first's corner at (0, 0).

    They follow the sides between the mask and the rest, and cut corners by half a pixel. Found on the mask's runs.
    """
    if not mask.bounds.size:
        return []
    height = mask.size[0]
    starts, ends = column_runs(mask)
    column = starts // height
    stride = height + 1  # of corners: x * stride + y
    starts, ends = starts + column, ends + column  # no run touches another column's
    left, right = _sides(starts, ends, stride)
    # Each side from corner to corner with the mask on its right hand: above, below, to the right and to the left.
    begin = np.concatenate([starts, ends + stride, right[0], left[1]])
    finish = np.concatenate([starts + stride, ends, right[1], left[0]])
    # As many sides end at a corner as begin there: their order makes them follow each other.
    following = np.empty(len(begin), np.int64)
    following[np.argsort(finish, kind="stable")] = np.argsort(begin, kind="stable")
    corners = np.stack([np.divmod(begin, stride), np.divmod(finish, stride)])  # [2, 2 (x, y), n]
    inward = 0.5 * np.sign(corners[1] - corners[0])
    points = np.stack([corners[0] + inward, corners[1] - inward]).transpose(2, 0, 1)  # [n, 2, 2 (x, y)]
    return [points[cycle].reshape(-1, 2) for cycle in _cycles(following.tolist())]


def _sides(starts: np.ndarray, ends: np.ndarray, stride: int) -> tuple[tuple, tuple]:
    """((from, to) corners of sides to the left of the mask, of those to its right), each from the top down."""
    own = np.stack([starts, ends], axis=1).ravel()
    position = np.concatenate([own, own + stride])  # a run, and its right-hand side
    step = np.concatenate([np.resize([1, -1], own.size), np.resize([2, -2], own.size)])
    order = np.argsort(position, kind="stable")
    position, inside = position[order], np.cumsum(step[order])
    stretch = np.flatnonzero(position[1:] > position[:-1])
    found = []
    for kind in (1, 2):  # a run without one to its left; one without one to its right
        of = stretch[inside[stretch] == kind]
        found.append((position[of], position[of + 1]))
    return found[0], found[1]


def _cycles(following: list[int]) -> Iterable[list[int]]:
    seen = bytearray(len(following))
    for start in range(len(following)):
        if not seen[start]:
            cycle, at = [], start
            while not seen[at]:
                seen[at] = 1
                cycle.append(at)
                at = following[at]
            yield cycle
