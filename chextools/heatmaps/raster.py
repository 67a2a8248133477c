"""Every pixel of a fine heatmap at once, in plain float32, and the few that rounding leaves in doubt by the recipe.

Maps that are noise between pixels have no smooth patches to solve. Their pixels are made column by column, off by at
most a known slack; whichever lies within it of a threshold is evaluated by `Pixels.pixels`. What comes out is exact.
A function returns None where too many pixels are in doubt, as in a map of few values of which one is a threshold's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chextools.heatmaps.levels import grey_levels
from chextools.heatmaps.pixels import Pixels, at_least

_AT_ONCE = 1 << 17  # pixels: a strip and its copies stay in a core's second-level cache
_PAIRS = 1 << 19  # pixels, or pairs of them, looked at once
_ROUNDING = 2.0**-18  # of the largest value: the recipe's roundings and four times our own
_LEVEL_ROUNDING = 2.0**-12  # of one grey level of 255: what normalising a value rounds
_DOUBTFUL = 16  # at most one pixel in so many
_BINS = 1 << 14


def grey_columns(surface: Pixels) -> np.ndarray | None:
    """Every pixel's grey level uint8(255 m), as `levels.grey_levels`: uint8 [W, H], column by column."""
    height, width = surface.size
    per_level = 255 / (np.float64(surface.maximum) - np.float64(surface.minimum))
    slack = per_level * float(surface.scale) * _ROUNDING + _LEVEL_ROUNDING
    if not slack < 0.05:
        return None
    grey = np.empty((width, height), np.uint8)
    doubts = _Doubts(surface)
    for x, strip in _strips(surface, surface.minimum, per_level, -slack):
        least = grey[x : x + len(strip)]
        np.copyto(least, strip, casting="unsafe")  # what lies between -1 and 0 becomes 0
        strip += np.float32(2 * slack)
        if not doubts.add(x, strip.astype(np.uint8) != least):
            return None
    for position, values in doubts.settled():
        grey.ravel()[position] = grey_levels(values, surface.minimum, surface.maximum)
    return grey


