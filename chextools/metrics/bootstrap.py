"""Bootstrap confidence intervals, replicate for replicate those of the study (Saporta et al. 2022, Methods).

The study draws CXRs with replacement from numpy's RandomState and reads the interval off the sorted replicates.
Where it sorts replicates without a defined mean last, and so lets them become bounds, we leave them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, repeat

import numpy as np

UNWATCHED: Iterator = repeat(None)  # steps that nobody counts
_BLOCK = 1 << 20  # indices drawn at once: memory does not grow with the number of CXRs times replicates


def groups_of(names: Sequence[str]) -> tuple[np.ndarray, int]:
    """Group number of each row, int64 [n], and the number of groups; groups are numbered in sorted order."""
    distinct, index = np.unique(np.array(list(names), dtype=object).astype(str), return_inverse=True)
    return index.reshape(-1), len(distinct)


def drawable(has: np.ndarray, groups: tuple[np.ndarray, int] | None = None) -> np.ndarray:
    """How many rows, or groups of them, have something in each column of bool [n, K] to be drawn: int64 [K].

    Where it is one, all replicates are alike, and say nothing of how they spread.
    """
    if groups is None:
        return has.sum(axis=0)
    index, count = groups
    by_group = np.zeros((count, has.shape[1]), bool)
    np.logical_or.at(by_group, index, has)
    return by_group.sum(axis=0)


def draws(n: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks [rows, n] of row numbers drawn with replacement; together `replicates` rows, the study's stream."""
    random = np.random.RandomState(seed)
    rows = max(1, _BLOCK // max(n, 1))
    for start in range(0, replicates, rows):
        yield random.randint(0, n, (min(rows, replicates - start), n))


def times_drawn(rows: np.ndarray, n: int) -> np.ndarray:
    """How often each of n is in each row of a block from `draws`: int64 [rows, n]."""
    offsets = n * np.arange(len(rows))[:, None]
    return np.bincount((rows + offsets).ravel(), minlength=len(rows) * n).reshape(-1, n)


def moved(steps: Iterator, count: int) -> None:
    """Move on by so many steps, for who watches."""
    for _ in islice(steps, count):
        pass


def means(
    table: np.ndarray,
    replicates: int,
    seed: int,
    groups: tuple[np.ndarray, int] | None = None,
    steps: Iterator = UNWATCHED,
) -> np.ndarray:
    """Replicate means, float64 [replicates, K], of a table [n, K]; NaN is skipped, a mean of nothing is NaN.

    groups: as `groups_of` gives them; then whole groups are drawn, as when one patient has several CXRs. steps: moves
    on by one with each replicate.
    """
    defined = ~np.isnan(table)
    values = np.where(defined, table, 0.0)
    if groups is not None:
        totals = sums(np.concatenate([values, defined], axis=1), replicates, seed, groups, steps)
        total, count = np.split(totals, 2, axis=1)
        return _divide(total, count)
    total = _column_sums(values, replicates, seed, steps)
    everywhere = defined.all(axis=0)
    count = np.full(total.shape, len(table), np.int64)
    count[:, ~everywhere] = _column_sums(defined[:, ~everywhere], replicates, seed, UNWATCHED)
    return _divide(total, count)


def sums(
    table: np.ndarray,
    replicates: int,
    seed: int,
    groups: tuple[np.ndarray, int] | None = None,
    steps: Iterator = UNWATCHED,
) -> np.ndarray:
    """Replicate sums, float64 [replicates, K], of a table [n, K] without NaN; parameters as of `means`."""
    if groups is not None:
        number, n = groups
        table = np.stack([np.bincount(number, column, n) for column in table.T], axis=1) if n else table
    return _column_sums(table, replicates, seed, steps)


def _column_sums(table: np.ndarray, replicates: int, seed: int, steps: Iterator) -> np.ndarray:
    """Sums of each replicate's rows, [replicates, K], of a table [n, K]: of floats as floats, of bool as int64.

    Sums of whole numbers are exact however they are made: how often each row is drawn, times the row. Others have the
    study's rounding: that of a sum per column and replicate over values that lie side by side.
    """
    n = len(table)
    result = np.zeros((replicates, table.shape[1]), np.int64 if table.dtype == bool else np.float64)
    whole = np.array([_is_whole(column, n) for column in table.T], bool)
    counted = np.ascontiguousarray(table[:, whole], np.float64)
    columns = np.ascontiguousarray(table[:, ~whole].T)
    start = 0
    for rows in draws(n, replicates, seed) if result.size and n else ():
        block = slice(start, start := start + len(rows))
        if counted.size:
            result[block, whole] = times_drawn(rows, n).astype(np.float64) @ counted
        drawn = np.empty(rows.shape if columns.size else 0)
        for k, column in zip(np.flatnonzero(~whole), columns):
            np.take(column, rows, out=drawn, mode="clip")  # no row is outside: to clip is cheaper than to check
            result[block, k] = drawn.sum(axis=1)
        moved(steps, len(rows))
    return result


def _is_whole(column: np.ndarray, n: int) -> bool:
    """Whether float64 holds every sum of n of the column's values exactly."""
    if column.dtype == bool:
        return True
    return bool((column == np.rint(column)).all()) and np.abs(column).max(initial=0) * n < 2.0**53


def interval(replicates: np.ndarray, confidence: float = 0.95) -> tuple[float, float, int]:
    """(lower, upper, count) of one column of replicates: the study's sorted values, over those that are defined."""
    values = np.sort(replicates[~np.isnan(replicates)])
    n = len(values)
    if not n:
        return np.nan, np.nan, 0
    tail = (1 - confidence) / 2
    lower = max(int(round(tail, 12) * n) - 1, 0)
    upper = max(int(round(1 - tail, 12) * n) - 1, 0)
    return float(values[lower]), float(values[upper]), n


def nanmean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of the defined values along an axis; NaN, without a warning, where there is none."""
    values = np.ascontiguousarray(np.moveaxis(values, axis, -1))  # a column's rounding depends on itself alone
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.divide(total, count), np.nan)
