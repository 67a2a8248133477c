"""How alike two heatmaps are: rank correlation, and structural similarity."""

from __future__ import annotations

import numpy as np

WINDOW = 7  # pixels a side, over which SSIM compares


def midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, float64; equal values share the mean of theirs."""
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[index.reshape(-1)]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of one shape; equal values share their mean rank.

    NaN where one of them has a single value.
    """
    x, y = (midranks(np.ravel(values)) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def ssim(a: np.ndarray, b: np.ndarray, data_range: float = 1.0) -> float:
    """Mean structural similarity (Wang et al. 2004) of two arrays [h, w] of which each side has 7 or more pixels.

    Over uniform windows of 7 x 7 that lie in the image, with sample covariances, K1 = 0.01 and K2 = 0.03: the
    defaults of scikit-image. data_range: the range of possible values.
    """
    a, b = (np.asarray(values, np.float64) for values in (a, b))
    n = WINDOW * WINDOW
    mean_a, mean_b = _window_means(a), _window_means(b)
    unbiased = n / (n - 1)
    variance = unbiased * (_window_means(a * a) - mean_a**2 + _window_means(b * b) - mean_b**2)
    covariance = unbiased * (_window_means(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    parts = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((parts / ((mean_a**2 + mean_b**2 + c1) * (variance + c2))).mean())


def _window_means(values: np.ndarray) -> np.ndarray:
    """Means over all windows that lie in the image: [h - 6, w - 6]."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(np.cumsum(values, axis=0), axis=1, out=sums[1:, 1:])
    rows = sums[WINDOW:] - sums[:-WINDOW]
    return (rows[:, WINDOW:] - rows[:, :-WINDOW]) / (WINDOW * WINDOW)
