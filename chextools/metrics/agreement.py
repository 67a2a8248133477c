"""How well readers agree: whether a finding is there (kappa), and where: the middle of what one drew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.masks.mask import Mask


def presence(first: Mask, second: Mask) -> tuple[int, int, int, int]:
    """Whether both, only the first, only the second, or neither drew anything: one of the four is 1."""
    a, b = bool(first.bounds.size), bool(second.bounds.size)
    return int(a and b), int(a and not b), int(b and not a), int(not a and not b)


def cohen_kappa(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa of two readers, of sums of `presence` [..., 4, K]; NaN where both always say the same one thing.

    Cohen, Educational and Psychological Measurement 20(1), 1960: (p_o - p_e) / (1 - p_e).
    """
    both, first, second, neither = np.moveaxis(counts, -2, 0)
    return _kappa(both + neither, both + first, both + second, both + first + second + neither)


def fleiss_kappa(counts: np.ndarray) -> np.ndarray:
    """Kappa of pairs of any readers, of the same sums: chance is by how often all of them draw (Fleiss 1971)."""
    both, first, second, neither = np.moveaxis(counts, -2, 0)
    drawn = both + (first + second) / 2
    return _kappa(both + neither, drawn, drawn, both + first + second + neither)


def _kappa(agreed: np.ndarray, one: np.ndarray, other: np.ndarray, total: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        observed, p, q = (np.divide(part, total) for part in (agreed, one, other))
        chance = p * q + (1 - p) * (1 - q)
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def middle(mask: Mask) -> tuple[int, int]:
    """The pixel (y, x) of a mask, which must not be empty, that is nearest to the mean of its pixels."""
    height = mask.size[0]
    position = mask.positions()
    x, y = np.divmod(position, height)
    nearest = np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2)
    return int(y[nearest]), int(x[nearest])


def hits(seen: Sequence[Mask], true: Mask) -> list[float]:
    """Whether the middle of each mask lies in another that is not empty; one who drew nothing has missed."""
    return [float(bool(mask.bounds.size) and true.contains(*middle(mask))) for mask in seen]
