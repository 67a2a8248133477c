"""Bootstrap confidence intervals, replicate for replicate those of the study (Saporta et al. 2022, Methods).

The study draws CXRs with replacement from numpy's RandomState and reads the interval off the sorted replicates.
Where it sorts replicates without a defined mean last, and so lets them become bounds, we leave them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_BLOCK = 1 << 20  # indices drawn at once: memory does not grow with the number of CXRs times replicates
_MANY = 1 << 13  # rows from which a table's columns, one after the other, are too long for a core's caches
_GATHERED = 1 << 16  # numbers gathered at once


def groups_of(names: Sequence[str]) -> tuple[np.ndarray, int]:
    """Group number of each row, int64 [n], and the number of groups; groups are numbered in sorted order."""
    distinct, index = np.unique(np.array(list(names), dtype=object).astype(str), return_inverse=True)
    return index.reshape(-1), len(distinct)


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


def means(table: np.ndarray, replicates: int, seed: int, groups: tuple[np.ndarray, int] | None = None) -> np.ndarray:
    """Replicate means, float64 [replicates, K], of a table [n, K]; NaN is skipped, a mean of nothing is NaN.

    groups: as `groups_of` gives them; then whole groups are drawn, as when one patient has several CXRs.
    """
    defined = ~np.isnan(table)
    values = np.where(defined, table, 0.0)
    if groups is not None:
        totals = sums(np.concatenate([values, defined], axis=1), replicates, seed, groups)
        total, count = np.split(totals, 2, axis=1)
        return _divide(total, count)
    total = _column_sums(values, replicates, seed)
    everywhere = defined.all(axis=0)
    count = np.full(total.shape, len(table), np.int64)
    count[:, ~everywhere] = _column_sums(defined[:, ~everywhere], replicates, seed)
    return _divide(total, count)


def sums(table: np.ndarray, replicates: int, seed: int, groups: tuple[np.ndarray, int] | None = None) -> np.ndarray:
    """Replicate sums, float64 [replicates, K], of a table [n, K] without NaN."""
    if groups is not None:
        number, n = groups
        table = np.stack([np.bincount(number, column, n) for column in table.T], axis=1) if n else table
    return _column_sums(table, replicates, seed)


def _column_sums(table: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Sums of each replicate's rows, [replicates, K], of a table [n, K]: of floats as floats, of bool as int64.

    Sums of whole numbers are exact however they are made: how often each row is drawn, times the row. Others have the
    study's rounding: that of a sum per column and replicate over values that lie side by side.
    """
    n = len(table)
    result = np.zeros((replicates, table.shape[1]), np.int64 if table.dtype == bool else np.float64)
    whole = np.array([_is_whole(column, n) for column in table.T], bool)
    counted = np.ascontiguousarray(table[:, whole], np.float64)
    columns = np.ascontiguousarray(table[:, ~whole].T)
    leaves = _Leaves(np.ascontiguousarray(table[:, ~whole])) if n >= _MANY and len(columns) > 1 else None
    start = 0
    for rows in draws(n, replicates, seed) if result.size and n else ():
        block = slice(start, start := start + len(rows))
        if counted.size:
            result[block, whole] = times_drawn(rows, n).astype(np.float64) @ counted
        if leaves is not None:
            result[block, ~whole] = leaves.sums(rows)
        elif columns.size:
            drawn = np.empty(rows.shape, np.float64)
            for k, column in zip(np.flatnonzero(~whole), columns):
                np.take(column, rows, out=drawn, mode="clip")  # no row is outside: to clip is cheaper than to check
                result[block, k] = drawn.sum(axis=1)
    return result


def _is_whole(column: np.ndarray, n: int) -> bool:
    """Whether float64 holds every sum of n of the column's values exactly."""
    if column.dtype == bool:
        return True
    return bool((column == np.rint(column)).all()) and np.abs(column).max(initial=0) * n < 2.0**53


class _Leaves:
    """Sums of drawn rows of a long table [n, K], each gathered once, rounded as numpy's pairwise sums of columns.

    numpy halves what it sums until at most 128 values are left, which it adds up by eights (Higham 1993).
    """

    def __init__(self, table: np.ndarray):
        self._table = table
        by_length: dict[int, list[int]] = {}
        leaves: list[tuple[int, int]] = []
        self._tree = _halved(0, len(table), leaves)
        for number, (_, length) in enumerate(leaves):
            by_length.setdefault(length, []).append(number)
        self._count = len(leaves)
        self._groups = [
            (np.array(numbers), np.array([leaves[k][0] for k in numbers])[:, None] + np.arange(length))
            for length, numbers in by_length.items()
        ]

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """The sums of each of the draws [R, n]: float64 [R, K]."""
        columns = self._table.shape[1]
        sums = np.empty((self._count, len(rows), columns))
        for numbers, positions in self._groups:
            length = positions.shape[1]
            step = max(1, _GATHERED // (length * len(rows) * columns))
            for k in range(0, len(numbers), step):
                drawn = rows[:, positions[k : k + step]]  # [R, leaves, length]
                values = np.take(self._table, drawn.reshape(-1, length), axis=0, mode="clip")
                sums[numbers[k : k + step]] = _eights(values).reshape(len(rows), -1, columns).transpose(1, 0, 2)
        return self._joined(self._tree, sums)

    def _joined(self, tree: tuple | int, sums: np.ndarray) -> np.ndarray:
        return sums[tree] if isinstance(tree, int) else self._joined(tree[0], sums) + self._joined(tree[1], sums)


def _halved(start: int, n: int, leaves: list[tuple[int, int]]) -> tuple | int:
    """The tree by which numpy sums n values: pairs of trees, and numbers of the leaves (start, length) added."""
    if n <= 128:
        leaves.append((start, n))
        return len(leaves) - 1
    half = n // 2 - n // 2 % 8
    return _halved(start, half, leaves), _halved(start + half, n - half, leaves)


def _eights(values: np.ndarray) -> np.ndarray:
    """Sums over axis 1 of [m, 8 to 128, K]: by eight running sums, then what is left."""
    m, length, columns = values.shape
    even = length // 8 * 8
    sums = np.add.reduce(values[:, :even].reshape(m, -1, 8 * columns), axis=1).reshape(m, 8, columns)
    for _ in range(3):
        sums = sums[:, 0::2] + sums[:, 1::2]
    total = sums[:, 0]
    for k in range(even, length):
        total = total + values[:, k]
    return total


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
