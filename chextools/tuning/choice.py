"""The best value per task, with the interval of those chosen in bootstrap replicates, and the curve it is from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError
from chextools.inputs.truth import Truth
from chextools.metrics import bootstrap
from chextools.metrics.choosing import first_best, operating_points
from chextools.records.records import few
from chextools.tasks import blank_means, choose
from chextools.tuning.settings import TuningSettings
from chextools.tuning.trials import Trial

log = logging.getLogger(__name__)

EXCEPTION = ("Lung Lesion", 0.1)  # the study's cutoffs of this task start here


@dataclass
class Tuning:
    """best: one row per task. curve: one per task and value to choose from."""

    best: list[dict]
    curve: list[dict]


def tuning_of(rows: Sequence[Trial], truth: Truth | None, settings: TuningSettings, failed: int = 0) -> Tuning:
    """The best value per task, and the curve it was chosen from.

    failed: records that could not be read; every row counts them, as they may have changed its number.
    """
    if not rows:
        raise InputError(f"none of {failed} records could be used")
    rows = sorted(rows, key=lambda row: row.id)
    if truth is not None and settings.purpose != "score":
        _compare_ids(rows, truth, settings)
        if settings.purpose == "threshold":
            rows = [row for row in rows if row.id in truth.records]
    result = Tuning([], [])
    for task in _available(rows, settings):
        choose = _choose_score if settings.purpose == "score" else _choose_on_grid
        best, curve = choose(task, rows, settings)
        head = {"metric": _metric(settings), "for": settings.purpose, "task": task}
        tail = {"failed": failed + sum(task in row.failed for row in rows), "seed": settings.seed}
        reason = {"reason": best.pop("reason")} if "reason" in best else {}
        if reason:
            log.warning("%s: %s", task, reason["reason"])
        result.best.append(head | best | tail | reason)
        result.curve += [head | point | tail for point in curve]
    return result


def _metric(settings: TuningSettings) -> str:
    if settings.purpose == "score":
        return "youden" if settings.sensitivity is None else "sensitivity"
    return settings.objective


def _compare_ids(rows: Sequence[Trial], truth: Truth, settings: TuningSettings) -> None:
    """Say which images are on one side only."""
    ids = {row.id for row in rows}
    missing = sorted(truth.records.keys() - ids)
    strangers = sorted(ids - truth.records.keys())
    if len(strangers) == len(rows) and settings.purpose == "threshold":
        raise InputError(
            f"no image is on both sides: the truth has {few(missing)}, the heatmaps {few(strangers, missing)}"
        )
    if missing:
        log.warning("in the truth but not among the heatmaps, left out: %s", few(missing))
    if strangers:
        fate = "left out" if settings.purpose == "threshold" else "its truth counts as empty"
        log.warning("among the heatmaps but not in the truth, %s: %s", fate, few(strangers, missing))


def _available(rows: Sequence[Trial], settings: TuningSettings) -> list[str]:
    """The tasks to choose for, by name as in the study; those that no image has are left out."""
    has = frozenset().union(*(row.has for row in rows))
    if settings.purpose == "score":
        what, wanted = "score", sorted(choose(settings.tasks, has, "the input"))
    else:
        what, wanted = "heatmap", sorted(settings.tasks)
    names = [task for task in wanted if task in has]
    if not names:
        raise InputError(f"no image with a {what} of {' or '.join(wanted) or 'any task'}")
    if len(names) < len(wanted):
        log.warning("no %s of %s: left out", what, ", ".join(task for task in wanted if task not in has))
    return names


def _choose_on_grid(task: str, rows: Sequence[Trial], settings: TuningSettings) -> tuple[dict, list[dict]]:
    """The first grid value with the greatest mean objective; of cutoffs the mean rounded to 3 decimals, as the study.

    Its interval is that of the values chosen in bootstrap replicates. Where nothing is defined, the first value.
    """
    used = _used(task, settings)
    grid = np.array(settings.values)[used]
    undefined = np.full(len(settings.values), np.nan)
    table = np.array([row.values.get(task, undefined) for row in rows]).reshape(len(rows), len(used))[:, used]
    decimals = 3 if settings.purpose == "cutoff" else None
    means = _rounded(bootstrap.nanmean(table), decimals)
    replicates = _rounded(bootstrap.means(table, settings.replicates, settings.seed), decimals)
    n = (~np.isnan(table)).sum(axis=0)
    best = first_best(means[None])
    chosen = first_best(replicates)
    picks = np.where(chosen < 0, np.nan, grid[chosen])
    lower, upper, count = bootstrap.interval(picks)
    k = max(int(best[0]), 0)
    key, objective = settings.key, settings.objective
    row: dict = {key: _plain(grid[k]), objective: float(means[k]), "n": int(n[k])}
    row |= {"lower": _plain(lower), "upper": _plain(upper), "replicates": count}
    defined = int((~np.isnan(table)).any(axis=1).sum())
    failed = [row.failed[task] for row in rows if task in row.failed]
    if failed and not any(task in row.values for row in rows):
        row |= {key: None, "reason": f"all failed: {failed[0]}"}
    elif not defined:
        row["reason"] = f"{objective} is undefined for every CXR: the first of the grid"
    elif defined == 1:
        row |= {"lower": None, "upper": None, "reason": "chosen on one CXR: no interval"}
    curve = []
    for g in range(len(grid)):
        lower, upper, count = bootstrap.interval(replicates[:, g])
        point = {key: _plain(grid[g]), objective: float(means[g]), "lower": lower, "upper": upper, "n": int(n[g])}
        curve.append(point | {"replicates": count, "best": g == k})
    return row, curve


def _used(task: str, settings: TuningSettings) -> np.ndarray:
    """Which of the grid may be chosen for a task: bool [G]."""
    grid = np.array(settings.values)
    if settings.purpose != "cutoff" or not settings.exception or task != EXCEPTION[0] or grid[0] >= EXCEPTION[1]:
        return np.ones(len(grid), bool)
    used = grid >= EXCEPTION[1]
    if not used.any():
        raise InputError(f"{task}: no cutoff of {EXCEPTION[1]} or more in the grid; see --no-lung-lesion-exception")
    log.warning("%s: cutoffs below %g are left out, as in the study (--no-lung-lesion-exception)", *EXCEPTION)
    return used


def _rounded(values: np.ndarray, decimals: int | None) -> np.ndarray:
    return values if decimals is None else np.round(values, decimals)


def _plain(value: float) -> float:
    """A grid value as people write it: 0.3, not 0.30000000000000004."""
    return round(float(value), 10)


def _choose_score(task: str, rows: Sequence[Trial], settings: TuningSettings) -> tuple[dict, list[dict]]:
    """The operating point of a task, and all of them."""
    pairs = _pairs(task, rows, settings)
    scores, positive = np.array([s for s, _ in pairs], float), np.array([p for _, p in pairs], bool)
    n, positives = len(scores), int(positive.sum())
    names = ("score_threshold", "sensitivity", "specificity", "youden")
    row = dict.fromkeys(names) | {"n": n, "positives": positives, "lower": None, "upper": None, "replicates": 0}
    if not 0 < positives < n:
        missing = "with a score and a label" if not n else "negative" if positives else "positive"
        return row | {"reason": f"no image is {missing}" if n else f"no image {missing}"}, []
    found = operating_points(scores, positive, settings.sensitivity, settings.replicates, settings.seed)
    lower, upper, count = bootstrap.interval(found.picks)
    points = found.points.tolist()
    row |= dict(zip(names, points[found.chosen])) | {"lower": lower, "upper": upper, "replicates": count}
    if 1 in (positives, n - positives):
        row |= {"lower": None, "upper": None, "reason": "chosen on one image of a class: no interval"}
    return row, [dict(zip(names, point)) | {"n": n, "best": i == found.chosen} for i, point in enumerate(points)]


def _pairs(task: str, rows: Sequence[Trial], settings: TuningSettings) -> list[tuple[float, bool]]:
    """Each image's score and whether it is positive. Blank labels count where the task has a label anywhere."""
    found = [row.scored[task] for row in rows if task in row.scored]
    labelled = any(positive is not None for _, positive in found)
    if labelled and (settings.missing or blank_means(task)) == "negative":
        return [(score, bool(positive)) for score, positive in found]
    return [(score, positive) for score, positive in found if positive is not None]
