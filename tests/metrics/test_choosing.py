"""Grids, and operating points in replicates."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.metrics import bootstrap, choosing


def test_the_default_grid_is_the_study_arange_with_its_rounding():
    assert choosing.grid_values(0.2, 0.8, 0.1) == tuple(np.arange(0.2, 0.8, 0.1))
    assert choosing.grid_values(0.2, 0.8, 0.1)[-1] > 0.8
    assert len(choosing.grid_values(0.0, 0.8, 0.1)) == 9


@pytest.mark.parametrize(
    "grid, values",
    [((0, 1, 0.25), [0, 0.25, 0.5, 0.75, 1]), ((0.5, 0.5, 0.1), [0.5]), ((0.1, 0.35, 0.1), [0.1, 0.2, 0.3])],
)
def test_a_grid_goes_up_to_its_stop(grid, values):
    np.testing.assert_allclose(choosing.grid_values(*grid), values, rtol=1e-12)


@pytest.mark.parametrize(
    "grid", [(0.5, 0.2, 0.1), (-0.1, 0.2, 0.1), (0, 1, 0), (0, 1.1, 0.1), (0, 1, 1e-6), (0, 1, np.nan)]
)
def test_a_grid_that_makes_no_sense_is_refused(grid):
    with pytest.raises(InputError, match="grid"):
        choosing.grid_values(*grid)


def test_operating_points_of_replicates_are_those_of_their_images():
    """Counting each image as often as it was drawn gives what tuning on the drawn images themselves gives."""
    rng = np.random.default_rng(0)
    scores = np.sort(rng.choice(np.linspace(0, 1, 15), 40))[::-1]
    positive = rng.random(40) < 0.4
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    (drawn,) = bootstrap.draws(40, 50, 3)
    times = np.stack([np.bincount(d, minlength=40) for d in drawn])
    for target in (None, 0.8):
        chosen = choosing._chosen(times, positive, last, target)
        for k, d in zip(chosen, drawn):
            points = []
            for t in scores[last]:
                sensitivity, specificity = (scores[d] >= t)[positive[d]].mean(), (scores[d] < t)[~positive[d]].mean()
                points.append(sensitivity + specificity if target is None else float(sensitivity >= target - 1e-12))
            assert points[k] == pytest.approx(max(points)) and k == np.flatnonzero(np.isclose(points, max(points)))[0]
