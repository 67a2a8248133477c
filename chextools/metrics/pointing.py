"""The pointing game: whether the point where a map is greatest lies in the truth, or near it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs

_AT_ONCE = 1 << 20  # runs and shifted copies of them held at once


def hit(
    points: Sequence[tuple[int, int]], truth: Mask, tolerance: float = 0.0, tolerance_size: int | None = None
) -> tuple[float, float]:
    """Whether any of the pixels (y, x) lies in the truth or within the tolerance of it (Zhang et al. 2018); "chance".

    tolerance: greatest distance from a point to the nearest pixel of the truth, in pixels of an image whose longer
    side has `tolerance_size` pixels; None for the image as it is. The literature has 15. chance: the hit rate to
    expect of a random point, the share of the image that lies within the tolerance.
    """
    radius = tolerance * (max(truth.size) / tolerance_size if tolerance_size else 1.0)
    chance = dilated(truth, radius).area / (truth.size[0] * truth.size[1])
    near = truth.contains if radius < 1 else lambda y, x: distance(y, x, truth) <= radius
    return float(any(near(y, x) for y, x in points)), chance


def distance(y: int, x: int, mask: Mask) -> float:
    """Euclidean distance in pixels from a pixel to the nearest of a mask; infinity to an empty one."""
    starts, ends = column_runs(mask)
    if not starts.size:
        return math.inf
    column, top = np.divmod(starts, mask.size[0])
    bottom = top + (ends - starts) - 1
    away = np.maximum(np.maximum(top - y, y - bottom), 0)
    return math.sqrt(int((away**2 + (column - x) ** 2).min()))


def dilated(mask: Mask, radius: float) -> Mask:
    """The pixels within a distance of a mask, those at it included."""
    if radius < 1 or not mask.bounds.size:
        return mask
    height, width = mask.size
    radius = min(radius, math.hypot(height, width))
    starts, ends = column_runs(mask)
    column, top = np.divmod(starts, height)
    bottom = top + ends - starts
    found = np.empty((2, 0), np.int64)
    farthest = min(int(radius), width - 1)
    nearest_first = np.array(sorted(range(-farthest, farthest + 1), key=abs))
    at_once = max(1, _AT_ONCE // len(starts))
    for begin in range(0, len(nearest_first), at_once):
        steps = nearest_first[begin : begin + at_once]
        reach = np.sqrt(radius**2 - steps.astype(np.float64) ** 2).astype(np.int64)
        target = column[:, None] + steps
        inside = (target >= 0) & (target < width)
        low = (target * height + np.maximum(top[:, None] - reach, 0))[inside]
        high = (target * height + np.minimum(bottom[:, None] + reach, height))[inside]
        found = _joined(np.concatenate([found, np.stack([low, high])], axis=1))
        if found.shape[1] == 1 and found[1, 0] - found[0, 0] == height * width:
            break
    return Mask(mask.size, found.T.ravel())


def _joined(runs: np.ndarray) -> np.ndarray:
    """What any of the runs [2, n], starts and ends, covers: as runs that are ascending, and apart."""
    low, high = runs[:, np.argsort(runs[0], kind="stable")]
    high = np.maximum.accumulate(high)
    first = np.append(True, low[1:] > high[:-1])[: low.size]
    return np.stack([low[first], high[np.append(first[1:], True)[: low.size]]])
