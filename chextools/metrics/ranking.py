"""How a heatmap ranks pixels inside the truth above those outside: exact over all pixels, ties included.

All of it follows from the sorted pixels, and the sorted pixels of the truth; a map is sorted once for all metrics.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from chextools.heatmaps.levels import bin_starts
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask, intersection
from chextools.masks.runs import column_runs


def rank(surface: Surface, truth: Mask) -> float:
    """Share of the |S| greatest pixels that lie in the truth S; of equal ones the first in raster order count.

    Relevance rank accuracy (Arras et al. 2022, eq. 8). Of a random map the truth's share of the image is to be
    expected.
    """
    ranking = _ranking(surface, truth)
    wanted = len(ranking.place)
    least = ranking.least_of(wanted)
    above = Mask(surface.size, surface.transitions(np.nextafter(least, np.float32(np.inf))))
    ties = _first(Mask(surface.size, surface.transitions(least)), above, wanted - above.area)
    return (intersection(above, truth) + intersection(ties, truth)) / wanted


def pixel_auroc(surface: Surface, truth: Mask) -> float:
    """How often a pixel inside the truth outscores one outside, ties a half; at random 0.5 (Arun et al. 2021).

    NaN where the truth is the whole image.
    """
    ranking = _ranking(surface, truth)
    inside = len(ranking.place)
    outside = ranking.size - inside
    if not outside:
        return float("nan")
    not_above = int(ranking.place.sum()) - inside * (inside - 1) // 2  # pairs in which the one outside is not greater
    return (not_above - int((ranking.times * ranking.ties).sum()) / 2) / (inside * outside)


def pixel_auprc(surface: Surface, truth: Mask) -> float:
    """Average precision of pixels: the mean over the truth's pixels of the precision at their value, not interpolated.

    At random the truth's share of the image is to be expected (Arun et al. 2021).
    """
    ranking = _ranking(surface, truth)
    return float((ranking.times * (ranking.found / ranking.reached)).sum() / len(ranking.place))


def best_iou(surface: Surface, truth: Mask) -> tuple[float, float, float]:
    """IoU at the image's best single threshold, to which no tuning can come up; "area" and "area_chance".

    A mask is what lies above a threshold, so that the least pixels are in none; a flat map has none, and 0.
    area: the mean IoU over thresholds at the 255 grey levels, the area under IoU against threshold. area_chance: that
    of a map of independent uniform values, in large images.
    """
    ranking = _ranking(surface, truth)
    inside = len(ranking.place)
    share = inside / ranking.size
    kept = np.arange(255, 0, -1) / 255  # at random, of pixels inside and outside
    chance = float((share * kept / (share + kept - share * kept)).mean())
    lowest, highest = ranking.least_of(ranking.size), ranking.least_of(1)
    if lowest == highest:
        return 0.0, 0.0, chance
    best = (ranking.found / (inside + ranking.reached - ranking.found))[ranking.reached < ranking.size].max(initial=0.0)
    found, reached = ranking.at_least(bin_starts(lowest, highest).copy())
    return float(best), float((found / (inside + reached - found)).mean()), chance


class _Ranking:
    """All pixels in ascending order, of equal ones those outside the truth first.

    place: where in that order the truth's pixels are. times: how often each of their distinct values is among them;
    ties, how many pixels outside have it; found, reached: how many pixels inside, and in all, are at least it.
    """

    def __init__(self, surface: Surface, truth: Mask):
        self.truth = truth
        self.size = truth.size[0] * truth.size[1]
        self._signed = surface.values.min() < 0
        self._keyed = keys = self._flat(surface) if surface.is_flat else self._sorted(surface)
        last = keys.astype(np.uint8)
        last &= np.uint8(1)
        self.place = np.flatnonzero(last.view(bool))
        own = keys[self.place]
        first = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
        value, place = own[first], self.place[first]
        self.times = np.diff(first, append=len(own))
        self.ties = np.zeros(len(first), np.int64)
        tied = np.flatnonzero(keys[np.maximum(place - 1, 0)] == value - 1)
        self.ties[tied] = 1
        tied = tied[keys[np.maximum(place[tied] - 2, 0)] == value[tied] - 1]  # most have one, and need no search
        self.ties[tied] = place[tied] - np.searchsorted(keys, value[tied] - 1)
        self.found = len(own) - first
        self.reached = self.size - place + self.ties

    def _sorted(self, surface: Surface) -> np.ndarray:
        keys = self._keys(surface.dense())
        y, x, inside = _boxed(self.truth)
        keys[y : y + inside.shape[0], x : x + inside.shape[1]] |= inside
        keys = keys.ravel()
        keys.sort()
        return keys

    def _flat(self, surface: Surface) -> np.ndarray:
        """`_sorted` where all pixels are equal."""
        keys = np.repeat(self._keys(np.array([surface.minimum])), self.size)
        keys[self.size - self.truth.area :] |= 1
        return keys

    def _keys(self, values: np.ndarray) -> np.ndarray:
        """Whole numbers in the order of float32 values, even ones, so that one bit is free; may take their place."""
        values += np.float32(0)  # no zero has a sign
        bits = values.view(np.uint32)
        if not self._signed:
            bits <<= np.uint32(1)
            return bits
        wide = bits.astype(np.uint64)
        return np.where(bits >> 31, 2**32 - wide, 2**31 + 1 + wide) << np.uint64(1)

    def least_of(self, count: int) -> np.float32:
        """The least of the `count` greatest pixels."""
        key = int(self._keyed[self.size - count]) >> 1
        if self._signed:
            key = key - 2**31 - 1 if key > 2**31 else 2**32 - key
        return np.float32(np.array(key, np.uint32).view(np.float32)[()])

    def at_least(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many pixels inside, and in all, are at least each level."""
        before = np.searchsorted(self._keyed, self._keys(levels))
        return len(self.place) - np.searchsorted(self.place, before), self.size - before


