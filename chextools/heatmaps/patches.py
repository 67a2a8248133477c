"""The bilinear patches of a heatmap, and where they cross levels: counts and borders without pixels.

Between four neighbouring nodes, and often between far fewer lines, the upsampled map is bilinear but for rounding. A
crossing is trusted only where it is further from its level than all rounding together.
"""

from __future__ import annotations

import numpy as np

from chextools.heatmaps.levels import bin_starts
from chextools.heatmaps.pixels import MOST_EVALUATED, Pixels, at_least, over_cells
from chextools.heatmaps.sampling import Cells, cells_of

_PIXELS_AT_ONCE = 1 << 17  # elements per temporary: of fewer numpy's calls cost more, more leave the caches
_LEVEL = np.float32(2.0**-24)  # of its slack, a pixel: what is less steep is as good as level
_APART = 8  # of so many lines one is looked at for kinks first: most often all have theirs at the same nodes
_NARROW = 6  # nodes that a patch is wide at most: a level crosses few columns of a wide one


class Patches:
    """The patches of a surface. What its methods cannot tell cheaply is None: making the pixels is cheaper then."""

    def __init__(self, pixels: Pixels):
        self._pixels = pixels
        self._corners, self._y, self._x, self._slack = self._fit()

    def histogram(self) -> np.ndarray | None:
        """The histogram from each patch's crossings of levels; None where making the pixels is cheaper."""
        corners, slack = self._corners, self._slack
        low, high = self._pixels.minimum, self._pixels.maximum
        level = bin_starts(low, high)
        per_bin = 255 / (np.float64(high) - np.float64(low))
        # The bins that a patch may reach are its corners', with room for rounding and for where `level` really lies.
        room = np.abs((level.astype(np.float64) - low) * per_bin - np.arange(1, 256)).max()
        room, per_bin = np.float32(room + slack * per_bin + 2.0**-12), np.float32(per_bin)
        first = np.clip((over_cells(np.minimum, corners) - low) * per_bin - room, 0, 255).astype(np.int32)
        final = np.clip((over_cells(np.maximum, corners) - low) * per_bin + room, 0, 255).astype(np.int32)
        counts = self._solve_counts(level, first, final)
        if counts is None:
            return None
        return -np.diff(counts, prepend=self._pixels.size[0] * self._pixels.size[1], append=0)

    def counts(self, level: np.ndarray) -> np.ndarray | None:
        """`Surface.counts`, or None."""
        corners = self._corners
        slack: np.ndarray | np.float32 = self._slack
        low, high = over_cells(np.minimum, corners), over_cells(np.maximum, corners)
        if slack == self._pixels.slack:  # no misfit: zeros are zeros, and ReLU makes many
            slack = np.where((low != 0) | (high != 0), slack, np.float32(0))
        first, final = (np.searchsorted(level, bound, side="right") for bound in (low - slack, high + slack))
        return self._solve_counts(level, first, final)

    def transitions(self, threshold: np.float32) -> np.ndarray | None:
        """The transitions from the patches that the threshold cuts; None where making the pixels is cheaper."""
        corners, y, x, slack = self._corners, self._y, self._x, self._slack
        height = self._pixels.size[0]
        low, high = over_cells(np.minimum, corners), over_cells(np.maximum, corners)
        cut = (low < threshold + slack) & (high >= threshold - slack)
        if slack == self._pixels.slack:  # no misfit: zeros are zeros, and ReLU makes many
            cut &= (low != 0) | (high != 0)
        if (cut.reshape(-1, len(x.count)) @ x.count).sum() * 16 > self._pixels.size[1] * height:
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
            p = np.arange(planes[6].max(), dtype=np.float32)
            slope, turn = planes[2, :, None] + p * planes[3, :, None], np.empty((len(cells), len(p)), np.intp)

            def take(block, part, turn=turn):
                turn[block] = part

            n, p, near, odd = self._cross(planes, np.arange(len(cells)), np.full(len(cells), threshold), take)
            settled = self._settle(cells[n], np.full(len(n), threshold), slope[n, p], p, near, odd)
            if settled is None:
                return None
            turn[n, p], inside = settled
            odd = n[odd], p[odd]
            p, rows = np.arange(turn.shape[1]), y.count[i][:, None]
            top = (x.first[j][:, None] + p) * height + y.first[i][:, None]
            known = p < x.count[j][:, None]
            known[odd] = False
            ends.append((top + np.where(slope >= 0, turn, 0))[known])
            ends.append((top + np.where(slope >= 0, rows, rows - turn))[known])
            inside = np.pad(inside, ((0, 0), (1, 1)))
            n, q = np.nonzero(inside[:, 1:] != inside[:, :-1])
            ends.append(top[odd][n] + q)
        positions = np.sort(np.concatenate(ends))
        # Runs that touch, or are empty, have an end in common: what occurs twice is no transition.
        new = np.flatnonzero(np.diff(positions, prepend=-1))
        return positions[new[np.diff(new, append=len(positions)) & 1 == 1]]

    def _fit(self) -> tuple[np.ndarray, Cells, Cells, np.float32]:
        """The map as few bilinear patches as it has: their corners, cells in y and x, and the slack of their pixels.

        A heatmap is mostly itself upsampled, from 10 x 10 say, and then bilinear between the lines where it has kinks.
        Where no such grid fits, each cell between nodes is a patch.
        """
        v, slack = self._pixels.values, self._pixels.slack
        columns_of, rows_of = self._pixels.axes
        for apart in (_APART, 1):
            rows = _knots(np.diff(v[:, ::apart], 2, axis=0), slack, len(v))
            columns = _knots(np.diff(v[::apart].T, 2, axis=0), slack, v.shape[1])
            if len(rows) * len(columns) * 8 > v.size:
                break
            spans = [(a, b, -(-(b - a) // _NARROW)) for a, b in zip(columns.tolist(), columns[1:].tolist())]
            columns = np.array([a + k * (b - a) // n for a, b, n in spans for k in range(n)] + [columns[-1]])
            corners = v[rows[:, None], columns]
            misfit = np.abs(_between(_between(corners, rows).T, columns).T - v).max()
            if misfit <= slack:
                y, x = cells_of(rows_of, tuple(rows)), cells_of(columns_of, tuple(columns))
                return np.pad(corners, 1, mode="edge"), y, x, slack + misfit
        return np.pad(v, 1, mode="edge"), rows_of.cells, columns_of.cells, slack

    def _planes(self, cells):
        """The bilinear function in each patch, by its pixel (p, q) with q counted from the middle row.

        float32 [7, n]: it is base + p * along + q * (down + p * twist); then the slack that its rounding needs, and
        the numbers of rows and of columns.
        """
        corners, y, x, slack = self._corners, self._y, self._x, self._slack
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
        """Where the columns of patches cross levels: owner int [n], ascending, into planes, level float32 [n].

        Calls take(block, turn) with a slice of n and float32 [block, width]: how many of a column's pixels are below
        the level, its first ones where its slope is >= 0, else its last; 0 beyond a narrower patch's end. Where
        rounding may decide it is 0 too, and the column is in what is returned, to be evaluated: arrays n and p; near,
        the pixel next to the crossing; and odd, whether the column is so level that any pixel may be.
        """
        width, least = int(planes[6].max()), int(planes[6].min())
        p = np.arange(width, dtype=np.float32)
        step = min(max(1, _PIXELS_AT_ONCE // width), len(owner))
        space = np.empty((4, step, width), np.float32)  # allocating each time would cost as much as the arithmetic
        lowest, close = np.full((step, width), np.float32(-0.5)), np.empty((step, width), bool)
        doubts = []
        for k in range(0, len(owner), step):
            own = owner[k : k + step]
            some = slice(own[0], own[-1] + 1)
            own = own - own[0]
            base, along, down, twist, slack, rows, columns = planes[:, some, None]
            steep = np.maximum(np.abs(p * twist + down), slack * _LEVEL)  # a falling column is a rising one from below
            first = base + (p * along - (rows - 1) / 2 * steep)  # pixel of a column
            highest = np.repeat(rows - np.float32(0.5), width, 1)
            if least < width:
                highest[p >= columns] = -0.5
            crossing, near, turn, of_cell = space[:, : len(own)]
            np.subtract(level[k : k + step, None], first.take(own, 0, of_cell, "clip"), out=crossing)
            crossing *= (1 / steep).take(own, 0, of_cell, "clip")
            np.maximum(crossing, lowest[: len(own)], out=near)
            np.minimum(near, highest.take(own, 0, of_cell, "clip"), out=near)
            np.ceil(near, out=turn)
            np.rint(near, out=near)
            crossing -= near  # is it far enough from the pixel next to it?
            np.abs(crossing, out=crossing)
            np.less_equal(crossing, (slack / steep).take(own, 0, of_cell, "clip"), out=close[: len(own)])
            found = np.flatnonzero(close[: len(own)])
            turn.ravel()[found] = 0
            n, q = np.divmod(found, width)
            doubts.append((n + k, q, near.ravel()[found], (steep <= 2 * slack)[own[n], q]))
            take(slice(k, k + step), turn)
        n, p, near, odd = map(np.concatenate, zip(*doubts))
        real = p < planes[6, owner[n]]
        return n[real], p[real], near[real], odd[real]

    def _settle(self, cells, level, slope, p, near, odd):
        """The turns of doubtful columns p of patches, as `_cross` would give them, from their pixels: float32 [n].

        Also, for the odd columns, bool [odd, rows], which of their pixels are >= level; a turn is then but a number.
        None where too many pixels would have to be evaluated.
        """
        y, x = self._y, self._x
        if np.count_nonzero(odd) * y.most + len(p) > min(
            self._pixels.size[0] * self._pixels.size[1] // 8, MOST_EVALUATED
        ):
            return None
        i, j = np.divmod(cells, len(x.count))
        column, begin, rows = x.first[j] + p, y.first[i], y.count[i]
        turn = np.empty(len(p), np.float32)
        one = np.flatnonzero(~odd)  # the next pixels are clear of the level
        q = np.minimum(near[one].astype(np.intp), rows[one] - 1)
        row = begin[one] + np.where(slope[one] >= 0, q, rows[one] - 1 - q)
        turn[one] = q + (self._pixels.pixels(row, column[one]) < level[one])
        if len(one) == len(p):
            return turn, np.empty((0, 0), bool)
        q, rows = np.arange(y.most), rows[odd, None]
        v = self._pixels.pixels(begin[odd, None] + np.minimum(q, rows - 1), column[odd, None])
        inside = (v >= level[odd, None]) & (q < rows)
        turn[odd] = rows[:, 0] - inside.sum(1)
        return turn, inside

    def _classes(self, chosen):
        """The chosen patches (bool, flat) in classes of similar width: arrays of flat positions."""
        y, x = self._y, self._x
        chosen = chosen.reshape(len(y.count), len(x.count))
        some = (np.flatnonzero(chosen & alike) for alike in x.classes)
        return [cells for cells in some if cells.size]

    def _solve_counts(self, level, first, final):
        """`counts`, given that all of a patch is >= the levels before `first`, and none from `final` on; or None."""
        y, x = self._y, self._x
        crossed = final - first
        if (crossed.reshape(-1, len(x.count)) @ x.count).sum() * 2 > self._pixels.size[0] * self._pixels.size[1]:
            return None
        area = np.multiply.outer(y.count, x.count.astype(np.float64)).ravel()
        counts = at_least(np.bincount(first, area, len(level) + 1))
        for cells in self._classes(crossed > 0):
            times = crossed[cells]
            owner = np.repeat(np.arange(len(cells)), times)
            k = np.arange(len(owner)) + (first[cells] - np.cumsum(times) + times)[owner]
            above, planes = area[cells][owner], self._planes(cells)
            ones = np.ones(int(planes[6].max()), np.float32)
            if planes[5].max() * len(ones) >= 2**24:  # more than float32 counts
                ones = ones.astype(np.float64)

            def take(block, turn, above=above, ones=ones):
                above[block] -= turn @ ones  # the sums of short rows, sooner

            n, p, near, odd = self._cross(planes, owner, level[k], take)
            slope = planes[2, owner[n]] + p.astype(np.float32) * planes[3, owner[n]]
            settled = self._settle(cells[owner[n]], level[k[n]], slope, p, near, odd)
            if settled is None:
                return None
            counts += np.bincount(k, above, len(level)) - np.bincount(k[n], settled[0], len(level))
        return counts.astype(np.int64)


def _knots(kinks, slack, nodes):
    """The first and the last node, and those at which some line has a kink: second differences [nodes - 2, lines]."""
    is_knot = np.ones(nodes, bool)
    is_knot[1:-1] = np.abs(kinks).max(axis=1, initial=0) > 2 * slack
    return np.flatnonzero(is_knot)


def _between(rows, knots):
    """Rows given at some knots, all rows from the first to the last knot by linear interpolation."""
    if len(knots) == 1:
        return rows
    at = np.arange(knots[-1] + 1)
    k = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    weight = ((at - knots[k]) / np.diff(knots)[k]).astype(np.float32)[:, None]
    return rows[k] * (1 - weight) + rows[k + 1] * weight
