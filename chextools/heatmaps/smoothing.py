"""The mean over a box around each pixel."""

from __future__ import annotations

import numpy as np

from chextools.errors import InputError

_ROWS_AT_ONCE = 256


def box_filter(values: np.ndarray, side: int) -> np.ndarray:
    """Mean over a box of `side` x `side` pixels around each pixel, borders mirrored about the edge pixel; float32."""
    if side > min(values.shape):
        raise InputError(f"a box of {side} pixels is larger than the image of {values.shape[0]} x {values.shape[1]}")
    return _row_means(_row_means(values, side).T, side).T


def _row_means(values: np.ndarray, side: int) -> np.ndarray:
    """Means of `side` neighbours along each row, in blocks of rows that bound the memory of the running sums."""
    means = np.empty_like(values)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        padded = np.pad(values[rows], ((0, 0), (side // 2, side - 1 - side // 2)), mode="reflect")
        sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
        means[rows] = (sums[:, side:] - sums[:, :-side]) / side
    return means
