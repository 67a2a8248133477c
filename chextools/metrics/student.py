"""Student's t, without scipy, which takes longer to import than chex-compare takes to run."""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300
NORMAL_975 = 1.959963984540054  # the normal quantile of 97.5%


def upper_tail(score: float, freedom: float) -> float:
    """P(T >= score) of Student's t; of the normal where `freedom` is infinite."""
    if math.isinf(freedom):
        return math.erfc(score / math.sqrt(2)) / 2
    tail = _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + score * score)) / 2
    return tail if score >= 0 else 1 - tail


@lru_cache(1024)
def quantile_975(freedom: float) -> float:
    """The score with 2.5% above it."""
    if math.isinf(freedom):
        return NORMAL_975
    low, high = 0.0, 13.0  # freedom is at least 1
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if upper_tail(middle, freedom) > 0.025 else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Press et al. 2007, section 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        for top in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + top * d)
            c = _away(1 + top / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * fraction / a


def _away(value: float) -> float:
    """The value, kept from 0."""
    return value if abs(value) > _TINY else _TINY
