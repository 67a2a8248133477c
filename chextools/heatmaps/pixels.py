"""The pixels of an upsampled heatmap: any of them by the reference's recipe, all of them, and their extremes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from operator import itemgetter

import numpy as np

from chextools.heatmaps.sampling import Axis, axis_of, fma, lerp

MOST_EVALUATED = 1 << 22  # pixels evaluated one by one, at most: 64 bytes for each
AT_ONCE = 1 << 16  # elements per temporary: a handful of them stay in a core's second-level cache
_FEW = 64  # nodes around which pixels are evaluated before there is a better bound
_ROUNDING = np.float32(2.0**-20)  # of the largest value: above all roundings of the recipe (6 x 2^-24) and of our own


class Pixels:
    """A heatmap as the reference upsamples it, bilinear with half-pixel centres, without making its pixels.

    values: float32 [hin, win], finite; size: (H, W), the pixels to answer for. Both at least 1 x 1.
    """

    def __init__(self, values: np.ndarray, size: tuple[int, int]):
        self.values = np.ascontiguousarray(values, dtype=np.float32)
        if self.values.ndim != 2 or 0 in self.values.shape or min(size) < 1:
            raise ValueError(f"cannot upsample a map of shape {np.shape(values)} to {tuple(size)} pixels")
        self.size = (int(size[0]), int(size[1]))
        self._y = axis_of(self.values.shape[0], self.size[0])
        self._x = axis_of(self.values.shape[1], self.size[1])
        self._most, self._least = self.values.max(), self.values.min()
        self.scale = max(self._most, -self._least)
        self._tiny = sum(self.size) <= 128
        # At the ends of float32's range our bounds do not hold; few pixels per cell are cheaper to make than to solve.
        self._is_bounded = not self._tiny and bool(2.0**-80 < self.scale < 2.0**100)
        self.is_solvable = self._is_bounded and self.size[0] * self.size[1] > 4 * self.values.size

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """How x and y are sampled."""
        return self._x, self._y

    def dense(self) -> np.ndarray:
        """Every pixel: float32 [H, W]."""
        out = np.empty(self.size, np.float32)
        for y, rows in self.rows():
            out[y : y + len(rows)] = rows
        return out

    def pixels(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The values at given pixels: float32, of the shape that integer arrays y and x broadcast to."""
        v, left, right = self.values, self._x.lower[x], self._x.upper[x]
        top, bottom = self._y.lower[y], self._y.upper[y]
        a, b, c, d = self._x.lower_weight[x], self._x.upper_weight[x], self._y.lower_weight[y], self._y.upper_weight[y]
        if self._tiny:
            total = lerp(v[top, left], v[top, right], c * a, c * b)
            return fma(v[bottom, right], d * b, fma(v[bottom, left], d * a, total))
        return lerp(lerp(v[top, left], v[top, right], a, b), lerp(v[bottom, left], v[bottom, right], a, b), c, d)

    @property
    def minimum(self) -> np.float32:
        """The least pixel."""
        return -self._lowest[0]

    @property
    def maximum(self) -> np.float32:
        """The greatest pixel."""
        return self._highest[0]

    @property
    def is_flat(self) -> bool:
        """Whether there is nothing to tell apart. Pixels between equal nodes may differ, but only by rounding."""
        return bool(self._least == self._most) or self.minimum == self.maximum

    def argmax(self) -> tuple[int, int]:
        """(y, x) of the greatest pixel; of equal ones the first in row-major order."""
        if not self.scale:
            return 0, 0
        _, place = self._highest
        if place is None:
            peaks = ((rows.max(), y * self.size[1] + int(rows.argmax())) for y, rows in self.rows())
            place = max(peaks, key=itemgetter(0))[1]  # of equal ones the first block's
        return divmod(place, self.size[1])

    # Every pixel, in blocks of rows

    def rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """Pairs of a first row y and the float32 [n, W] pixels from it on, from top to bottom."""
        x, y = self._x, self._y
        if self._tiny:
            yield 0, self.pixels(np.arange(self.size[0])[:, None], np.arange(self.size[1]))
            return
        across = np.empty((len(self.values), self.size[1]), np.float32)
        step = max(1, 2 * AT_ONCE // self.size[1])
        for i in range(0, len(across), step):
            part = self.values[i : i + step]
            across[i : i + step] = lerp(part[:, x.lower], part[:, x.upper], x.lower_weight, x.upper_weight)
        for i in range(0, self.size[0], step):
            rows = slice(i, i + step)
            weights = y.lower_weight[rows, None], y.upper_weight[rows, None]
            yield i, lerp(across[y.lower[rows]], across[y.upper[rows]], *weights)

    # Extremes: no pixel lies outside its cell's corners by more than rounding

    @property
    def slack(self) -> np.float32:
        """No pixel lies further outside its cell's corners."""
        return _ROUNDING * self.scale

    @cached_property
    def _highest(self):
        return self._greatest(1)

    @cached_property
    def _lowest(self):
        return self._greatest(-1)

    def _greatest(self, sign):
        """The greatest of sign * pixel, for sign 1 or -1, and the first that is, as y * W + x; or None, if unknown."""
        if not self.scale:
            return self.scale, None
        if self._is_bounded:
            nodes = self.values if sign > 0 else -self.values
            top = nodes.argmax()
            best = self._best(sign, top if nodes.flat[top] else _plateau(nodes))[0]
            if best == 0 == nodes.flat[top]:  # products without a sign: rounding cannot lift their sum
                return best, None
            found = np.flatnonzero(nodes >= best - self.slack)
            if len(found) > _FEW:
                some = found[np.argpartition(nodes.flat[found], -_FEW)[-_FEW:]]
                best = max(best, self._best(sign, _plateau(nodes))[0], self._best(sign, some)[0])
                found = np.flatnonzero(nodes >= best - self.slack)
            best, place = self._best(sign, found)
            if place is not None:
                return best, place
        return max((sign * rows).max() for _, rows in self.rows()), None

    def _best(self, sign, nodes):
        """`_greatest` of the cells around some nodes (flat); (-inf, None) where they are too many, or have no pixel."""
        some = self._around(np.atleast_1d(nodes))
        if some is None:
            return np.float32(-np.inf), None
        y, x, v = some[0], some[1], sign * some[2]
        best = v.max()
        y, x = (np.broadcast_to(a, v.shape)[v == best] for a in (y, x))
        return best, int((y * self.size[1] + x).min())

    def _around(self, nodes):
        """The pixels of all cells at some nodes (flat): y [n, ny, 1], x [n, 1, nx], values [n, ny, nx].

        Smaller cells repeat their last pixel. None when there are too many, or none.
        """
        y, x = self._y.cells, self._x.cells
        most = min(self.size[0] * self.size[1] // 8, MOST_EVALUATED) // (y.most * x.most)
        if len(nodes) > most:  # which have no fewer cells
            return None
        i, j = np.divmod(nodes, self.values.shape[1])
        beside = ((i + di) * len(x.count) + j + dj for di in (0, 1) for dj in (0, 1))
        i, j = np.divmod(np.unique(np.concatenate(list(beside))), len(x.count))
        sampled = (y.count[i] > 0) & (x.count[j] > 0)
        i, j = i[sampled], j[sampled]
        if not 0 < len(i) <= most:
            return None
        rows = y.first[i][:, None] + np.minimum(np.arange(y.most), y.count[i][:, None] - 1)
        columns = x.first[j][:, None] + np.minimum(np.arange(x.most), x.count[j][:, None] - 1)
        rows, columns = rows[:, :, None], columns[:, None, :]
        return rows, columns, self.pixels(rows, columns)


def at_least(counts):
    """From how many reach exactly the first 0, 1, ... K of ascending levels to how many reach each of the K."""
    return np.cumsum(counts[:0:-1])[::-1]


def _plateau(nodes):
    """The first of four neighbouring nodes the least of which is greatest; flat."""
    if min(nodes.shape) == 1:
        return nodes.argmax()
    i, j = np.divmod(over_cells(np.minimum, nodes).argmax(), nodes.shape[1] - 1)
    return i * nodes.shape[1] + j


def over_cells(best, nodes):
    """`best` (np.minimum or np.maximum) of each cell's four corners, flat."""
    rows = best(nodes[1:], nodes[:-1])
    return best(rows[:, 1:], rows[:, :-1]).ravel()
