"""Borders of a mask, as following them pixel by pixel finds them (Suzuki and Abe 1985), found on its runs instead.

A border is where one 8-connected component of the mask meets one 4-connected component of the background: the outer
border of the component, or that of a hole in it. Following it visits the mask's pixels along it, some twice where the
mask is one pixel wide, and joins their centres to a polygon. Nothing of this needs the following itself: a pair of
components has one border, whose pixel sides, counted, give the visits, and whose enclosed pixels give the area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chextools.masks.convex import convex_hull
from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs, components, overlapping


@dataclass(frozen=True, slots=True, eq=False)
class Border:
    """A border of a mask.

    points: pixels visited by following it once around, one that is passed twice counted twice.
    area: of the polygon through the centres of these pixels.
    hull: the corners of that polygon's convex hull in order, int64 [n, 2] (x, y) in pixels; no three on a line.
    """

    points: int
    area: float
    hull: np.ndarray


def longest(mask: Mask) -> Border | None:
    """The border with the most points; of equals the last in raster order. None for an empty mask."""
    if not mask.bounds.size:
        return None
    sides = _Sides(mask)
    points, area, start = sides.measure()
    chosen = np.lexsort((start, points))[-1]
    return Border(int(points[chosen]), float(area[chosen]), convex_hull(sides.extremes(chosen)))


class _Sides:
    """The sides of pixels that lie between a mask and its background, gathered by border.

    The mask is seen in a frame one pixel wider on all sides, whose columns have `stride` pixels.
    """

    def __init__(self, mask: Mask):
        starts, ends = column_runs(mask)
        height = mask.size[0]
        column = starts // height
        self.origin = int(column[0]) - 1
        shift = (column - self.origin) * (height + 2) - column * height + 1
        self.stride = stride = height + 2
        self.starts, self.ends, self.column = starts + shift, ends + shift, column - self.origin
        tops = np.arange(self.column[-1] + 2) * stride
        gap_starts = np.sort(np.concatenate([tops, self.ends]))
        gap_ends = np.sort(np.concatenate([self.starts, tops + stride]))
        run = components(
            len(starts), *overlapping(self.starts + stride - 1, self.ends + stride + 1, self.starts, self.ends)
        )
        gap = components(len(gap_starts), *overlapping(gap_starts + stride, gap_ends + stride, gap_starts, gap_ends))

        # Sides below and above: each run has a gap over it and one under it.
        number = np.arange(len(starts))
        above, below = number + self.column, number + self.column + 1
        # Sides to the right and left: where a run meets a gap of the next column.
        sides: list[tuple[np.ndarray, ...]] = []
        for step in (1, -1):
            low, high = self.starts + step * stride, self.ends + step * stride
            i, j = overlapping(low, high, gap_starts, gap_ends)
            # Around a corner where the gap goes on, following stays on the pixel.
            corners = (gap_starts[j] < low[i]).astype(np.int64) + (gap_ends[j] > high[i])
            low, high = np.maximum(low[i], gap_starts[j]), np.minimum(high[i], gap_ends[j])
            sides.append((i, low - step * stride, high - step * stride, np.full(len(i), step), corners, j))
        self.run, self.low, self.high, self.right, self.corners, beside = map(np.concatenate, zip(*sides))

        # One of a border's two components lies within the other, and gives it a number: one of the mask lies within the
        # gap over its first run, a hole within any other that it meets.
        around = gap[above][run]
        within = [
            np.where(around[i] == gap[j], run[i], len(run) + gap[j])
            for i, j in ((number, above), (number, below), (self.run, beside))
        ]
        is_border = np.zeros(len(run) + len(gap), bool)
        is_border[within[0]] = is_border[within[1]] = True
        self.count = int(is_border.sum())
        self.above, self.below, self.beside = ((is_border.cumsum() - 1)[each] for each in within)

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(points, area, start) of each border; starts are ordered as a scan row by row meets the borders."""
        n, length = self.count, self.high - self.low
        points = np.bincount(self.above, minlength=n) + np.bincount(self.below, minlength=n)
        points += np.bincount(self.beside, length - self.corners, n).astype(np.int64)
        # Enclosed pixels, negative for a hole: the mask's left of right sides minus the background's left of left ones.
        x = self.column[self.run] + (self.right > 0)
        enclosed = np.bincount(self.beside, x * length * self.right, n)
        # Pick's theorem, by which every visit is a point of the polygon: area = inner + points / 2 - 1.
        area = np.where(enclosed > 0, enclosed - points / 2, -enclosed + points / 2) - 1
        area[points == 0], points[points == 0] = 0, 1  # one pixel by itself
        width = int(self.column[-1]) + 2
        start = np.full(n, np.iinfo(np.int64).max)
        for border, position, wanted in (
            (self.above, self.starts, enclosed > 0),  # an outer border starts at its component's first pixel
            (self.below, self.ends, enclosed < 0),  # a hole's at the hole's
        ):
            of = wanted[border]
            raster = position % self.stride * width + self.column
            np.minimum.at(start, border[of], raster[of])
        return points, area, start

    def extremes(self, border: int) -> np.ndarray:
        """Pixels [n, 2] (x, y) of a border, among them all corners of its hull."""
        beside = self.beside == border
        position = np.concatenate(
            [
                self.starts[self.above == border],
                self.ends[self.below == border] - 1,
                self.low[beside],
                self.high[beside] - 1,
            ]
        )
        return np.stack([position // self.stride + self.origin, position % self.stride - 1], axis=1)