def histogram(grey: np.ndarray) -> np.ndarray:
    """How many there are of each of 256 grey levels: int64 [256]. Pairs of pixels are counted, which is faster."""
    flat = grey.ravel()
    pairs = flat[: flat.size // 2 * 2].view(np.uint16)
    counts = np.zeros(1 << 16, np.int64)
    for start in range(0, pairs.size, _PAIRS):
        counts += np.bincount(pairs[start : start + _PAIRS], minlength=1 << 16)
    both = counts.reshape(256, 256)
    found = both.sum(0) + both.sum(1)
    if flat.size % 2:
        found[flat[-1]] += 1
    return found


def transitions(surface: Pixels, threshold: np.float32) -> np.ndarray | None:
    """`Surface.transitions`."""
    height, width = surface.size
    slack = np.float32(surface.scale) * np.float32(_ROUNDING)
    inside = np.empty((width, height), bool)
    doubts = _Doubts(surface)
    for x, strip in _strips(surface, threshold, 1.0, 0.0):
        certain = inside[x : x + len(strip)]
        np.greater_equal(strip, slack, out=certain)
        if not doubts.add(x, (strip >= -slack) != certain):
            return None
    for position, values in doubts.settled():
        inside.ravel()[position] = values >= threshold
    return flips(inside.ravel())


def flips(pixels: np.ndarray, level: int = 0) -> np.ndarray:
    """Where [n] begins and ends to be above a level: int64 [2 k], ascending."""
    found, before = [], False
    for start in range(0, pixels.size, _PAIRS):
        inside = pixels[start : start + _PAIRS] > level
        found.append(np.flatnonzero(inside[1:] != inside[:-1]) + (start + 1))
        if inside[0] != before:
            found.insert(-1, np.array([start]))
        before = inside[-1]
    return np.concatenate([*found, np.full(int(before), pixels.size)])


def counts(surface: Pixels, level: np.ndarray) -> np.ndarray | None:
    """`Surface.counts`: pixels are sorted into fine bins, and the bins that hold a level are looked into."""
    if not level.size:
        return np.zeros(0, np.int64)
    low, high = np.float64(surface.minimum), np.float64(surface.maximum)
    per_bin = (_BINS - 3) / (high - low)  # pixels fall into bins 1 to _BINS - 2
    slack = per_bin * float(surface.scale) * _ROUNDING + _LEVEL_ROUNDING
    if not slack < 0.5:
        return None
    at = np.clip((level.astype(np.float64) - low) * per_bin + 1, 0, _BINS - 1)
    doubtful = np.zeros(_BINS + 1, np.int64)
    np.add.at(doubtful, np.floor(np.clip(at - slack, 0, None)).astype(np.int64), 1)
    np.add.at(doubtful, np.minimum(np.floor(at + slack).astype(np.int64) + 1, _BINS), -1)
    is_doubtful = np.cumsum(doubtful)[:_BINS] > 0
    bins = np.zeros(_BINS, np.int64)
    doubts = _Doubts(surface)
    for x, strip in _strips(surface, surface.minimum, per_bin, 1.0):
        index = strip.astype(np.uint16)
        bins += np.bincount(index.ravel(), minlength=_BINS)
        if not doubts.add(x, is_doubtful[index]):
            return None
    reached = np.searchsorted(np.floor(at), np.arange(_BINS), side="left")  # levels below a bin without any
    bins[is_doubtful] = 0
    found = np.bincount(reached, bins, len(level) + 1).astype(np.int64)
    for _, values in doubts.settled():
        found += np.bincount(np.searchsorted(level, values, side="right"), minlength=len(level) + 1)
    return at_least(found)


def _strips(surface: Pixels, origin: np.float32, factor: float, offset: float) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of a first column x and float32 [n, H], (v - origin) * factor + offset of its pixels, the array used again.

    Off by at most `_ROUNDING` of the map's largest value times the factor.
    """
    x, y = surface.axes
    values = ((surface.values.astype(np.float64) - np.float64(origin)) * factor + offset).astype(np.float32)
    rows = values[y.lower]
    rows += (values[y.upper] - rows) * y.upper_weight[:, None]
    down = np.ascontiguousarray(rows.T)
    first = x.cells.first.tolist()
    step = max(1, _AT_ONCE // surface.size[0])
    space = np.empty((min(step, x.cells.most), surface.size[0]), np.float32)
    slope = np.empty(surface.size[0], np.float32)
    for cell, (begin, end) in enumerate(zip(first, first[1:])):
        left, right = down[max(cell - 1, 0)], down[min(cell, x.nodes - 1)]
        np.subtract(right, left, out=slope)
        for at in range(begin, end, step):
            columns = slice(at, min(at + step, end))
            strip = space[: columns.stop - at]
            np.multiply(slope, x.upper_weight[columns, None], out=strip)
            strip += left
            yield at, strip


class _Doubts:
    """Pixels that are to be evaluated by the recipe."""

    def __init__(self, surface: Pixels):
        self._surface = surface
        self._found: list[np.ndarray] = []
        self._left = surface.size[0] * surface.size[1] // _DOUBTFUL

    def add(self, x: int, doubtful: np.ndarray) -> bool:
        """Take those of columns from x on, bool [n, H]; False when there are too many."""
        found = np.flatnonzero(doubtful)
        self._left -= found.size
        self._found.append(found + x * self._surface.size[0])
        return self._left >= 0

    def settled(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of positions x * H + y, and the pixels' values."""
        found = np.concatenate(self._found)
        for start in range(0, found.size, _AT_ONCE):
            position = found[start : start + _AT_ONCE]
            x, y = np.divmod(position, self._surface.size[0])
            yield position, self._surface.pixels(y, x)
