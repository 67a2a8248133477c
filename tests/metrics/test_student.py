"""Student's t against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from chextools.metrics.student import quantile_975, upper_tail


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 9, 29.0, 150, 3_000, 1e5, math.inf])
def test_tails_and_quantiles(freedom):
    known = stats.norm if math.isinf(freedom) else stats.t(freedom)
    for score in (-40, -3, -0.7, 0, 1e-9, 0.3, 1.5, 2.2, 6, 40):
        assert upper_tail(score, freedom) == pytest.approx(known.sf(score), rel=1e-9, abs=1e-300)
    assert quantile_975(freedom) == pytest.approx(known.ppf(0.975), rel=1e-10)


def test_it_falls():
    tails = [upper_tail(score, 5.0) for score in np.linspace(-5, 5, 101)]
    assert all(a > b for a, b in zip(tails, tails[1:]))
