"""Replicates are the study's to the last bit, however they are summed."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.metrics import bootstrap


def plainly(table: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """A sum per column and replicate, of the study's draws."""
    drawn = np.concatenate(list(bootstrap.draws(len(table), replicates, seed)))
    return np.array([[column[rows].sum() for column in np.ascontiguousarray(table.T)] for rows in drawn])


@pytest.mark.parametrize("n", [1, 7, 129, 1000, 20_011])
def test_sums_are_rounded_as_numpy_rounds_them(n):
    """Columns of any numbers, and of whole ones, some of which are too large to be added in any order."""
    rng = np.random.default_rng(n)
    table = rng.random((n, 6)) * rng.choice([1e-9, 1.0, 1e9], (n, 6))
    table[:, 1] = rng.integers(0, 10**7, n)
    table[:, 2] = rng.random(n) < 0.3
    table[:, 3] = rng.integers(0, 2**53, n)
    assert np.array_equal(bootstrap.sums(table, 4, 7), plainly(table, 4, 7))
    assert np.array_equal(bootstrap.sums(table[:, :1], 4, 7), plainly(table[:, :1], 4, 7))


def test_means_skip_what_is_undefined():
    rng = np.random.default_rng(0)
    table = np.where(rng.random((10_000, 3)) < 0.5, np.nan, rng.random((10_000, 3)))
    table[:, 2] = np.nan
    (rows,) = bootstrap.draws(10_000, 5, 1)
    expected = [[column[draw].sum() for column in np.nan_to_num(table.T)] for draw in rows]
    counts = [[(~np.isnan(column))[draw].sum() for column in table.T] for draw in rows]
    with np.errstate(invalid="ignore"):
        assert np.array_equal(bootstrap.means(table, 5, 1), np.divide(expected, counts), equal_nan=True)


def test_what_can_be_drawn_is_counted_by_column_and_group():
    has = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], bool)
    assert bootstrap.drawable(has).tolist() == [2, 2, 0]
    groups = bootstrap.groups_of(["p", "p", "q"])
    assert bootstrap.drawable(has, groups).tolist() == [1, 2, 0]  # the first column's two are one patient's
