"""From values to grey levels and back, all in float32 as the study computes, and Otsu's choice among them.

A heatmap is normalised to m = (v - minimum) / (maximum - minimum). Each step rounds monotonically, so every cut in m is
a cut in v: the least float32 above it, found here exactly, spares normalising the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def _normalised(values, minimum, maximum):
    """m = (v - minimum) / max(v - minimum), all float32."""
    with np.errstate(all="ignore"):  # float32 may overflow and a flat map is 0/0, as in the reference
        return (values - minimum) / (maximum - minimum)


def grey_levels(values: np.ndarray, minimum: np.float32, maximum: np.float32) -> np.ndarray:
    """The study's grey levels uint8(255 m), truncating."""
    m = _normalised(values, minimum, maximum)
    m *= np.float32(255)
    with np.errstate(invalid="ignore"):
        return m.astype(np.uint8)


def _ordinal(values):
    """float32 to integers in the same order, neighbours one apart; both zeros are 0."""
    bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(2**31) - bits, bits)


def _from_ordinal(ordinal):
    return np.where(ordinal < 0, -(2**31) - ordinal, ordinal).astype(np.int32).view(np.float32)


def _least(test, low, high):
    """The least float32 that passes a monotone test, by bisection: arrays low (fails) and high (passes)."""
    low, high = _ordinal(low), _ordinal(high)
    while (high - low > 1).any():
        middle = (low + high) >> 1
        passed = test(_from_ordinal(middle))
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    return _from_ordinal(high)


@lru_cache(4)  # a map's histogram and its cut ask for the same
def bin_starts(minimum: np.float32, maximum: np.float32) -> np.ndarray:
    """Where bins begin: float32 [255], read-only, for k = 1..255 the least v whose bin uint8(255 m) is k or more."""
    k = np.arange(1, 256)
    minimum, maximum = np.float32(minimum), np.float32(maximum)

    def test(v):
        return np.float32(255) * _normalised(v, minimum, maximum) >= k

    span = np.float64(maximum) - np.float64(minimum)
    guess = minimum + k / 255 * span
    margin = 2.0**-22 * max(abs(float(minimum)), abs(float(maximum)), span)
    low = np.maximum(guess - margin, minimum).astype(np.float32)
    high = np.minimum(guess + margin, maximum).astype(np.float32)
    found = _least(test, np.where(test(low), minimum, low), np.where(test(high), high, maximum))
    found.flags.writeable = False
    return found


def level_above(threshold: float, minimum: np.float32, maximum: np.float32) -> np.float32:
    """The least float32 v whose m, compared as float64, is above a threshold; infinity where no m is."""
    return levels_above([threshold], minimum, maximum)[0]


def levels_above(thresholds: Sequence[float], minimum: np.float32, maximum: np.float32) -> np.ndarray:
    """`level_above` of each threshold: float32 [n]."""
    minimum, maximum = np.float32(minimum), np.float32(maximum)

    def test(v):
        return _normalised(v, minimum, maximum).astype(np.float64) > thresholds

    low, high = (np.full(len(thresholds), end) for end in (minimum, maximum))
    found = np.where(test(high), _least(test, low, high), np.float32(np.inf))
    return np.where(test(low), low, found)


def otsu(histogram: np.ndarray) -> int:
    """Otsu's threshold t of a histogram of 256 bins, to the digit as OpenCV: the mask is what lies in bins above t.

    The first maximum of the variance between classes; classes below float32's epsilon do not count.
    """
    epsilon = 2.0**-23
    most = 1.0 - epsilon
    counts = np.asarray(histogram).tolist()
    scale = 1.0 / sum(counts)
    mean = sum(i * n for i, n in enumerate(counts)) * scale
    below = share = 0.0  # mean and share of the class of bins 0..t
    best, threshold = 0.0, 0
    for t, n in enumerate(counts):
        p = n * scale
        below *= share
        share += p
        rest = 1.0 - share
        if not (epsilon <= share <= most and epsilon <= rest <= most):
            continue
        below = (below + t * p) / share
        above = (mean - share * below) / rest
        variance = share * rest * (below - above) * (below - above)
        if variance > best:
            best, threshold = variance, t
    return threshold
