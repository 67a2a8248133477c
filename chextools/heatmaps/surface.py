"""Bilinear upsampling of heatmaps, bit for bit as the reference's torch does it, without making the pixels.

A heatmap of 320 x 320 nodes becomes an X-ray's millions of pixels only to be normalised, counted into 256 bins and cut
at a threshold. Between four neighbouring nodes (a *cell*, some 7 x 9 pixels) the upsampled map is bilinear but for
rounding, so counts and borders are solved per cell and per column of a cell. A solution is trusted only where it is
further from its threshold than all rounding together; every other pixel is evaluated by the reference's own recipe
(`Surface.pixels`). The results are therefore exact, not close.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from chextools.heatmaps import raster
from chextools.heatmaps.levels import grey_levels, levels
from chextools.heatmaps.sampling import Axis, axis_of, cells_of, fma, lerp
from chextools.heatmaps.smoothing import box_filter

_PIXELS_AT_ONCE = 1 << 16  # elements per temporary: a handful of them stay in a core's second-level cache
_EVALUATED = 1 << 22  # pixels evaluated one by one at once, at most: 64 bytes for each
_NARROW = 6  # nodes that a patch is wide at most: a level crosses few columns of a wide one
_ROUNDING = np.float32(2.0**-20)  # of the largest value: above all roundings of the recipe (6 x 2^-24) and of our own


class Surface:
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
        self.scale = np.abs(self.values).max()
        self._tiny = sum(self.size) <= 128
        # Few pixels per cell are cheaper to make than to solve; at the ends of float32's range our bounds do not hold.
        few = self._tiny or self.size[0] * self.size[1] <= 4 * self.values.size
        self._in_range = not self._tiny and bool(2.0**-80 < self.scale < 2.0**100)
        self._solvable = not few and self._in_range

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """How x and y are sampled."""
        return self._x, self._y

    def dense(self) -> np.ndarray:
        """Every pixel: float32 [H, W]."""
        out = np.empty(self.size, np.float32)
        for y, rows in self._rows():
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

    @cached_property
    def minimum(self) -> np.float32:
        """The least pixel."""
        return -self._largest(-1)

    @cached_property
    def maximum(self) -> np.float32:
        """The greatest pixel."""
        return self._largest(1)

    @property
    def is_flat(self) -> bool:
        """Whether there is nothing to tell apart. Pixels between equal nodes may differ, but only by rounding."""
        return bool(self.values.min() == self.values.max()) or self.minimum == self.maximum

    def argmax(self) -> tuple[int, int]:
        """(y, x) of the greatest pixel; of equal ones the first in row-major order."""
        some = self._peaks(self._highest, self.maximum - self._slack) if self._solvable else None
        if some is not None:
            y, x, v = some
            y, x = (np.broadcast_to(a, v.shape)[v == self.maximum] for a in (y, x))
            return divmod(int((y * self.size[1] + x).min()), self.size[1])
        for y, rows in self._rows():
            found = np.flatnonzero(rows == self.maximum)
            if found.size:
                return int(y + found[0] // self.size[1]), int(found[0] % self.size[1])

    def histogram(self) -> np.ndarray:
        """How many pixels fall into each of 256 bins, uint8(255 m) with m = (v - minimum) / max(v - minimum).

        int64 [256]. In a flat map, where m is 0/0, all are in bin 0.
        """
        pixels = self.size[0] * self.size[1]
        if self.minimum == self.maximum:
            return np.bincount([0], [pixels], 256).astype(np.int64)
        counts = self._solve_histogram() if self._solvable else None
        if counts is None and self._grey is not None:
            counts = raster.histogram(self._grey)
        if counts is None:
            counts = np.zeros(256, np.int64)
            for _, rows in self._rows():
                counts += np.bincount(grey_levels(rows, self.minimum, self.maximum).ravel(), minlength=256)
        return counts

    def counts(self, level: np.ndarray) -> np.ndarray:
        """How many pixels are >= each level: int64 [K], of finite float32 [K] in ascending order."""
        counts = None
        if self._solvable:
            corners, _, _, slack = self._patches
            low, high = _over_cells(np.minimum, corners), _over_cells(np.maximum, corners)
            if slack == self._slack:  # no misfit: zeros are zeros, and ReLU makes many
                slack = np.where((low != 0) | (high != 0), slack, np.float32(0))
            first, final = (np.searchsorted(level, bound, side="right") for bound in (low - slack, high + slack))
            counts = self._solve_counts(level, first, final)
        if counts is None and self._in_range and self.minimum < self.maximum:
            counts = raster.counts(self, level)
        if counts is None:
            counts = np.zeros(len(level) + 1, np.int64)
            for _, rows in self._rows():
                counts += np.bincount(np.searchsorted(level, rows.ravel(), side="right"), minlength=len(counts))
            counts = _at_least(counts)
        return counts

    def transitions_above(self, level: int) -> np.ndarray:
        """`transitions` of the pixels in bins above `level` of the histogram, 0 to 254."""
        if "_grey" in self.__dict__ and self._grey is not None:
            return raster.flips(self._grey.ravel(), level)
        return self.transitions(levels(self.minimum, self.maximum)[level])

    @cached_property
    def _grey(self) -> np.ndarray | None:
        """Every pixel's grey level, where making them is cheaper than solving."""
        return raster.grey_columns(self) if self._in_range else None

    def transitions(self, threshold: np.float32) -> np.ndarray:
        """Where v >= threshold begins and ends, column by column: int64 [2 n], ascending, in positions x * H + y.

        The mask is [t0, t1), [t2, t3), ...; runs that touch across a column's end are one, as in COCO's RLE.
        """
        threshold = np.float32(threshold)
        ends = self._solve_transitions(threshold) if self._solvable else None
        if ends is None and self._in_range:
            ends = raster.transitions(self, threshold)
        if ends is None:
            columns = np.zeros(self.size[1] * self.size[0] + 2, bool)  # outside on either side
            mask = columns[1:-1].reshape(self.size[1], self.size[0]).T
            for y, rows in self._rows():
                mask[y : y + len(rows)] = rows >= threshold
            ends = np.flatnonzero(columns[1:] != columns[:-1])
        return ends

    # Every pixel, in blocks of rows

    def _rows(self):
        """Pairs of a first row y and the float32 [n, W] pixels from it on, from top to bottom."""
        x, y = self._x, self._y
        if self._tiny:
            yield 0, self.pixels(np.arange(self.size[0])[:, None], np.arange(self.size[1]))
            return
        across = np.empty((len(self.values), self.size[1]), np.float32)
        step = max(1, 2 * _PIXELS_AT_ONCE // self.size[1])
        for i in range(0, len(across), step):
            part = self.values[i : i + step]
            across[i : i + step] = lerp(part[:, x.lower], part[:, x.upper], x.lower_weight, x.upper_weight)
        for i in range(0, self.size[0], step):
            rows = slice(i, i + step)
            weights = y.lower_weight[rows, None], y.upper_weight[rows, None]
            yield i, lerp(across[y.lower[rows]], across[y.upper[rows]], *weights)

    # Extremes: no pixel lies outside its cell's corners by more than rounding

    @property
    def _slack(self):
        return _ROUNDING * self.scale

    @cached_property
    def _highest(self):
        """The greatest corner of each cell, flat."""
        return _over_cells(np.maximum, np.pad(self.values, 1, mode="edge"))

    @cached_property
    def _lowest(self):
        """The least corner of each cell, flat."""
        return _over_cells(np.minimum, np.pad(self.values, 1, mode="edge"))

    def _peaks(self, bound, least):
        """The pixels of all cells whose bound is at least `least`: y [n, ny, 1], x [n, 1, nx], values [n, ny, nx].

        Smaller cells repeat their last pixel. None when there are too many, or none.
        """
        y, x = self._y.cells, self._x.cells
        i, j = np.divmod(np.flatnonzero(bound >= least), len(x.count))
        sampled = (y.count[i] > 0) & (x.count[j] > 0)
        i, j = i[sampled], j[sampled]
        if not 0 < len(i) * y.most * x.most <= min(self.size[0] * self.size[1] // 8, _EVALUATED):
            return None
        rows = y.first[i][:, None] + np.minimum(np.arange(y.most), y.count[i][:, None] - 1)
        columns = x.first[j][:, None] + np.minimum(np.arange(x.most), x.count[j][:, None] - 1)
        rows, columns = rows[:, :, None], columns[:, None, :]
        return rows, columns, self.pixels(rows, columns)

    def _largest(self, sign):
        """The greatest of sign * pixel, for sign 1 or -1."""
        if self._solvable:
            bound, other = (self._highest, self._lowest) if sign > 0 else (-self._lowest, -self._highest)
            top, start = bound.max(), other.argmax()  # in a plateau, if there is one at the top
            some = self._peaks(other[: start + 1], other[start])
            if some is not None:
                best = (sign * some[2]).max()
                if best == 0 == top:  # products without a sign: rounding cannot lift their sum
                    return best
                some = self._peaks(bound, best - self._slack)
            if some is not None:
                return (sign * some[2]).max()
        return max((sign * rows).max() for _, rows in self._rows())

    # Crossings of levels, cell by cell

    @cached_property
    def _patches(self):
        """The map as few bilinear patches as it has: their corners, cells in y and x, and the slack of their pixels.

        A heatmap is mostly itself upsampled, from 10 x 10 say, and then bilinear between the lines where it has kinks.
        Where no such grid fits, each cell between nodes is a patch.
        """
        v = self.values
        rows = _knots(v[2:] - 2 * v[1:-1] + v[:-2], self._slack)
        columns = _knots((v[:, 2:] - 2 * v[:, 1:-1] + v[:, :-2]).T, self._slack)
        if len(rows) * len(columns) * 8 <= v.size:
            spans = [(a, b, -(-(b - a) // _NARROW)) for a, b in zip(columns.tolist(), columns[1:].tolist())]
            columns = np.array([a + k * (b - a) // n for a, b, n in spans for k in range(n)] + [columns[-1]])
            corners = self.values[rows[:, None], columns]
            fit = _between(_between(corners, rows).T, columns).T
            misfit = np.abs(fit - self.values).max()
            if misfit <= self._slack:
                y, x = cells_of(self._y, tuple(rows)), cells_of(self._x, tuple(columns))
                return np.pad(corners, 1, mode="edge"), y, x, self._slack + misfit
        return np.pad(self.values, 1, mode="edge"), self._y.cells, self._x.cells, self._slack

    def _planes(self, cells):
        """The bilinear function in each patch, by its pixel (p, q) with q counted from the middle row.

        float32 [7, n]: it is base + p * along + q * (down + p * twist); then the slack that its rounding needs, and
        the numbers of rows and of columns.
        """
        corners, y, x, slack = self._patches
        i = cells // len(x.count)
        j = cells - i * len(x.count)
        at = cells + i  # the corners have one column more than the cells
        corner = corners.ravel()
        a, b = corner[at], corner[at + 1]
        at += corners.shape[1]
        c, d = corner[at], corner[at + 1]
        top, bottom, left = b - a, d - c, c - a
        planes = np.empty((7, len(cells)), np.float32)
        base, along, down, twist, room, rows, columns = planes
        rows[:], columns[:] = y.count[i], x.count[j]
        tx, ty = x.offset[j], y.offset[i] + (rows - 1) / 2 * y.step[i]
        np.subtract(bottom, top, out=twist)
        np.add(left, twist * tx, out=down)
        np.add(a + top * tx, down * ty, out=base)
        np.multiply(top + twist * ty, x.step[j], out=along)
        down *= y.step[i]
        twist *= x.step[j] * y.step[i]
        np.add(np.abs(top), np.abs(bottom), out=room)
        room *= x.uneven[j]
        room += (np.abs(top) + np.abs(bottom) + np.abs(left)) * (y.uneven[i] + np.float32(2.0**-19))
        room += slack
        return planes

    @np.errstate(divide="ignore", invalid="ignore", over="ignore")  # level columns: beyond either end, or doubtful
    def _cross(self, planes, owner, level, take):
        """Where the columns of patches cross levels: owner int [n] into planes, level float32 [n].

        Calls take(block, turn) with a slice of n and float32 [width, block]: how many of a column's pixels are below
        the level, its first ones where its slope is >= 0, else its last; 0 beyond a narrower patch's end. Where
        rounding may decide it is 0 too, and the column is in what is returned, to be evaluated: arrays p and n; near,
        the pixel next to the crossing; and odd, whether the column is so level that any pixel may be.
        """
        width, least = int(planes[6].max()), int(planes[6].min())
        p = np.arange(width, dtype=np.float32)[:, None]
        step = min(max(1, _PIXELS_AT_ONCE // width), len(owner))
        space = np.empty((5, width * step), np.float32)  # allocating each time would cost as much as the arithmetic
        doubts = []
        for k in range(0, len(owner), step):
            block = slice(k, k + step)
            base, along, down, twist, slack, rows, columns = planes.take(owner[block], axis=1)
            need, steep, turn, near, off = space[:, : width * len(base)].reshape(5, width, len(base))
            np.multiply(p, along, out=need)
            np.subtract(level[block] - base, need, out=need)
            np.multiply(p, twist, out=steep)
            steep += down
            np.abs(steep, out=steep)  # a falling column is a rising one seen from below
            np.divide(need, steep, out=turn)
            middle = (rows - 1) / 2
            turn += middle
            np.maximum(turn, np.full_like(rows, -0.5), out=turn)
            np.minimum(turn, rows - np.float32(0.5), out=turn)
            np.rint(turn, out=near)
            np.ceil(turn, out=turn)
            np.subtract(near, middle, out=off)
            off *= steep  # does the pixel next to the crossing clear the level?
            off -= need
            np.abs(off, out=off)
            found = np.flatnonzero(~(off > slack))
            turn.ravel()[found] = 0
            q, n = np.divmod(found, len(base))
            doubts.append((q, n + k, near.ravel()[found], steep.ravel()[found] <= 2 * slack[n]))
            if least < width:
                turn[least:] *= p[least:] < columns
            take(block, turn)
        p, n, near, odd = map(np.concatenate, zip(*doubts))
        real = p < planes[6, owner[n]]
        return p[real], n[real], near[real], odd[real]

    def _settle(self, cells, level, slope, p, near, odd):
        """The turns of doubtful columns p of patches, as `_cross` would give them, from their pixels: float32 [n].

        Also, for the odd columns, bool [odd, rows], which of their pixels are >= level; a turn is then but a number.
        None where too many pixels would have to be evaluated.
        """
        _, y, x, _ = self._patches
        if np.count_nonzero(odd) * y.most + len(p) > min(self.size[0] * self.size[1] // 8, _EVALUATED):
            return None
        i, j = np.divmod(cells, len(x.count))
        column, begin, rows = x.first[j] + p, y.first[i], y.count[i]
        turn = np.empty(len(p), np.float32)
        one = np.flatnonzero(~odd)  # the next pixels are clear of the level
        q = np.minimum(near[one].astype(np.intp), rows[one] - 1)
        row = begin[one] + np.where(slope[one] >= 0, q, rows[one] - 1 - q)
        turn[one] = q + (self.pixels(row, column[one]) < level[one])
        q, rows = np.arange(y.most), rows[odd, None]
        v = self.pixels(begin[odd, None] + np.minimum(q, rows - 1), column[odd, None])
        inside = (v >= level[odd, None]) & (q < rows)
        turn[odd] = rows[:, 0] - inside.sum(1)
        return turn, inside

    def _classes(self, chosen):
        """The chosen patches (bool, flat) in classes of similar width: arrays of flat positions."""
        _, y, x, _ = self._patches
        chosen = chosen.reshape(len(y.count), len(x.count))
        some = (np.flatnonzero(chosen & alike) for alike in x.classes)
        return [cells for cells in some if cells.size]

    def _solve_histogram(self):
        """The histogram from each patch's crossings of levels; None where making the pixels is cheaper."""
        corners, y, x, slack = self._patches
        low, high = self.minimum, self.maximum
        level = levels(low, high)
        per_bin = 255 / (np.float64(high) - np.float64(low))
        # The bins that a patch may reach are its corners', with room for rounding and for where `level` really lies.
        room = np.abs((level.astype(np.float64) - low) * per_bin - np.arange(1, 256)).max()
        room, per_bin = np.float32(room + slack * per_bin + 2.0**-12), np.float32(per_bin)
        first = np.clip((_over_cells(np.minimum, corners) - low) * per_bin - room, 0, 255).astype(np.int32)
        final = np.clip((_over_cells(np.maximum, corners) - low) * per_bin + room, 0, 255).astype(np.int32)
        counts = self._solve_counts(level, first, final)
        return counts if counts is None else -np.diff(counts, prepend=self.size[0] * self.size[1], append=0)

    def _solve_counts(self, level, first, final):
        """`counts`, given that all of a patch is >= the levels before `first`, and none from `final` on; or None."""
        _, y, x, _ = self._patches
        crossed = final - first
        if (crossed.reshape(-1, len(x.count)) @ x.count).sum() * 2 > self.size[0] * self.size[1]:
            return None
        area = np.multiply.outer(y.count, x.count.astype(np.float64)).ravel()
        counts = _at_least(np.bincount(first, area, len(level) + 1))
        for cells in self._classes(crossed > 0):
            times = crossed[cells]
            owner = np.repeat(np.arange(len(cells)), times)
            k = np.arange(len(owner)) + (first[cells] - np.cumsum(times) + times)[owner]
            above, planes = area[cells][owner], self._planes(cells)

            def take(block, turn, above=above):
                above[block] -= turn.sum(0)

            p, n, near, odd = self._cross(planes, owner, level[k], take)
            slope = planes[2, owner[n]] + p.astype(np.float32) * planes[3, owner[n]]
            settled = self._settle(cells[owner[n]], level[k[n]], slope, p, near, odd)
            if settled is None:
                return None
            counts += np.bincount(k, above, len(level)) - np.bincount(k[n], settled[0], len(level))
        return counts.astype(np.int64)

    def _solve_transitions(self, threshold):
        """The transitions from the patches that the threshold cuts; None where making the pixels is cheaper."""
        corners, y, x, slack = self._patches
        height = self.size[0]
        low, high = _over_cells(np.minimum, corners), _over_cells(np.maximum, corners)
        cut = (low < threshold + slack) & (high >= threshold - slack)
        if slack == self._slack:  # no misfit: zeros are zeros, and ReLU makes many
            cut &= (low != 0) | (high != 0)
        if (cut.reshape(-1, len(x.count)) @ x.count).sum() * 16 > self.size[1] * height:
            return None
        full = np.zeros((len(y.count) + 2, len(x.count)), bool)
        full[1:-1] = ((low >= threshold) & ~cut).reshape(full[1:-1].shape)
        i, j = np.nonzero(full[1:] != full[:-1])
        p = np.arange(x.most)
        position = (x.first[j][:, None] + p) * height + y.first[i][:, None]
        ends = [position[p < x.count[j][:, None]]]
        for cells in self._classes(cut):
            i, j = np.divmod(cells, len(x.count))
            planes = self._planes(cells)
            p = np.arange(planes[6].max(), dtype=np.float32)[:, None]
            slope, turn = planes[2] + p * planes[3], np.empty((len(p), len(cells)), np.intp)

            def take(block, part, turn=turn):
                turn[:, block] = part

            p, n, near, odd = self._cross(planes, np.arange(len(cells)), np.full(len(cells), threshold), take)
            settled = self._settle(cells[n], np.full(len(n), threshold), slope[p, n], p, near, odd)
            if settled is None:
                return None
            turn[p, n], inside = settled
            odd = p[odd], n[odd]
            p, rows = np.arange(len(turn))[:, None], y.count[i]
            top = (x.first[j] + p) * height + y.first[i]
            known = p < x.count[j]
            known[odd] = False
            ends.append((top + np.where(slope >= 0, turn, 0))[known])
            ends.append((top + np.where(slope >= 0, rows, rows - turn))[known])
            inside = np.pad(inside, ((0, 0), (1, 1)))
            n, q = np.nonzero(inside[:, 1:] != inside[:, :-1])
            ends.append(top[odd][n] + q)
        ends = np.sort(np.concatenate(ends))
        # Runs that touch, or are empty, have an end in common: what occurs twice is no transition.
        new = np.flatnonzero(np.diff(ends, prepend=-1))
        return ends[new[np.diff(new, append=len(ends)) & 1 == 1]]


def _knots(kinks, slack):
    """The first and the last node, and those at which some line has a kink: second differences [nodes - 2, lines]."""
    inner = np.abs(kinks).max(axis=1, initial=0) > 2 * slack
    return np.flatnonzero(np.concatenate(([True], inner, [True])))


def _between(rows, knots):
    """Rows given at some knots, all rows from the first to the last knot by linear interpolation."""
    if len(knots) == 1:
        return rows
    at = np.arange(knots[-1] + 1)
    k = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    weight = ((at - knots[k]) / np.diff(knots)[k]).astype(np.float32)[:, None]
    return rows[k] * (1 - weight) + rows[k + 1] * weight


def _at_least(counts):
    """From how many reach exactly the first 0, 1, ... K of ascending levels to how many reach each of the K."""
    return np.cumsum(counts[:0:-1])[::-1]


def _over_cells(best, nodes):
    """`best` (np.minimum or np.maximum) of each cell's four corners, flat."""
    rows = best(nodes[1:], nodes[:-1])
    return best(rows[:, 1:], rows[:, :-1]).ravel()


def bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map upsampled (or sampled down) to size (H, W): float32 [H, W]."""
    return Surface(values, size).dense()


def surface_of(
    values: np.ndarray,
    size: tuple[int, int],
    *,
    input_size: tuple[int, int] | None = None,
    smooth: int = 1,
    sign: str = "raw",
) -> Surface:
    """The heatmap upsampled to `size`; parameters as in `binarize`."""
    if sign == "positive":
        values = np.maximum(values, np.float32(0))
    elif sign == "abs":
        values = np.abs(values)
    if input_size is not None and values.shape != tuple(input_size):
        values = bilinear(values, input_size)
    surface = Surface(values, size)
    if smooth > 1:
        surface = Surface(box_filter(surface.dense(), smooth), size)
    return surface
