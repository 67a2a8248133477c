"""AUROC of two scores on the same CXRs: the difference and its error by structural components.

DeLong, DeLong and Clarke-Pearson 1988; for clusters, whose components are summed, Obuchowski 1997. Their normal limit
rejects too often where a class has few CXRs: Student's t, with the degrees of freedom of a sum of two variances.
"""

from __future__ import annotations

import numpy as np

from chextools.metrics.paired import Clusters


def auroc_components(scores: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """AUROC, and what each CXR adds to its error, float64 [n]; NaN without both classes.

    scores: float64 [n]. positive: bool [n]. The squares of what CXRs add, summed, are DeLong's variance.
    """
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return float("nan"), np.full(len(scores), np.nan)
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    wins = np.empty(len(scores))  # the share of the other class that a CXR is on the right side of, ties a half
    for mine, other, rest in ((positive, below, others), (~positive, above, count)):
        lower = np.searchsorted(other, scores[mine], "left") + np.searchsorted(other, scores[mine], "right")
        share = lower / (2 * rest)
        wins[mine] = share if mine is positive else 1 - share
    area = float(wins[positive].mean())
    added = wins - area
    for mine, size in ((positive, count), (~positive, others)):
        added[mine] /= np.sqrt(size * (size - 1)) if size > 1 else np.nan
    return area, added


def auroc_error(added: np.ndarray, clusters: Clusters) -> float:
    """The standard error of what CXRs add in sum, [n] with NaN for those that do not count."""
    known = ~np.isnan(added)
    sums = clusters.sums(np.where(known, added, 0)[:, None])[:, 0]
    there = len(np.unique(clusters.number[known]))
    several = there < known.sum()  # a cluster of one CXR has DeLong's factor already
    return float(np.sqrt(np.square(sums).sum() * (there / (there - 1) if several and there > 1 else 1)))


def auroc_freedom(added: np.ndarray, positive: np.ndarray, clusters: Clusters) -> float:
    """Degrees of freedom of the error of a sum over columns of what CXRs add, [n, K] with NaN for those that do not.

    Each class of each column is a variance of its own, known from its clusters less one (Satterthwaite 1946), as in
    Welch's test; of one cluster nothing is known: NaN. positive: bool [n, K].
    """
    total, uncertain = 0.0, 0.0
    for column, is_positive in zip(added.T, positive.T):
        for mine in (is_positive, ~is_positive):
            mine = mine & ~np.isnan(column)
            count = len(np.unique(clusters.number[mine]))
            if count < 2:
                return float("nan")
            variance = float(np.square(clusters.sums(np.where(mine, column, 0)[:, None])).sum())
            total += variance
            uncertain += variance**2 / (count - 1)
    return total**2 / uncertain if uncertain else float("inf")
