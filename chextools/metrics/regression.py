"""Least squares and rank correlation with their errors, as chex-regress reports them.

Single fits are those of Saporta et al. 2022 (Methods); the joint one allows for rows that share a patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chextools.metrics import bootstrap
from chextools.metrics.similarity import midranks

FEW = 20  # patients below which errors by patient are themselves uncertain
LEAST = 4  # pairs without which nothing is said: Fisher's interval divides by the root of n - 3

_Z = 1.96  # as the study rounds the normal quantile


@dataclass(frozen=True)
class Fit:
    """A coefficient with its 95% interval and two-sided p; None where undefined, and then why."""

    slope: float | None = None
    lower: float | None = None
    upper: float | None = None
    p: float | None = None
    reason: str = ""

    def row(self, tests: int) -> dict:
        """Keys of a result row; Bonferroni's p is for this number of tests."""
        corrected = None if self.p is None else min(1.0, self.p * tests)
        row = {"slope": self.slope, "lower": self.lower, "upper": self.upper, "p": self.p, "p_bonferroni": corrected}
        return row | ({"reason": self.reason} if self.reason else {})


def single(x: np.ndarray, y: np.ndarray) -> tuple[int, Fit]:
    """(n, fit) of ordinary least squares of y on x and a constant, over pairs of which neither is NaN.

    A constant y has the slope 0 and the interval (0, 0), as in the study.
    """
    x, y, reason = _defined(x, y)
    if reason:
        return len(x), Fit(reason=reason)
    n = len(x)
    dx, dy = x - x.mean(), y - y.mean()
    if np.ptp(y) == 0:
        return n, Fit(0.0, 0.0, 0.0, reason="the metric is constant")
    squares = (dx**2).sum()
    slope = (dx * dy).sum() / squares
    error = math.sqrt(((dy - slope * dx) ** 2).sum() / (n - 2) / squares)
    return n, _tested(slope, error, n - 2)


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float | None, ...]:
    """Spearman's correlation over pairs of which neither is NaN, its 95% interval by Fisher's z, and its p by t."""
    from scipy.special import stdtr

    x, y, reason = _defined(x, y)
    if reason or np.ptp(y) == 0:
        return (None,) * 4
    ranks = np.stack([midranks(x), midranks(y)])
    r = float(np.clip(np.corrcoef(ranks)[0, 1], -1, 1))
    n = len(x)
    if 1 - abs(r) < 1e-12:  # a perfect order: rounding, not chance, keeps it from 1
        r = math.copysign(1.0, r)
        return r, r, r, 0.0
    half = _Z / math.sqrt(n - 3)
    t = abs(r) * math.sqrt((n - 2) / (1 - r * r))
    return r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), float(2 * stdtr(n - 2, -t))


def joint(x: np.ndarray, y: np.ndarray, patients: Sequence[str]) -> tuple[int, int, list[Fit]]:
    """(n, patients, fits) of least squares of y on all columns of x [n, K] at once, all standardised.

    Errors are robust to anything that the rows of a patient share: the jackknife over patients, (G - 1) / G times the
    squared changes of the coefficients as each is left out, and a t distribution with G - 1 degrees of freedom
    (MacKinnon, Nielsen and Webb 2023, CV3). With few patients, or unequal ones, it keeps its level, where the usual
    sandwich rejects twice to three times too often (tests/metrics/test_levels.py). A constant column is left out.
    """
    defined = ~np.isnan(x).any(axis=1) & ~np.isnan(y)
    x, y = x[defined], y[defined]
    number, groups = bootstrap.groups_of([name for name, taken in zip(patients, defined) if taken])
    n, columns = x.shape
    constant = np.array([not n or np.ptp(column) == 0 for column in x.T])
    used = np.flatnonzero(~constant)
    terms = len(used) + 1
    reason = ""
    if n < max(LEAST, terms + 1):
        reason = f"n is {n}; {max(LEAST, columns + 2)} are needed"
    elif np.ptp(y) == 0:
        reason = "the metric is constant"
    elif not used.size:
        reason = "all features are constant"
    elif groups <= terms:
        reason = f"errors by patient need more than {terms} patients, not {groups}"
    if not reason:
        design = np.column_stack([np.ones(n), *((x[:, k] - x[:, k].mean()) / x[:, k].std(ddof=1) for k in used)])
        if np.linalg.matrix_rank(design) < terms:
            reason = "the features determine each other"
    if reason:
        return n, groups, [Fit(reason="the feature is constant" if c and n else reason) for c in constant]
    outcome = (y - y.mean()) / y.std(ddof=1)
    beta, without = _jackknifed(design, outcome, number, groups)
    if without is None:
        return n, groups, [Fit(reason="without one of the patients the features determine each other")] * columns
    errors = np.sqrt((groups - 1) / groups * ((without - beta) ** 2).sum(axis=0))
    fits = [Fit(reason="the feature is constant")] * columns
    for k, slope, error in zip(used, beta[1:], errors[1:]):
        fits[k] = _tested(slope, error, groups - 1)
    return n, groups, fits


def _jackknifed(
    design: np.ndarray, outcome: np.ndarray, number: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Coefficients [T] of all rows, and [groups, T] without each group; None where one of these has none."""
    terms = design.shape[1]
    products = (design[:, :, None] * np.column_stack([design, outcome])[:, None, :]).reshape(len(design), -1)
    by_group = np.stack([np.bincount(number, column, groups) for column in products.T], axis=1)
    by_group = by_group.reshape(groups, terms, terms + 1)
    total = by_group.sum(axis=0)
    left = total - by_group
    if (np.linalg.matrix_rank(left[:, :, :terms], hermitian=True) < terms).any():
        return np.empty(terms), None
    without = np.linalg.solve(left[:, :, :terms], left[:, :, terms:])[:, :, 0]
    return np.linalg.solve(total[:, :terms], total[:, terms]), without


def _defined(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """The pairs of which neither is NaN, and why they allow no regression, if so."""
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both], y[both]
    if len(x) < LEAST:
        return x, y, f"n is {len(x)}; {LEAST} are needed"
    return x, y, "the feature is constant" if np.ptp(x) == 0 else ""


def _tested(slope: float, error: float, freedom: int) -> Fit:
    from scipy.special import stdtr, stdtrit

    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(slope) / error)) if error else 0.0
    return Fit(float(slope), float(slope - half), float(slope + half), p)


def scaled(x: np.ndarray) -> np.ndarray:
    """x by its least and greatest value to [0, 1]; a constant stays so."""
    known = x[~np.isnan(x)]
    if not known.size or not np.ptp(known):
        return x
    return (x - known.min()) / np.ptp(known)
