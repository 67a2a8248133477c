"""Areas of the masks that a heatmap makes at many thresholds at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.heatmaps.levels import levels_above
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask

_PIXELS_AT_ONCE = 1 << 15


def areas_of_cuts(surface: Surface, truth: Mask, thresholds: Sequence[float]) -> np.ndarray:
    """Pixels of mask and truth, and of the mask, at each threshold of the normalised map: int64 [2, G].

    thresholds: in [0, 1], ascending. The mask's pixels are those >= a level of float32, so one pass over the truth
    counts them for all levels.
    """
    levels = levels_above(thresholds, surface.minimum, surface.maximum)
    levels = levels[levels < np.inf]
    if not levels.size:
        return np.zeros((2, len(thresholds)), np.int64)
    both = np.zeros(len(levels) + 1, np.int64)
    positions = truth.positions()
    for start in range(0, len(positions), _PIXELS_AT_ONCE):  # blocks that stay in a core's cache
        x, y = np.divmod(positions[start : start + _PIXELS_AT_ONCE], surface.size[0])
        both += np.bincount(np.searchsorted(levels, surface.pixels(y, x), side="right"), minlength=len(both))
    areas = np.stack([np.cumsum(both[:0:-1])[::-1], surface.counts(levels)])
    return np.pad(areas, ((0, 0), (0, len(thresholds) - len(levels))))
