"""Rank correlation and SSIM, against scipy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import need_module
from scipy import stats

from chextools.metrics.similarity import spearman, ssim


@pytest.mark.parametrize("seed", range(5))
def test_spearman_shares_ranks(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, (2, 9, 7)).astype(float)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)


def test_spearman_of_a_flat_map_is_undefined():
    assert np.isnan(spearman(np.ones((3, 3)), np.arange(9).reshape(3, 3)))
    assert spearman(np.arange(9), np.arange(9) ** 3) == 1


@pytest.mark.parametrize("seed", range(5))
def test_ssim_is_scikit_images(seed):
    metrics = need_module("skimage.metrics")
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 40, 31))
    b = np.clip(0.7 * a + 0.3 * b, 0, 1)
    expected = metrics.structural_similarity(a, b, data_range=1.0)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-10)  # sums in another order
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