_known: WeakKeyDictionary[Surface, _Ranking] = WeakKeyDictionary()


def _ranking(surface: Surface, truth: Mask) -> _Ranking:
    """The ranking of a map, made once for all metrics of it."""
    known = _known.get(surface)
    if known is None or known.truth is not truth:
        known = _known[surface] = _Ranking(surface, truth)
    return known


def _boxed(truth: Mask) -> tuple[int, int, np.ndarray]:
    """The pixels of the truth's box, bool [height, width], and its first row and column: truths are mostly small."""
    x, y, width, height = truth.box()
    starts, ends = column_runs(truth)
    column, top = np.divmod(starts, truth.size[0])
    place = (top - y) * width + column - x
    flips = np.zeros((height + 1, width), np.int8)
    flips.ravel()[place] += 1
    flips.ravel()[place + (ends - starts) * width] -= 1
    return y, x, np.cumsum(flips, axis=0, dtype=np.int8, out=flips)[:-1].view(bool)


def _first(mask: Mask, without: Mask, count: int) -> Mask:
    """The first `count` pixels in raster order of a mask, less a smaller one that lies in it."""
    height, width = mask.size
    left = Mask.from_flips(mask.size, np.sort(np.concatenate([mask.bounds, without.bounds])))
    if left.area <= count:
        return left
    starts, ends = column_runs(left)
    top = starts % height
    rows = np.cumsum(np.bincount(top, minlength=height + 1) - np.bincount(top + ends - starts, minlength=height + 1))
    taken = np.cumsum(rows)
    last = int(np.searchsorted(taken, count, side="right"))  # the row that is not taken whole
    columns = np.flatnonzero(np.searchsorted(left.bounds, np.arange(width) * height + last, side="right") % 2)
    columns = columns[: count - (int(taken[last - 1]) if last else 0)]
    ends = np.minimum(ends, starts - top + last)
    some = ends > starts
    position = columns * height + last
    return Mask.from_flips(
        mask.size, np.sort(np.concatenate([starts[some], ends[some], position, position + 1]), kind="stable")
    )
