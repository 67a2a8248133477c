"""Choosing the best threshold: the first of a grid, or an operating point among the scores; in replicates likewise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError
from chextools.metrics import bootstrap

MAX_GRID = 1001  # values: steps of a thousandth


def grid_values(start: float, stop: float, step: float) -> tuple[float, ...]:
    """start, start + step, ... up to and including stop, in numpy.arange's floats, which are the study's.

    Raises InputError unless 0 <= start <= stop <= 1 and the grid has between 1 and `MAX_GRID` values.
    """
    if not (0 <= start <= stop <= 1 and step > 0):
        raise InputError(f"grid {start:g}:{stop:g}:{step:g}: expected 0 <= START <= STOP <= 1 and STEP > 0")
    steps = math.floor((stop - start) / step + 1e-6)
    if steps >= MAX_GRID:
        raise InputError(f"grid {start:g}:{stop:g}:{step:g} has more than {MAX_GRID} values")
    return tuple(np.arange(start, start + (steps + 0.5) * step, step).tolist())


def first_best(values: np.ndarray) -> np.ndarray:
    """The first column with each row's greatest value; -1 where all are NaN."""
    known = np.where(np.isnan(values), -np.inf, values)
    return np.where(np.isnan(values).all(axis=1), -1, known.argmax(axis=1))


@dataclass(frozen=True)
class OperatingPoints:
    """The points among which one is chosen, and the one that was.

    points: float64 [n, 4] of score threshold, sensitivity, specificity and Youden's J, by descending threshold.
    chosen: its row. picks: the threshold chosen in each replicate, NaN where a class is missing.
    """

    points: np.ndarray
    chosen: int
    picks: np.ndarray


def operating_points(
    scores: np.ndarray, positive: np.ndarray, sensitivity: float | None, replicates: int, seed: int
) -> OperatingPoints:
    """Operating points of scores [n] of which some are positive, bool [n], and some are not.

    Positive is a score of at least the threshold, which is one of the scores. Chosen is the greatest that maximises
    Youden's J = sensitivity + specificity - 1 (Youden 1950), or that reaches a sensitivity; in replicates likewise.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    n, positives = len(scores), int(positive.sum())
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # equal scores are taken together
    picks = []
    for draw in bootstrap.draws(n, replicates, seed):
        chosen = _chosen(bootstrap.times_drawn(draw, n), positive, last, sensitivity)
        picks.append(np.where(chosen < 0, np.nan, scores[last[chosen]]))
    reached = np.cumsum(positive)[last] / positives
    spared = 1 - np.cumsum(~positive)[last] / (n - positives)
    points = np.stack([scores[last], reached, spared, reached + spared - 1], axis=1)
    k = int(_chosen(np.ones((1, n), np.int64), positive, last, sensitivity)[0])
    return OperatingPoints(points, k, np.concatenate(picks))


def _chosen(times: np.ndarray, positive: np.ndarray, last: np.ndarray, target: float | None) -> np.ndarray:
    """Which of the points `last` is chosen when each image counts `times` [r, n]: int [r], -1 where a class is missing.

    Scores descend. Counts are whole numbers, so that equal points are equal and the first of them, the greatest
    threshold, is chosen.
    """
    true = np.cumsum(times * positive, axis=1)
    false = np.cumsum(times * ~positive, axis=1)
    positives, negatives = true[:, -1:], false[:, -1:]
    true, false = true[:, last], false[:, last]
    reached = true * negatives - false * positives if target is None else true >= target * positives
    return np.where((positives * negatives)[:, 0] > 0, reached.argmax(axis=1), -1)
