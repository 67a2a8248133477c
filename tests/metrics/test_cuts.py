"""Areas at many thresholds at once are those of the masks."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.heatmaps.levels import level_above
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask, intersection
from chextools.metrics import choosing
from chextools.metrics.cuts import areas_of_cuts


@pytest.mark.parametrize("size", [(400, 300), (35, 31)])
def test_areas_are_those_of_the_masks(size):
    """The one pass over a map counts what cutting it at each threshold would."""
    rng = np.random.default_rng(0)
    values = np.maximum(np.cumsum(rng.standard_normal((30, 30)), 1), 0).astype(np.float32)
    truth = Mask.from_array(rng.random(size) < 0.3)
    surface = Surface(values, size)
    grid = choosing.grid_values(0, 1, 0.05)
    both, predicted = areas_of_cuts(surface, truth, grid)
    for k, threshold in enumerate(grid):
        mask = Mask(size, surface.transitions(level_above(threshold, surface.minimum, surface.maximum)))
        assert (both[k], predicted[k]) == (intersection(mask, truth), mask.area)
    assert predicted[0] == (surface.dense() > surface.minimum).sum() and predicted[-1] == 0
