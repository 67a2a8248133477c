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

FEW = 20  # patients below which errors by patient are themselves uncertain,
FEW_FREEDOM = 4.0  # and their degrees of freedom, where patients are many but some weigh much
LEAST = 4  # pairs without which nothing is said: Fisher's interval divides by the root of n - 3

_SINGULAR = 1e-9  # what is left of a coefficient without a group
_Z = 1.96  # as the study rounds the normal quantile


@dataclass(frozen=True)
class Fit:
    """A coefficient with its 95% interval and two-sided p; None where undefined, and then why.

    freedom: the degrees of freedom of Student's t.
    """

    slope: float | None = None
    lower: float | None = None
    upper: float | None = None
    p: float | None = None
    freedom: float | None = None
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

    Errors are robust to anything that the rows of a patient share: the sandwich whose residuals are corrected for the
    leverage of their patient (CR2), with the degrees of freedom that it has if rows are independent (Bell and McCaffrey
    2002; Pustejovsky and Tipton 2018). With few patients, or some that weigh much, these are far fewer than patients,
    and the test keeps its level where others reject too often (tests/metrics/test_levels.py). A constant column is left
    out.
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
    found = _clustered(design, outcome, number, groups)
    if found is None:
        return n, groups, [Fit(reason="without one of the patients the features determine each other")] * columns
    fits = [Fit(reason="the feature is constant")] * columns
    for k, slope, error, freedom in zip(used, *(each[1:] for each in found)):
        fits[k] = _tested(slope, error, freedom)
    return n, groups, fits


def _clustered(
    design: np.ndarray, outcome: np.ndarray, number: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Coefficients, their errors and degrees of freedom, [T] each; None where without a group there are none.

    A group's residuals e_g count as X_g' (I - H_g)^(-1/2) e_g, H_g being its block of the hat matrix. With the Cholesky
    factor C of A = (X'X)^-1 that is (I - C' S_g C)^(-1/2) of T x T between C and C', where S_g is X_g' X_g.
    """
    terms = design.shape[1]

    def by_group(columns: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(number, column, groups) for column in columns.T], axis=1)

    squares = by_group((design[:, :, None] * design[:, None, :]).reshape(len(design), -1)).reshape(-1, terms, terms)
    bread = np.linalg.inv(squares.sum(axis=0))
    factor = np.linalg.cholesky(bread)
    values, vectors = np.linalg.eigh(np.eye(terms) - factor.T @ squares @ factor)
    if values.min() < _SINGULAR:
        return None
    beta = bread @ design.T @ outcome
    scores = by_group(design * (outcome - design @ beta)[:, None])
    corrected = factor @ (vectors / np.sqrt(values)[:, None, :]) @ vectors.transpose(0, 2, 1) @ factor.T
    errors = np.sqrt(np.square(np.einsum("gtk,gt->gk", corrected, scores)).sum(axis=0))
    # For each coefficient, the variance is a sum of squares whose expected products are those of this matrix of groups:
    # own on its diagonal, less q A q'. Its trace squared over the sum of its squares are the degrees of freedom.
    q = squares @ corrected  # [groups, T, T], the last being the coefficient
    own = np.einsum("gtk,gtk->gk", q, corrected)
    shared = np.einsum("gtk,tu,guk->gk", q, bread, q)
    outer = np.einsum("tu,guk,gvk->ktv", bread, q, q)
    total = np.square(own).sum(axis=0) - 2 * (own * shared).sum(axis=0) + np.einsum("ktv,kvt->k", outer, outer)
    return beta, errors, np.square((own - shared).sum(axis=0)) / total


def _defined(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """The pairs of which neither is NaN, and why they allow no regression, if so."""
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both], y[both]
    if len(x) < LEAST:
        return x, y, f"n is {len(x)}; {LEAST} are needed"
    return x, y, "the feature is constant" if np.ptp(x) == 0 else ""


def _tested(slope: float, error: float, freedom: float) -> Fit:
    from scipy.special import stdtr, stdtrit

    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(slope) / error)) if error else 0.0
    return Fit(float(slope), float(slope - half), float(slope + half), p, float(freedom))


def scaled(x: np.ndarray) -> np.ndarray:
    """x by its least and greatest value to [0, 1]; a constant stays so."""
    known = x[~np.isnan(x)]
    if not known.size or not np.ptp(known):
        return x
    return (x - known.min()) / np.ptp(known)
