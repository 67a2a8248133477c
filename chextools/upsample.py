"""Bilinear upsampling of heatmaps, bit for bit as the reference's torch does it, without making the pixels.

A heatmap of 320 x 320 nodes becomes an X-ray's millions of pixels only to be normalised, counted into 256 bins and cut
at a threshold. Between four neighbouring nodes (a *cell*, some 7 x 9 pixels) the upsampled map is bilinear but for
rounding, so counts and borders are solved per cell and per column of a cell. A solution is trusted only where it is
further from its threshold than all rounding together; every other pixel is evaluated by the reference's own recipe
(`Surface.pixels`). The results are therefore exact, not close.

All values are float32. The recipe, from torch's CPU kernel with fma: along x first, then along y,
fma(node[i0], w0, round(node[i1] * w1)), with half-pixel centres and coordinates clipped at the first node.
"""

from functools import cached_property, lru_cache

import numpy as np

_PIXELS_AT_ONCE = 1 << 16  # elements per temporary: a handful of them stay in a core's second-level cache
_ROUNDING = np.float32(2.0**-20)  # of the largest value: above all roundings of the recipe (6 x 2^-24) and of our own


class _Axis:
    """One direction: the two nodes and weights of each of `size` pixels, and the pixels of each of `nodes` + 1 cells.

    Cell c lies between nodes c - 1 and c; the first and the last cell are flat, where coordinates are clipped.
    """

    def __init__(self, nodes: int, size: int):
        self.step = np.float32(nodes) / np.float32(size)
        source = (np.float64(self.step) * (np.arange(size) + 0.5) - 0.5).astype(np.float32)  # one rounding: an fma
        before = np.floor(source)
        cell = before.astype(np.intp) + 1
        clipped = np.maximum(source, np.float32(0))
        self.lower = np.maximum(cell - 1, 0)
        self.upper = np.minimum(self.lower + 1, nodes - 1)
        self.upper_weight = clipped - self.lower.astype(np.float32)
        self.lower_weight = np.float32(1) - self.upper_weight
        self.first = np.searchsorted(cell, np.arange(nodes + 2))  # first pixel of each cell, and `size` at the end
        self.count = np.diff(self.first)
        self.most = int(self.count.max())
        inside = source - before  # where in its cell a pixel lies; evenly spaced but for rounding of `source`
        self.offset = np.where(self.count > 0, inside[np.minimum(self.first[:-1], size - 1)], np.float32(0))
        even = self.offset[cell] + np.float64(self.step) * (np.arange(size) - self.first[cell])
        self.uneven = float(np.abs(inside - even).max())


_axis = lru_cache(16)(_Axis)  # the maps of one X-ray share theirs


def _lerp(low, high, low_weight, high_weight):
    """fma(low, low_weight, round(high * high_weight)) in float32: the float64 product of two float32 is exact."""
    total = np.multiply(low, low_weight, dtype=np.float64)
    total += high * high_weight
    return total.astype(np.float32)


