"""Calibration: whether a share of s of the CXRs that score s is positive. Its curve, and the error that sums it up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chextools.metrics.scores import ECE_BINS, bins_of
from chextools.metrics.student import NORMAL_975

_Z = NORMAL_975


@dataclass(frozen=True)
class CalibrationCurve:
    """By bin, all float64 or int64 [B]: its edges, CXRs, their mean score, the share of positives and its interval.

    Where a bin has no CXR all but its edges are NaN. The interval is Wilson's score interval (Wilson 1927; Brown, Cai
    and DasGupta 2001), which covers where CXRs are few.
    """

    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    score: np.ndarray
    share: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: |score - share|, weighted by CXRs; NaN where there are none."""
        total = self.n.sum()
        gaps = np.where(self.n > 0, np.abs(self.score - self.share), 0)
        return float((gaps * self.n).sum() / total) if total else float("nan")


def calibration_curve(scores: np.ndarray, positive: np.ndarray) -> CalibrationCurve:
    """The curve of scores [n] in [0, 1] and labels bool [n], in the bins of `scores.ece`, all of one width."""
    bins = bins_of(scores)
    n = np.bincount(bins, minlength=ECE_BINS)
    with np.errstate(invalid="ignore", divide="ignore"):
        score = np.bincount(bins, scores, ECE_BINS) / n
        share = np.bincount(bins, positive, ECE_BINS) / n
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    edges = np.arange(ECE_BINS + 1) / ECE_BINS
    lower, upper = np.maximum(middle - half, 0), np.minimum(middle + half, 1)
    return CalibrationCurve(edges[:-1], edges[1:], n, score, share, lower, upper)
