"""How well scores tell positive from negative CXRs: AUROC and its kin.

Every metric is computed for all replicates at once, from how often each CXR was drawn; scores are sorted once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ECE_BINS = 15


# Metrics: scores float64 [n], positive bool [n], times [r, n] how often each CXR counts -> float64 [r]


def auroc(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: how often a positive outscores a negative, ties a half. NaN unless there are both."""
    return ratio(*wins_and_pairs(scores, positive, times))


def wins_and_pairs(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(how often a positive outscores a negative, ties a half; how many such pairs there are), each float64 [r]."""
    if not len(scores):
        return np.zeros(len(times)), np.zeros(len(times))
    order, starts = _sorted(scores)
    times = times[:, order].astype(np.float64)
    positives = np.add.reduceat(times * positive[order], starts, axis=1)
    negatives = np.add.reduceat(times * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return wins, positives.sum(axis=1) * negatives.sum(axis=1)


def auprc(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Average precision: the mean precision at which positives are found, equal scores taken together, without
    interpolation. Its floor is the share of positives. NaN unless there are both.
    """
    order, starts = _sorted(-scores)
    times = times[:, order].astype(np.float64)
    positives = np.add.reduceat(times * positive[order], starts, axis=1)
    found, taken = np.cumsum(positives, axis=1), np.cumsum(np.add.reduceat(times, starts, axis=1), axis=1)
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    total = found[:, -1]
    return np.where(total < taken[:, -1], ratio((positives * precision).sum(axis=1), total), np.nan)


def brier(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean squared difference of score and label."""
    return ratio(times @ (scores - positive) ** 2, times.sum(axis=1))


def ece(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Expected calibration error: |mean score - share of positives| in 15 bins of equal width, weighted by their
    CXRs.
    """
    bins = bins_of(scores)
    excess = np.zeros((len(scores), ECE_BINS))
    excess[np.arange(len(scores)), bins] = scores - positive
    return ratio(np.abs(times @ excess).sum(axis=1), times.sum(axis=1))


def bins_of(scores: np.ndarray) -> np.ndarray:
    """Which of `ECE_BINS` bins of equal width each score in [0, 1] is in."""
    return np.minimum((scores * ECE_BINS).astype(int), ECE_BINS - 1)


def sensitivity(scores: np.ndarray, positive: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """Share of the positives that score the threshold or more."""
    return ratio(times @ (positive & (scores >= threshold)).astype(float), times @ positive.astype(float))


def specificity(scores: np.ndarray, positive: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """Share of the negatives that score less than the threshold."""
    return ratio(times @ (~positive & (scores < threshold)).astype(float), times @ (~positive).astype(float))


METRICS: dict[str, Callable[..., np.ndarray]] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "ece": ece,
    "sensitivity": sensitivity,
    "specificity": specificity,
}
# Which classes each metric cannot do without
NEEDS = {"auroc": (True, False), "auprc": (True, False), "sensitivity": (True,), "specificity": (False,)}


def value(metric: str, scores: np.ndarray, positive: np.ndarray) -> float:
    """A metric of scores [n] and labels bool [n]; NaN where undefined."""
    if not len(scores):
        return float("nan")
    return float(METRICS[metric](np.asarray(scores, float), np.asarray(positive, bool), np.ones((1, len(scores))))[0])


def _sorted(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ascending order, where each group of equal scores starts)."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    return order, np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)
