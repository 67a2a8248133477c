"""From a file's own numbers to grey levels: luminance, transparency on black, and the range that becomes 0 to 255."""

from __future__ import annotations

import numpy as np

_ROWS = 256  # at a time, so that no array of floats has the size of the image
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


def scaled(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values of any type to uint8: `low`, the least, becomes 0 and `high`, the greatest, 255. Constant values: 0."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        low = float(finite.min(initial=np.inf)) if low is None else low
        high = float(finite.max(initial=-np.inf)) if high is None else high
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:  # a table: no array of floats at full size
        limits = np.iinfo(values.dtype)
        table = _levels(np.arange(limits.min, limits.max + 1, dtype=np.float64), low, high)
        return np.roll(table, limits.min)[values.view(f"u{values.dtype.itemsize}")]
    levels = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS):
        levels[row : row + _ROWS] = _levels(values[row : row + _ROWS].astype(np.float64), low, high)
    return levels


def luminance(samples: np.ndarray, alpha: np.ndarray | None = None, most: float = 1.0) -> np.ndarray:
    """float32 [h, w] of [h, w, 1 or 3] samples; `alpha` [h, w], opaque at `most`, lets black through."""
    height, width, channels = samples.shape
    gray = np.empty((height, width), np.float32)
    weights = np.array(_LUMINANCE if channels == 3 else (1.0,))
    for row in range(0, height, _ROWS):
        part = slice(row, row + _ROWS)
        found = samples[part] @ weights
        gray[part] = found if alpha is None else found * (alpha[part] / most)
    return gray


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((np.clip(values, low, high) - low) * (255 / (high - low))).astype(np.uint8)
