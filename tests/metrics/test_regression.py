"""Regressions and rank correlation against scipy, and by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from chextools.metrics import regression


@pytest.fixture
def random():
    return np.random.default_rng(3)


def test_single_is_scipys_regression(random):
    for n in (4, 7, 100):
        x, y = random.random(n), random.random(n)
        expected = stats.linregress(x, y)
        half = stats.t.ppf(0.975, n - 2) * expected.stderr
        found, fit = regression.single(np.append(x, [np.nan, 1]), np.append(y, [1, np.nan]))
        assert found == n
        theirs = (expected.slope, expected.slope - half, expected.slope + half, expected.pvalue)
        assert (fit.slope, fit.lower, fit.upper, fit.p) == pytest.approx(theirs)


def test_spearman_is_scipys_with_fishers_interval(random):
    for n in (4, 9, 200):
        x, y = random.integers(0, 6, n).astype(float), random.random(n).round(1)
        if np.ptp(x) and np.ptp(y):
            expected = stats.spearmanr(x, y)
            r, lower, upper, p = regression.spearman(x, y)
            assert (r, p) == pytest.approx((expected.statistic, expected.pvalue))
            assert (np.arctanh(upper) - np.arctanh(lower)) / 2 * np.sqrt(n - 3) == pytest.approx(1.96)
    x = np.arange(6.0)
    assert regression.spearman(x, x**3) == (1, 1, 1, 0)
    assert regression.spearman(x, -x) == (-1, -1, -1, 0)


def test_joint_is_cr2_with_its_degrees_of_freedom_written_out(random):
    """With the whole hat matrix, and square roots of its blocks."""
    x, patients = random.random((40, 4)), np.array([f"p{k}" for k in random.integers(0, 12, 40)])
    y = x @ [1, 0, -2, 0.5] + random.normal(size=40)
    n, groups, fits = regression.joint(x, y, patients)
    z = (x - x.mean(0)) / x.std(0, ddof=1)
    design, outcome = np.column_stack([np.ones(40), z]), (y - y.mean()) / y.std(ddof=1)

    bread = np.linalg.inv(design.T @ design)
    left = np.eye(40) - design @ bread @ design.T
    slopes = bread @ design.T @ outcome
    names = sorted(set(patients))
    assert (n, groups) == (40, len(names))
    for k, fit in enumerate(fits, start=1):
        weights = []  # of residuals, one row a patient
        for name in names:
            own = np.flatnonzero(patients == name)
            values, vectors = np.linalg.eigh(left[np.ix_(own, own)])
            weights.append(np.zeros(40))
            weights[-1][own] = vectors / np.sqrt(values) @ vectors.T @ design[own] @ bread[:, k]
        weights = np.array(weights)
        error = np.sqrt(np.square(weights @ (outcome - design @ slopes)).sum())
        products = weights @ left @ weights.T
        freedom = np.trace(products) ** 2 / np.square(products).sum()
        assert (fit.slope, fit.freedom) == pytest.approx((slopes[k], freedom)) and 1 < freedom < len(names) - 1
        assert fit.upper - fit.slope == pytest.approx(stats.t.ppf(0.975, freedom) * error)
        assert fit.p == pytest.approx(2 * stats.t.sf(abs(fit.slope) / error, freedom))


def test_one_row_a_patient_is_hc2(random):
    """Its errors are those of residuals over the root of 1 - leverage."""
    x, y = random.random((30, 1)), random.random(30)
    (fit,) = regression.joint(x, y, [f"p{k}" for k in range(30)])[2]
    z, outcome = (x[:, 0] - x.mean()) / x.std(ddof=1), (y - y.mean()) / y.std(ddof=1)
    leverage = 1 / 30 + z**2 / (z**2).sum()
    residuals = (outcome - fit.slope * z) / np.sqrt(1 - leverage)
    error = np.sqrt(((z * residuals) ** 2).sum()) / (z**2).sum()
    assert fit.upper - fit.slope == pytest.approx(stats.t.ppf(0.975, fit.freedom) * error)


def test_seeing_a_patient_twice_is_no_news(random):
    """Every pair repeated: the single model's interval shrinks as if that were data, the joint model's hardly does."""
    x, patients = random.random((30, 4)), [f"p{k}" for k in range(30)]
    y = random.random(30)
    _, once = regression.single(x[:, 0], y)
    _, twice = regression.single(np.tile(x[:, 0], 2), np.tile(y, 2))
    assert (twice.upper - twice.lower) < 0.75 * (once.upper - once.lower)
    _, _, once = regression.joint(x, y, patients)
    _, groups, twice = regression.joint(np.tile(x, (2, 1)), np.tile(y, 2), patients * 2)
    assert groups == 30
    for a, b in zip(once, twice):
        assert b.slope == pytest.approx(a.slope)
        assert (b.upper - b.lower) / (a.upper - a.lower) == pytest.approx(1, abs=0.06)  # the small-sample factor


def test_units_of_features_do_not_matter_to_the_joint_model(random):
    x, y, patients = random.random((30, 4)), random.random(30), [f"p{k % 12}" for k in range(30)]
    other = regression.joint(x * [1000, -2, 1, 1e-6] + 7, 3 - y, patients)[2]
    for a, b in zip(regression.joint(x, y, patients)[2], other):
        assert abs(b.slope) == pytest.approx(abs(a.slope)) and b.p == pytest.approx(a.p)
