"""How a heatmap ranks pixels inside the truth above those outside: exact over all pixels, ties included.

All of it follows from the sorted pixels, and the sorted pixels of the truth; a map is sorted once for all metrics.
"""

from __future__ import annotations

from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from chextools.heatmaps.levels import levels
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs


def rank(surface: Surface, truth: Mask) -> float:
    """Share of the |S| greatest pixels that lie in the truth S; of equal ones the first in raster order count.

    Relevance rank accuracy (Arras et al. 2022, eq. 8). Of a random map the truth's share of the image is to be
    expected.
    """
    return _ranking(surface, truth).rank()


def pixel_auroc(surface: Surface, truth: Mask) -> float:
    """How often a pixel inside the truth outscores one outside, ties a half; at random 0.5 (Arun et al. 2021).

    NaN where the truth is the whole image.
    """
    ranking = _ranking(surface, truth)
    outside = len(ranking.pixels) - len(ranking.inside)
    if not outside:
        return float("nan")
    below = ranking.size - ranking.reached - (len(ranking.inside) - ranking.found)  # outside, less than each value
    wins = (ranking.times * (below + ranking.outside_ties / 2)).sum()
    return float(wins / (len(ranking.inside) * outside))


def pixel_auprc(surface: Surface, truth: Mask) -> float:
    """Average precision of pixels: the mean over the truth's pixels of the precision at their value, not interpolated.

    At random the truth's share of the image is to be expected (Arun et al. 2021).
    """
    ranking = _ranking(surface, truth)
    return float((ranking.times * (ranking.found / ranking.reached)).sum() / len(ranking.inside))


def best_iou(surface: Surface, truth: Mask) -> tuple[float, float, float]:
    """IoU at the image's best single threshold, to which no tuning can come up; "area" and "area_chance".

    A mask is what lies above a threshold, so that the least pixels are in none; a flat map has none, and 0.
    area: the mean IoU over thresholds at the 255 grey levels, the area under IoU against threshold. area_chance: that
    of a map of independent uniform values, in large images.
    """
    ranking = _ranking(surface, truth)
    share = len(ranking.inside) / ranking.size
    kept = np.arange(255, 0, -1) / 255  # at random, of pixels inside and outside
    chance = float((share * kept / (share + kept - share * kept)).mean())
    lowest, highest = ranking.pixels[0], ranking.pixels[-1]
    if lowest == highest:
        return 0.0, 0.0, chance
    some = ranking.values > lowest
    union = len(ranking.inside) + ranking.reached - ranking.found
    best = (ranking.found / union)[some].max(initial=0.0)
    cuts = levels(lowest, highest)
    found = len(ranking.inside) - np.searchsorted(ranking.inside, cuts)
    union = len(ranking.inside) + ranking.size - np.searchsorted(ranking.pixels, cuts) - found
    return float(best), float((found / union).mean()), chance


class _Ranking:
    """All pixels in order, and those of the truth.

    pixels, inside: sorted float32. values, times: the distinct values inside, and how often each is there. found,
    reached: how many pixels inside, and in all, are at least each value.
    """

    def __init__(self, surface: Surface, truth: Mask):
        self.truth = truth
        self._surface = surface
        pixels = surface.dense()
        self.inside = np.sort(_within(pixels, truth))
        self.pixels = pixels.ravel()
        self.pixels.sort()
        self.size = len(self.pixels)
        first = np.flatnonzero(np.append(True, self.inside[1:] != self.inside[:-1]))
        self.values = self.inside[first]
        self.times = np.diff(first, append=len(self.inside))
        self.found = len(self.inside) - first
        self.reached = self.size - np.searchsorted(self.pixels, self.values)

    @cached_property
    def outside_ties(self) -> np.ndarray:
        """How many pixels outside have each value, int64."""
        following = self.size - self.reached + self.times  # the pixel after as many as there are inside
        equal = self.pixels[np.minimum(following, self.size - 1)] == self.values
        tied = np.flatnonzero(equal & (following < self.size))
        ties = np.zeros(len(self.values), np.int64)
        ties[tied] = np.searchsorted(self.pixels, self.values[tied], side="right") - following[tied]
        return ties

    def rank(self) -> float:
        count = len(self.inside)
        least = self.pixels[self.size - count]
        above = self.size - int(np.searchsorted(self.pixels, least, side="right"))
        hits = count - int(np.searchsorted(self.inside, least, side="right"))
        equal = self.size - int(np.searchsorted(self.pixels, least)) - above
        if equal == count - above:
            hits = count - int(np.searchsorted(self.inside, least))
        elif equal:
            ties = np.flatnonzero(self._surface.dense() == least)[: count - above]
            y, x = np.divmod(ties, self.truth.size[1])
            position = x * self.truth.size[0] + y
            hits += int((np.searchsorted(self.truth.bounds, position, side="right") % 2).sum())
        return hits / count


_known: WeakKeyDictionary[Surface, _Ranking] = WeakKeyDictionary()


def _ranking(surface: Surface, truth: Mask) -> _Ranking:
    """The ranking of a map, made once for all metrics of it."""
    known = _known.get(surface)
    if known is None or known.truth is not truth:
        known = _known[surface] = _Ranking(surface, truth)
    return known


def _within(pixels: np.ndarray, truth: Mask) -> np.ndarray:
    """The pixels of the truth, in any order: of its box alone, as it is mostly small."""
    x, y, width, height = truth.box()
    starts, ends = column_runs(truth)
    column = starts // truth.size[0] - x
    shift = column * (height + 1) - (column + x) * truth.size[0] - y  # each column ends with a row of its own, empty
    flips = np.zeros((width, height + 1), np.int8)
    flips.ravel()[starts + shift] = 1
    flips.ravel()[ends + shift] = -1
    inside = np.cumsum(flips, axis=1, dtype=np.int8)[:, :-1].astype(bool).T
    return pixels[y : y + height, x : x + width][inside]