class Surface:
    """A heatmap as the reference upsamples it, bilinear with half-pixel centres, without making its pixels.

    values: float32 [hin, win], finite; size: (H, W), the pixels to answer for. Both at least 1 x 1.
    """

    def __init__(self, values: np.ndarray, size: tuple[int, int]):
        self.values = np.ascontiguousarray(values, dtype=np.float32)
        if self.values.ndim != 2 or 0 in self.values.shape or min(size) < 1:
            raise ValueError(f"cannot upsample a map of shape {np.shape(values)} to {tuple(size)} pixels")
        self.size = (int(size[0]), int(size[1]))
        self._y = _axis(self.values.shape[0], self.size[0])
        self._x = _axis(self.values.shape[1], self.size[1])
        self._scale = np.abs(self.values).max()
        # Few pixels per cell are cheaper to make than to solve; at the ends of float32's range our bounds do not hold.
        self._solvable = self.size[0] * self.size[1] > 4 * self.values.size and 2.0**-80 < self._scale < 2.0**100

    def dense(self) -> np.ndarray:
        """Every pixel: float32 [H, W]."""
        out = np.empty(self.size, np.float32)
        for y, rows in self._rows():
            out[y : y + len(rows)] = rows
        return out

    def pixels(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The values at given pixels: float32, of the shape that integer arrays y and x broadcast to."""
        left, right = self._x.lower[x], self._x.upper[x]
        top, bottom = self._y.lower[y], self._y.upper[y]
        weights = self._x.lower_weight[x], self._x.upper_weight[x]
        above = _lerp(self.values[top, left], self.values[top, right], *weights)
        below = _lerp(self.values[bottom, left], self.values[bottom, right], *weights)
        return _lerp(above, below, self._y.lower_weight[y], self._y.upper_weight[y])

    @cached_property
    def minimum(self) -> np.float32:
        """The least pixel."""
        return -self._largest(-1)

    @cached_property
    def maximum(self) -> np.float32:
        """The greatest pixel."""
        return self._largest(1)

    def argmax(self) -> tuple[int, int]:
        """(y, x) of the greatest pixel; of equal ones the first in row-major order."""
        boxes = self._boxes(self._peaks(self._highest, self.maximum - self._slack)) if self._solvable else None
        if boxes is not None:
            y, x, v = boxes
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
        if counts is None:
            counts = np.zeros(256, np.int64)
            for _, rows in self._rows():
                counts += np.bincount(_bin(rows, self.minimum, self.maximum).ravel(), minlength=256)
        return counts

    def transitions(self, threshold: np.float32) -> np.ndarray:
        """Where v >= threshold begins and ends, column by column: int64 [2 n], ascending, in positions x * H + y.

        The mask is [t0, t1), [t2, t3), ...; runs that touch across a column's end are one, as in COCO's RLE.
        """
        threshold = np.float32(threshold)
        ends = self._solve_transitions(threshold) if self._solvable else None
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
        across = np.empty((len(self.values), self.size[1]), np.float32)
        step = max(1, 2 * _PIXELS_AT_ONCE // self.size[1])
        for i in range(0, len(across), step):
            part = self.values[i : i + step]
            across[i : i + step] = _lerp(part[:, x.lower], part[:, x.upper], x.lower_weight, x.upper_weight)
        for i in range(0, self.size[0], step):
            rows = slice(i, i + step)
            weights = y.lower_weight[rows, None], y.upper_weight[rows, None]
            yield i, _lerp(across[y.lower[rows]], across[y.upper[rows]], *weights)

    # Cells

    @cached_property
    def _nodes(self):
        """The nodes with their border repeated: the corners of (hin + 1) x (win + 1) cells."""
        return np.pad(self.values, 1, mode="edge")

    @cached_property
    def _highest(self):
        """The greatest corner of each cell, flat."""
        return _over_cells(np.maximum, self._nodes)

    @cached_property
    def _lowest(self):
        """The least corner of each cell, flat."""
        return _over_cells(np.minimum, self._nodes)

    @property
    def _slack(self):
        """No pixel lies further outside its cell's corners."""
        return _ROUNDING * self._scale

    def _boxes(self, cells):
        """All pixels of some cells: y [n, ny, 1], x [n, 1, nx], values [n, ny, nx]; None when they are too many.

        Smaller cells repeat their last pixel. All cells must hold some.
        """
        y, x = self._y, self._x
        if len(cells) * y.most * x.most > self.size[0] * self.size[1] // 8:
            return None
        i, j = np.divmod(cells, len(x.count))
        rows = y.first[i][:, None] + np.minimum(np.arange(y.most), y.count[i][:, None] - 1)
        columns = x.first[j][:, None] + np.minimum(np.arange(x.most), x.count[j][:, None] - 1)
        rows, columns = rows[:, :, None], columns[:, None, :]
        return rows, columns, self.pixels(rows, columns)

    def _peaks(self, bound, least):
        """The cells with pixels whose bound is at least `least`."""
        cells = np.flatnonzero(bound >= least)
        i, j = np.divmod(cells, len(self._x.count))
        return cells[(self._y.count[i] > 0) & (self._x.count[j] > 0)]

    def _largest(self, sign):
        """The greatest of sign * pixel, for sign 1 or -1."""
        if self._solvable:
            bound = self._highest if sign > 0 else -self._lowest
            top = bound.max()
            first = self._peaks(bound, top)[:1]
            if first.size:
                best = (sign * self._boxes(first)[2]).max()
                if best == 0 == top:  # a sum of products without a sign: rounding cannot lift it
                    return best
                boxes = self._boxes(self._peaks(bound, best - self._slack))
                if boxes is not None:
                    return (sign * boxes[2]).max()
        return max((sign * rows).max() for _, rows in self._rows())

    def _planes(self, cells, width):
        """The bilinear function in each cell of `width` pixels, by the pixel (p, q) with q counted from the middle row.

        float32 [6, n]: it is base + p * along + q * (down + p * twist); then the slack that its rounding needs and the
        number of rows.
        """
        y, x, nodes = self._y, self._x, self._nodes.ravel()
        i = cells // len(x.count)
        j = cells - i * len(x.count)
        corner = cells + i  # the nodes have one column more than the cells
        a, b = nodes[corner], nodes[corner + 1]
        corner += self._nodes.shape[1]
        c, d = nodes[corner], nodes[corner + 1]
        top, bottom, left = b - a, d - c, c - a
        planes = np.empty((6, len(cells)), np.float32)
        base, along, down, twist, slack, rows = planes
        rows[:] = y.count[i]
        tx, ty = x.offset[j], y.offset[i] + (rows - 1) * (y.step / 2)
        np.subtract(bottom, top, out=twist)
        np.add(left, twist * tx, out=down)
        np.add(a + top * tx, down * ty, out=base)
        np.multiply(top + twist * ty, x.step, out=along)
        down *= y.step
        twist *= x.step * y.step
        np.abs(top, out=slack)
        slack += np.abs(bottom)
        slack += np.abs(left)
        slack *= np.float32(x.uneven + y.uneven + 2.0**-18)
        slack += self._slack
        return planes

    def _cross(self, cells, width, owner, level):
        """Where the columns of cells of `width` columns cross levels: owner int [n] into cells, level float32 [n].

        Yields, in blocks: a slice of n; turn float32 [width, block], how many of the column's pixels are below the
        level; slope [width, block], its sign says at which end; doubtful, flat positions in the block where rounding
        may decide (what is given there means nothing).
        """
        planes = self._planes(cells, width)
        p = np.arange(width, dtype=np.float32)[:, None]
        step = max(1, _PIXELS_AT_ONCE // width)
        for k in range(0, len(owner), step):
            block = slice(k, k + step)
            base, along, down, twist, slack, rows = planes.take(owner[block], axis=1)
            need = p * along
            np.subtract(level[block] - base, need, out=need)
            slope = p * twist
            slope += down
            steep = np.abs(slope)  # a falling column is a rising one seen from below
            with np.errstate(divide="ignore", invalid="ignore"):  # level columns: beyond either end, or doubtful
                where = need / steep
            where += (rows - 1) / 2
            np.maximum(where, np.full_like(rows, -0.5), out=where)
            np.minimum(where, rows - np.float32(0.5), out=where)
            turn = np.ceil(where)
            np.rint(where, out=where)  # the pixel next to the crossing: how far is it from the level?
            where -= (rows - 1) / 2
            where *= steep
            where -= need
            np.abs(where, out=where)
            yield block, turn, slope, np.flatnonzero(~(where > slack))

    def _inside(self, cells, p, level):
        """Which pixels of column p of each cell are >= level: bool [n, ny]; no pixels beyond a smaller cell's end."""
        i, j = np.divmod(cells, len(self._x.count))
        rows, q = self._y.count[i][:, None], np.arange(self._y.most)
        y = self._y.first[i][:, None] + np.minimum(q, rows - 1)
        return (self.pixels(y, (self._x.first[j] + p)[:, None]) >= level[:, None]) & (q < rows)

    def _solve_histogram(self):
        """The histogram from each cell's crossings of levels; None where making the pixels is cheaper."""
        low, high = self.minimum, self.maximum
        pixels = self.size[0] * self.size[1]
        level = levels(low, high)
        per_bin = 255 / (np.float64(high) - np.float64(low))
        # The bins that a cell may reach are its corners', with room for rounding and for where `level` really lies.
        room = np.abs((level.astype(np.float64) - low) * per_bin - np.arange(1, 256)).max()
        room = np.float32(room + self._slack * per_bin + 2.0**-12)
        first = np.maximum((self._lowest - low) * np.float32(per_bin) - room, 0).astype(np.int32)
        final = np.minimum((self._highest - low) * np.float32(per_bin) + room, 255).astype(np.int32)
        crossed = final - first
        if int(crossed.sum()) * self._x.most > pixels:
            return None
        area = np.multiply.outer(self._y.count, self._x.count.astype(np.float64)).ravel()
        at_least = np.cumsum(np.bincount(first, area, 257)[::-1])[::-1]
        doubts = 0
        for width, cells in self._by_width(crossed > 0):
            times = crossed[cells]
            owner = np.repeat(np.arange(len(cells), dtype=np.int32), times)
            k = np.arange(len(owner), dtype=np.int32)
            k += (first[cells] - np.cumsum(times, dtype=np.int32) + times)[owner]
            above = area[cells][owner]
            unsure = []
            for block, turn, _, doubtful in self._cross(cells, width, owner, level[k]):
                above[block] -= turn.sum(0)
                p, n = np.divmod(doubtful, turn.shape[1])
                unsure.append((n + block.start, p, turn.ravel()[doubtful]))
                doubts += len(n)
                if doubts * self._y.most > pixels // 8:
                    return None
            n, p, turn = map(np.concatenate, zip(*unsure))
            inside = self._inside(cells[owner[n]], p, level[k[n]]).sum(1)
            at_least[1:-1] += np.bincount(k, above, 255)
            at_least[1:-1] += np.bincount(k[n], inside + turn - self._y.count[cells[owner[n]] // len(self._x.count)], 255)
        return (at_least[:-1] - at_least[1:]).astype(np.int64)

    def _by_width(self, chosen):
        """The chosen cells (bool, flat) by their number of pixel columns: pairs of a width and flat positions."""
        chosen = chosen.reshape(-1, len(self._x.count))
        for width in np.unique(self._x.count[self._x.count > 0]).tolist():
            cells = np.flatnonzero(chosen & (self._x.count == width))
            if cells.size:
                yield width, cells

    def _solve_transitions(self, threshold):
        """The transitions from the cells that the threshold cuts; None where making the pixels is cheaper."""
        y, x, height = self._y, self._x, self.size[0]
        low, high = self._lowest, self._highest
        cut = (low < threshold + self._slack) & (high >= threshold - self._slack)
        cut &= (low != 0) | (high != 0)  # zeros stay zeros, and ReLU makes many
        if np.count_nonzero(cut) * x.most * 16 > self.size[1] * height:
            return None
        full = np.zeros((len(y.count) + 2, len(x.count)), bool)
        full[1:-1] = ((low >= threshold) & ~cut).reshape(full[1:-1].shape)
        i, j = np.nonzero(full[1:] != full[:-1])
        p = np.arange(x.most)
        position = (x.first[j][:, None] + p) * height + y.first[i][:, None]
        ends = [position[p < x.count[j][:, None]]]
        for width, cells in self._by_width(cut):
            i, j = np.divmod(cells, len(x.count))
            start = (x.first[j] + np.arange(width)[:, None]) * height + y.first[i]
            level = np.full(len(cells), threshold)
            for block, turn, slope, doubtful in self._cross(cells, width, np.arange(len(cells)), level):
                top, rows = start[:, block], y.count[i[block]]
                known = np.ones(turn.shape, bool)
                known.ravel()[doubtful] = False
                turn = turn.astype(np.int64)
                ends.append((top + np.where(slope >= 0, turn, 0))[known])
                ends.append((top + np.where(slope >= 0, rows, rows - turn))[known])
                p, n = np.divmod(doubtful, turn.shape[1])
                inside = np.pad(self._inside(cells[block][n], p, level[block][n]), ((0, 0), (1, 1)))
                n, q = np.nonzero(inside[:, 1:] != inside[:, :-1])
                ends.append(top.ravel()[doubtful[n]] + q)
        ends = np.sort(np.concatenate(ends))
        # Runs that touch, or are empty, have an end in common: what occurs twice is no transition.
        new = np.flatnonzero(np.concatenate(([True], ends[1:] != ends[:-1], [True])))
        return ends[new[:-1][np.diff(new) & 1 == 1]]


def _over_cells(best, nodes):
    """`best` (np.minimum or np.maximum) of each cell's four corners, flat."""
    rows = best(nodes[1:], nodes[:-1])
    return best(rows[:, 1:], rows[:, :-1]).ravel()


def _normalised(values, minimum, maximum):
    """m = (v - minimum) / max(v - minimum), all float32."""
    with np.errstate(all="ignore"):  # float32 may overflow and a flat map is 0/0, as in the reference
        return (values - minimum) / (maximum - minimum)


def _bin(values, minimum, maximum):
    m = _normalised(values, minimum, maximum)
    m *= np.float32(255)
    with np.errstate(invalid="ignore"):
        return m.astype(np.uint8)


def _ordinal(values):
    """float32 to integers in the same order, neighbours one apart; both zeros are 0."""
    bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(2**31) - bits, bits)


def _from_ordinal(ordinal):
    return np.where(ordinal < 0, -(2**31) - ordinal, ordinal).astype(np.int32).view(np.float32)


def _least(test, low, high):
    """The least float32 that passes a monotone test, by bisection: arrays low (fails) and high (passes)."""
    low, high = _ordinal(low), _ordinal(high)
    while (high - low > 1).any():
        middle = (low + high) >> 1
        passed = test(_from_ordinal(middle))
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    return _from_ordinal(high)


def levels(minimum: np.float32, maximum: np.float32) -> np.ndarray:
    """Where bins begin: float32 [255], for k = 1..255 the least v whose bin uint8(255 m) is k or more."""
    k = np.arange(1, 256)
    minimum, maximum = np.float32(minimum), np.float32(maximum)

    def test(v):
        return np.float32(255) * _normalised(v, minimum, maximum) >= k

    span = np.float64(maximum) - np.float64(minimum)
    guess = minimum + k / 255 * span
    margin = 2.0**-22 * max(abs(float(minimum)), abs(float(maximum)), span)
    low = np.maximum(guess - margin, minimum).astype(np.float32)
    high = np.minimum(guess + margin, maximum).astype(np.float32)
    return _least(test, np.where(test(low), minimum, low), np.where(test(high), high, maximum))


def level_above(threshold: float, minimum: np.float32, maximum: np.float32) -> np.float32:
    """The least float32 v whose m, compared as float64, is above a threshold; infinity where no m is."""
    minimum, maximum = np.float32(minimum), np.float32(maximum)

    def test(v):
        return _normalised(v, minimum, maximum).astype(np.float64) > threshold

    low, high = np.array([minimum]), np.array([maximum])
    if test(low)[0]:
        return minimum
    return _least(test, low, high)[0] if test(high)[0] else np.float32(np.inf)


def otsu(histogram: np.ndarray) -> int:
    """Otsu's threshold t of a histogram of 256 bins, to the digit as OpenCV: the mask is what lies in bins above t.

    The first maximum of the variance between classes; classes below float32's epsilon do not count.
    """
    epsilon = 2.0**-23
    counts = np.asarray(histogram).tolist()
    scale = 1.0 / sum(counts)
    mean = sum(i * n for i, n in enumerate(counts)) * scale
    below = share = 0.0  # mean and share of the class of bins 0..t
    best, threshold = 0.0, 0
    for t, n in enumerate(counts):
        p = n * scale
        below *= share
        share += p
        rest = 1.0 - share
        if min(share, rest) < epsilon or max(share, rest) > 1.0 - epsilon:
            continue
        below = (below + t * p) / share
        above = (mean - share * below) / rest
        variance = share * rest * (below - above) * (below - above)
        if variance > best:
            best, threshold = variance, t
    return threshold


def bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map upsampled (or sampled down) to size (H, W): float32 [H, W]."""
    return Surface(values, size).dense()
