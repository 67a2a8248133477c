"""Convex hulls of pixels, and the rectangle of least area around one."""

from __future__ import annotations

import numpy as np

_ROUNDS = 16  # of thinning a chain all at once before one point at a time


def convex_hull(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull of points [n, 2], integers, in order; at least one point."""
    least, span = points[:, 1].min(), np.ptp(points[:, 1]) + 1
    x, y = np.divmod(np.sort(points[:, 0] * span + points[:, 1] - least), span)
    points = np.stack([x, y + least], axis=1)
    new = np.append(True, x[1:] != x[:-1])
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(points)) - 1
    lower, upper = _chain(points[first]), _chain(points[last] * [1, -1]) * [1, -1]
    around = np.concatenate([lower, upper[::-1]])
    distinct = np.append(True, (around[1:] != around[:-1]).any(axis=1))
    distinct[-1] &= len(around) == 1 or (around[-1] != around[0]).any()
    return around[distinct]


def min_area_rectangle(hull: np.ndarray) -> tuple[float, float]:
    """(longer, shorter) side of the rectangle of least area around a convex hull, corners [n, 2] in order.

    One of its sides lies along an edge of the hull (Freeman and Shapira 1975). A point or line gives (length, 0).
    """
    if len(hull) < 3:
        return float(np.hypot(*np.subtract(hull[-1], hull[0]))), 0.0
    edges = np.roll(hull, -1, axis=0) - hull
    # Integers as far as possible, so that equal rectangles are equal.
    along, across = hull @ edges.T, hull @ np.stack([-edges[:, 1], edges[:, 0]])
    width, height = np.ptp(along, axis=0).astype(float), np.ptp(across, axis=0).astype(float)
    squared = (edges**2).sum(axis=1)
    best = np.argmin(width * height / squared)
    length = np.sqrt(squared[best])
    sides = float(width[best] / length), float(height[best] / length)
    return max(sides), min(sides)


def _chain(points: np.ndarray) -> np.ndarray:
    """The lower side of the hull of points [n, 2] with increasing x."""
    for _ in range(_ROUNDS):  # a point on or over the line between its neighbours is no corner, whatever else goes
        keep = np.ones(len(points), bool)
        keep[1:-1] = _turns(points) > 0
        if keep.all():
            return points
        points = points[keep]
    chain: list[list[int]] = []
    for x, y in points.tolist():  # Andrew's monotone chain
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            chain.pop()
        chain.append([x, y])
    return np.array(chain)


def _turns(points: np.ndarray) -> np.ndarray:
    """Twice the signed area of each three points in a row; none of fewer."""
    step = np.diff(points, axis=0)
    return step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]
