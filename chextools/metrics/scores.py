"""How well scores tell positive from negative CXRs, by task, with bootstrap intervals: AUROC and its kin.

Every metric is computed for all replicates at once, from how often each CXR was drawn; scores are sorted once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from chextools.errors import InputError
from chextools.metrics import bootstrap
from chextools.records import records
from chextools.records.records import Failure, Located, few
from chextools.results import thresholds
from chextools.results.results import AVERAGE, Evaluation, Table
from chextools.tasks import choose

log = logging.getLogger(__name__)

# The tasks on which CheXpert's competition compared models (Irvin et al. 2019).
COMPETITION_TASKS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
COMPETITION = "Competition"
UNCERTAIN = {"ignore": None, "zeros": False, "ones": True}
ECE_BINS = 15
_BLOCK = 1 << 22  # counts held at once


# Metrics: scores float64 [n], positive bool [n], times [r, n] how often each CXR counts -> float64 [r]


def auroc(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: how often a positive outscores a negative, ties a half. NaN unless there are both."""
    order, starts = _sorted(scores)
    times = times[:, order].astype(np.float64)
    positives = np.add.reduceat(times * positive[order], starts, axis=1)
    negatives = np.add.reduceat(times * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return _ratio(wins, positives.sum(axis=1) * negatives.sum(axis=1))


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
    return np.where(total < taken[:, -1], _ratio((positives * precision).sum(axis=1), total), np.nan)


def brier(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean squared difference of score and label."""
    return _ratio(times @ (scores - positive) ** 2, times.sum(axis=1))


def ece(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Expected calibration error: |mean score - share of positives| in 15 bins of equal width, weighted by their
    CXRs.
    """
    bins = np.minimum((scores * ECE_BINS).astype(int), ECE_BINS - 1)
    excess = np.zeros((len(scores), ECE_BINS))
    excess[np.arange(len(scores)), bins] = scores - positive
    return _ratio(np.abs(times @ excess).sum(axis=1), times.sum(axis=1))


def sensitivity(scores: np.ndarray, positive: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """Share of the positives that score the threshold or more."""
    return _ratio(times @ (positive & (scores >= threshold)).astype(float), times @ positive.astype(float))


def specificity(scores: np.ndarray, positive: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """Share of the negatives that score less than the threshold."""
    return _ratio(times @ (~positive & (scores < threshold)).astype(float), times @ (~positive).astype(float))


METRICS: dict[str, Callable[..., np.ndarray]] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "ece": ece,
    "sensitivity": sensitivity,
    "specificity": specificity,
}
AT_THRESHOLD = ("sensitivity", "specificity")
# Which classes each metric cannot do without
_NEEDS = {"auroc": (True, False), "auprc": (True, False), "sensitivity": (True,), "specificity": (False,)}


def value(metric: str, scores: np.ndarray, positive: np.ndarray) -> float:
    """A metric of scores [n] and labels bool [n]; NaN where undefined."""
    if not len(scores):
        return float("nan")
    return float(METRICS[metric](np.asarray(scores, float), np.asarray(positive, bool), np.ones((1, len(scores))))[0])


# Evaluation of records


@dataclass(frozen=True)
class Settings:
    """What to measure.

    metrics: of `METRICS`. tasks: wanted, empty for all that have a score. uncertain: a key of `UNCERTAIN`.
    thresholds: one for all tasks, or by task, for sensitivity and specificity.
    """

    metrics: frozenset[str]
    tasks: tuple[str, ...] = ()
    uncertain: str = "ignore"
    thresholds: float | Mapping[str, float] | None = None
    replicates: int = 1000
    seed: int = 0
    resample: str = "cxr"


@dataclass
class Row:
    """What one CXR says: scores, and whether positive, by task where both are known."""

    id: str
    patient: str
    scores: dict[str, float]
    positive: dict[str, bool]
    failed: dict[str, str]


def read_labels(source: str, stdin: BinaryIO) -> dict[str, dict]:
    """Labels by id, of a CSV or records. Raises InputError at the first that cannot be read, or if there are none."""
    from chextools.inputs import datasets

    found = {}
    for item in datasets.read_all([source], stdin):
        if isinstance(item, Failure):
            raise InputError(f"{item.where}: {item.reason}")
        found[item.record["id"]] = item.record.get("labels", {})
    if not any(found.values()):
        raise InputError(f"{source}: no labels")
    return found


def threshold_of(option: str) -> float | dict[str, float]:
    """What the option --score-threshold means: a number in [0, 1] or a file of chex-tune's rows, by task."""
    try:
        number = float(option)
    except ValueError:
        return thresholds.read_score_thresholds(option)
    if not 0 <= number <= 1:
        raise InputError(f"--score-threshold {option}: not in [0, 1]")
    return number


def measure(
    items: Iterable[Located | Failure], settings: Settings, labels: Mapping[str, dict] | None = None
) -> Iterator[Located | Failure]:
    """Each record's scores and labels; the records that come back hold "row", a `Row`, and "failed" by task.

    labels: by id, instead of the records' own.
    """
    for item in items:
        if isinstance(item, Located):
            try:
                row = _row(item.record, settings, labels)
                item = Located(item.where, {"row": row, "failed": row.failed})
            except InputError as error:
                item = Failure(item.where, str(error))
        yield item


def summarise(rows: Sequence[Row], settings: Settings, failed: int = 0) -> Evaluation:
    """A row per metric and task, one for the mean over tasks, one for that over CheXpert's competition tasks.

    failed: records that could not be read; every row counts them. "mean" is the data's own value; a task for which it
    is undefined has null, and says why. Raises InputError if no record could be used.
    """
    if not rows:
        raise InputError(f"none of {failed} records could be used")
    rows = sorted(rows, key=lambda row: row.id)
    names = sorted(choose(settings.tasks, {task for row in rows for task in row.scores}, "the input"))
    scores = np.array([[row.scores.get(t, np.nan) for t in names] for row in rows])
    labels = np.array([[float(row.positive[t]) if t in row.positive else np.nan for t in names] for row in rows])
    _warn(rows, names, scores, labels)
    groups = bootstrap.groups_of([row.patient for row in rows]) if settings.resample == "patient" else None
    values, replicates = _bootstrapped(scores, labels, names, settings, groups)
    broken = failed + np.array([sum(task in row.failed for row in rows) for task in names])
    result = Evaluation([], {}, rows, names)
    for metric in METRICS:
        if metric in settings.metrics:
            measured = values[metric], replicates[metric]
            result.summary += _summary(metric, names, *measured, labels, scores, broken, settings)
            result.tables[metric] = Table([], names, np.zeros((0, len(names))), replicates[metric])
    return result


def _row(record: dict, settings: Settings, by_id: Mapping[str, dict] | None) -> Row:
    scores = record.get("scores")
    labels = record.get("labels", {}) if by_id is None else by_id.get(record["id"])
    if not scores:
        raise InputError('no "scores"')
    if labels is None:
        raise InputError("the truth does not know this id")
    found, positive, failed = {}, {}, {}
    for task in scores:
        try:
            if scores[task] is None:
                continue
            score = records.number(scores[task], "scores")
            if not 0 <= score <= 1:
                raise InputError(f"the score {score:g} is no probability: it must lie in [0, 1]")
            found[task] = score
            label = labels.get(task)
            if label not in (None, 0, 1, -1) or isinstance(label, bool):
                raise InputError(f"the label {label!r} is not 1, 0 or -1")
            is_positive = UNCERTAIN[settings.uncertain] if label == -1 else None if label is None else label == 1
            if is_positive is not None:
                positive[task] = is_positive
        except InputError as error:
            failed[task] = str(error)
    return Row(record["id"], records.patient(record), found, positive, failed)


def _warn(rows: Sequence[Row], names: Sequence[str], scores: np.ndarray, labels: np.ndarray) -> None:
    lacks = np.isnan(scores) & ~np.isnan(labels)
    for k, task in enumerate(names):
        if without := [row.id for row, lacking in zip(rows, lacks[:, k]) if lacking]:
            log.warning("%s: no score, left out: %s", task, few(without))
    if np.isnan(labels).all():
        raise InputError(f"no record has both a score and a label of one of: {', '.join(names)}")


def _bootstrapped(
    scores: np.ndarray, labels: np.ndarray, names: Sequence[str], settings: Settings, groups: tuple | None
) -> tuple[dict, dict]:
    """By metric: values float64 [K] and replicates [replicates, K]."""
    n = len(scores)
    metrics = [metric for metric in METRICS if metric in settings.metrics]
    usable = ~np.isnan(scores) & ~np.isnan(labels)
    values = {metric: np.full(len(names), np.nan) for metric in metrics}
    replicates = {metric: np.full((settings.replicates, len(names)), np.nan) for metric in metrics}

    def measured(metric: str, k: int, times: np.ndarray) -> np.ndarray:
        rows = usable[:, k]
        more = (_threshold(settings, names[k]),) if metric in AT_THRESHOLD else ()
        if not rows.any() or None in more:
            return np.full(len(times), np.nan)
        return METRICS[metric](scores[rows, k], labels[rows, k] == 1, times[:, rows], *more)

    for metric in metrics:
        for k in range(len(names)):
            values[metric][k] = measured(metric, k, np.ones((1, n)))[0]
    start = 0
    for draw in bootstrap.draws(groups[1] if groups else n, settings.replicates, settings.seed):
        size = groups[1] if groups else n
        for part in range(0, len(draw), max(1, _BLOCK // n)):
            rows = draw[part : part + max(1, _BLOCK // n)]
            offsets = size * np.arange(len(rows))[:, None]
            times = np.bincount((rows + offsets).ravel(), minlength=rows.shape[0] * size).reshape(-1, size)
            times = (times[:, groups[0]] if groups else times).astype(np.float64)
            block = slice(start, start := start + len(rows))
            for metric in metrics:
                for k in range(len(names)):
                    replicates[metric][block, k] = measured(metric, k, times)
    return values, replicates


def _threshold(settings: Settings, task: str) -> float | None:
    if isinstance(settings.thresholds, Mapping):
        return settings.thresholds.get(task)
    return settings.thresholds


def _summary(metric, names, values, replicates, labels, scores, failed, settings: Settings) -> list[dict]:
    found = []
    usable = ~np.isnan(labels) & ~np.isnan(scores)
    for k, task in enumerate(names):
        positives, n = int((labels[usable[:, k], k] == 1).sum()), int(usable[:, k].sum())
        row = _one(metric, task, values[k], replicates[:, k], n, failed[k]) | {"positives": positives}
        if metric in AT_THRESHOLD:
            row["score_threshold"] = _threshold(settings, task)
        reason = _reason(metric, positives, n, row)
        if reason:
            log.warning("%s of %s is undefined: %s", metric, task, reason)
            row["reason"] = reason
        found.append(row)
    for name, wanted in ((AVERAGE, names), (COMPETITION, [t for t in COMPETITION_TASKS if t in names])):
        columns = [names.index(task) for task in wanted]
        if columns:
            defined = int((~np.isnan(values[columns])).sum())
            mean = bootstrap.nanmean(values[columns])
            over = bootstrap.nanmean(replicates[:, columns], axis=1)
            n = int(usable[:, columns].sum())
            positives = int((labels[:, columns][usable[:, columns]] == 1).sum())
            found.append(
                _one(metric, name, mean, over, n, failed[columns].max()) | {"positives": positives, "tasks": defined}
            )
    return [row | {"resample": settings.resample, "seed": settings.seed} for row in found]


def _one(metric: str, task: str, mean: float, replicates: np.ndarray, n: int, failed: int) -> dict:
    lower, upper, count = bootstrap.interval(replicates) if not np.isnan(mean) else (np.nan, np.nan, 0)
    return {
        "metric": metric,
        "task": task,
        "mean": float(mean),
        "lower": lower,
        "upper": upper,
        "n": n,
        "replicates": count,
        "failed": int(failed),
    }


def _reason(metric: str, positives: int, n: int, row: dict) -> str:
    """Why a metric is undefined; empty where it is not."""
    if not n:
        return "no CXR with a score and a label"
    if metric in AT_THRESHOLD and row["score_threshold"] is None:
        return "no threshold for this task"
    for needed in _NEEDS.get(metric, ()):
        if not (positives if needed else n - positives):
            return f"no CXR is {'positive' if needed else 'negative'}"
    return ""


def _sorted(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ascending order, where each group of equal scores starts)."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    return order, np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)
