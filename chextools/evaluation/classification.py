"""How well scores tell positive from negative CXRs, by task, with bootstrap intervals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from chextools.errors import InputError
from chextools.evaluation.rows import drawn, groups_of
from chextools.evaluation.settings import EvaluationSettings
from chextools.evaluation.shortcuts import Shortcut, rows_of
from chextools.inputs import image_lists
from chextools.metrics import bootstrap, scores
from chextools.metrics.calibration import calibration_curve
from chextools.metrics.catalogue import AT_THRESHOLD
from chextools.records import records
from chextools.records.records import Failure, Located, few
from chextools.records.tally import unseen
from chextools.results import thresholds
from chextools.results.results import AVERAGE, Evaluation, Table
from chextools.results.rows import NO_TASK, interval_row
from chextools.tasks import blank_means, choose

log = logging.getLogger(__name__)

# The tasks on which CheXpert's competition compared models (Irvin et al. 2019).
COMPETITION_TASKS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
COMPETITION = "Competition"
_POSITIVE = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
_BLOCK = 1 << 22  # counts held at once


@dataclass
class Scored:
    """What one CXR says: scores and labels (1, 0, -1 uncertain) by task; labels None where it has none at all.

    words: the record's values of the keys that may be shortcuts.
    """

    id: str
    patient: str
    scores: dict[str, float]
    labels: dict[str, int] | None
    failed: dict[str, str]
    words: dict[str, str] = field(default_factory=dict)


def read_labels(source: str, stdin: BinaryIO) -> dict[str, dict]:
    """Labels by id, of a CSV or records. Raises InputError at the first that cannot be read, or if there are none."""
    found = {}
    for item in image_lists.read_image_lists([source], stdin):
        if isinstance(item, Failure):
            raise InputError(f"{item.where}: {item.reason}")
        found[item.record["id"]] = item.record.get("labels", {})
    if not any(found.values()):
        raise InputError(f"{source}: no labels")
    return found


def thresholds_of(option: str | float | Mapping[str, float] | None) -> float | Mapping[str, float] | None:
    """What a score threshold means: a number in [0, 1], those by task, or a file of chex-tune's rows."""
    if option is None or isinstance(option, Mapping):
        return option
    try:
        number = float(option)
    except ValueError:
        return thresholds.read_score_thresholds(str(option))
    if not 0 <= number <= 1:
        raise InputError(f"--score-threshold {option}: not in [0, 1]")
    return number


def measure(
    items: Iterable[Located | Failure], labels: Mapping[str, dict] | None = None, keys: Sequence[str] = ()
) -> Iterator[Located | Failure]:
    """Each record's scores and labels; the records that come back hold "row", a `Scored`, and "failed" by task.

    labels: by id, instead of the records' own. keys: of the records, to be kept as words.
    """

    def measured(record: dict) -> dict:
        row = _scored(record, labels)
        row.words = {key: str(record[key]) for key in keys if record.get(key) is not None}
        return {"row": row, "failed": row.failed}

    return (records.applied(measured, item) for item in items)


def _scored(record: dict, by_id: Mapping[str, dict] | None) -> Scored:
    labels = record.get("labels") if by_id is None else by_id.get(record["id"])
    if not record.get("scores"):
        raise InputError('no "scores"')
    if labels is None and by_id is not None:
        raise InputError("the truth does not know this id")
    row = Scored(record["id"], records.patient(record), {}, None if labels is None else {}, {})
    for task, value in record["scores"].items():
        try:
            if value is None:
                continue
            score = records.number(value, "scores")
            if not 0 <= score <= 1:
                raise InputError(f"the score {score:g} is no probability: it must lie in [0, 1]")
            row.scores[task] = score
            label = (labels or {}).get(task)
            if label not in (None, 0, 1, -1) or isinstance(label, bool):
                raise InputError(f"the label {label!r} is not 1, 0 or -1")
            if row.labels is not None and label is not None:
                row.labels[task] = label
        except InputError as error:
            row.failed[task] = str(error)
    return row


def evaluation_of(
    rows: Sequence[Scored],
    settings: EvaluationSettings,
    failed: int = 0,
    shortcuts: Sequence[Shortcut] = (),
    progress: Callable[..., Iterable] = unseen,
) -> Evaluation:
    """A row per metric and task, one for the mean over tasks, one for that over CheXpert's competition tasks.

    failed: records that could not be read; every row counts them. "mean" is the data's own value; a task for which it
    is undefined has null, and says why. progress: as of `Tally`. Raises InputError if no record could be used.
    """
    if not rows:
        raise InputError(f"none of {failed} records could be used")
    rows = sorted(rows, key=lambda row: row.id)
    names = sorted(choose(settings.tasks, {task for row in rows for task in row.scores}, "the input"))
    scored = np.array([[row.scores.get(t, np.nan) for t in names] for row in rows])
    labels = labels_of(rows, names, settings.uncertain, settings.missing)
    _warn(rows, names, scored, labels)
    at = thresholds_of(settings.score_threshold)
    by_task = [at.get(task) if isinstance(at, Mapping) else at for task in names]
    patients = [row.patient for row in rows]
    shortcuts = [*_of_words(rows), *shortcuts] if "shortcut" in settings.metrics else []
    steps = iter(progress(range(settings.replicates * (1 + len(shortcuts))), "replicates"))
    values, replicates = _bootstrapped(scored, labels, by_task, settings, _times(patients, settings, steps))
    broken = failed + np.array([sum(task in row.failed for row in rows) for task in names])
    result = Evaluation([], {}, list(rows), names)
    usable = ~np.isnan(labels) & ~np.isnan(scored)
    drawable = bootstrap.drawable(usable, groups_of(patients, settings))
    for metric in values:
        found = _rows(metric, names, values[metric], replicates[metric], labels, usable, drawable, broken, by_task)
        result.summary += [row | drawn(settings) for row in found]
        result.tables[metric] = Table([], names, np.zeros((0, len(names))), replicates[metric])
    if "ece" in settings.metrics:
        result.calibration = list(_calibration(names, scored, labels))
    for shortcut in shortcuts:
        times = _times(patients, settings, steps)
        found = rows_of(shortcut, [row.id for row in rows], names, scored, labels, broken, times)
        result.summary += [row | drawn(settings) for row in found]
    return result


def _of_words(rows: Sequence[Scored]) -> list[Shortcut]:
    keys = dict.fromkeys(key for row in rows for key in row.words)
    return [Shortcut.of_words(key, {row.id: row.words[key] for row in rows if key in row.words}) for key in keys]


def _times(patients: Sequence[str], settings: EvaluationSettings, steps: Iterator) -> Iterator[np.ndarray]:
    """Blocks [r, n] of how often each CXR was drawn; together `settings.replicates` rows, each a step."""
    groups = groups_of(patients, settings)
    size = groups[1] if groups else len(patients)
    rows = max(1, _BLOCK // max(len(patients), 1))
    for draw in bootstrap.draws(size, settings.replicates, settings.seed):
        for part in range(0, len(draw), rows):
            times = bootstrap.times_drawn(draw[part : part + rows], size)
            yield (times[:, groups[0]] if groups else times).astype(np.float64)
            bootstrap.moved(steps, len(times))


def labels_of(rows: Sequence[Scored], names: Sequence[str], uncertain: str, missing: str | None) -> np.ndarray:
    """1 positive, 0 negative, NaN left out: float64 [n, K]; `uncertain` and `missing` as in `EvaluationSettings`.

    Blank labels are as in chex-train: they count where the task has a label anywhere, of CXRs that have labels at all.
    """
    table = np.full((len(rows), len(names)), np.nan)
    for k, task in enumerate(names):
        known = [None if row.labels is None else row.labels.get(task) for row in rows]
        if all(label is None for label in known):
            continue
        blank = 0.0 if (missing or blank_means(task)) == "negative" else np.nan
        counted = 0
        for i, (row, label) in enumerate(zip(rows, known)):
            if label is None and row.labels is not None and task in row.scores and task not in row.failed:
                table[i, k] = blank
                counted += blank == 0
            elif label is not None and task not in row.failed:
                table[i, k] = _POSITIVE[uncertain] if label == -1 else label
        if counted:
            log.info("%s: blank in %d CXRs, counted as negative (--missing)", task, counted)
    return table


def _warn(rows: Sequence[Scored], names: Sequence[str], scored: np.ndarray, labels: np.ndarray) -> None:
    lacks = np.isnan(scored) & ~np.isnan(labels)
    for k, task in enumerate(names):
        if without := [row.id for row, lacking in zip(rows, lacks[:, k]) if lacking]:
            log.warning("%s: no score, left out: %s", task, few(without))
    if np.isnan(labels).all():
        raise InputError(f"no record has both a score and a label of one of: {', '.join(names)}")


def _bootstrapped(
    scored: np.ndarray,
    labels: np.ndarray,
    at: Sequence[float | None],
    settings: EvaluationSettings,
    blocks: Iterable[np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By metric: values float64 [K] and replicates [replicates, K]. at: the score threshold of each task.

    blocks: [r, n] of how often each CXR was drawn.
    """
    n, tasks = scored.shape
    metrics = [metric for metric in scores.METRICS if metric in settings.metrics]
    usable = ~np.isnan(scored) & ~np.isnan(labels)
    values = {metric: np.full(tasks, np.nan) for metric in metrics}
    replicates = {metric: np.full((settings.replicates, tasks), np.nan) for metric in metrics}

    def measured(metric: str, k: int, times: np.ndarray) -> np.ndarray:
        rows = usable[:, k]
        more = (at[k],) if metric in AT_THRESHOLD else ()
        if not rows.any() or None in more:
            return np.full(len(times), np.nan)
        return scores.METRICS[metric](scored[rows, k], labels[rows, k] == 1, times[:, rows], *more)

    for metric in metrics:
        for k in range(tasks):
            values[metric][k] = measured(metric, k, np.ones((1, n)))[0]
    start = 0
    for times in blocks if metrics else ():
        block = slice(start, start := start + len(times))
        for metric in metrics:
            for k in range(tasks):
                replicates[metric][block, k] = measured(metric, k, times)
    return values, replicates


def _calibration(names: Sequence[str], scored: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    """The points of each task's calibration curve."""
    for k, task in enumerate(names):
        usable = ~np.isnan(labels[:, k]) & ~np.isnan(scored[:, k])
        curve = calibration_curve(scored[usable, k], labels[usable, k] == 1)
        keys = ("from", "to", "n", "score", "share", "lower", "upper")
        columns = (curve.low, curve.high, curve.n, curve.score, curve.share, curve.lower, curve.upper)
        for values in zip(*(column.tolist() for column in columns)):
            yield {"metric": "calibration", "task": task} | dict(zip(keys, values))


def _rows(
    metric: str,
    names: Sequence[str],
    values: np.ndarray,
    replicates: np.ndarray,
    labels: np.ndarray,
    usable: np.ndarray,
    drawable: np.ndarray,
    failed: np.ndarray,
    at: Sequence[float | None],
) -> list[dict]:
    """The rows of a metric: of each task, of all, and of the competition's."""
    found = []
    for k, task in enumerate(names):
        positives, n = int((labels[usable[:, k], k] == 1).sum()), int(usable[:, k].sum())
        row = _row(metric, task, values[k], replicates[:, k], n, failed[k], drawable[k]) | {"positives": positives}
        if metric in AT_THRESHOLD:
            row["score_threshold"] = at[k]
        reason = _reason(metric, positives, n, row)
        if reason:
            log.warning("%s of %s is undefined: %s", metric, task, reason)
            row["reason"] = reason
        found.append(row)
    for name, wanted in ((AVERAGE, names), (COMPETITION, [t for t in COMPETITION_TASKS if t in names])):
        columns = [names.index(task) for task in wanted]
        if columns:
            mean = float(bootstrap.nanmean(values[columns]))
            over = bootstrap.nanmean(replicates[:, columns], axis=1)
            n, most = int(usable[:, columns].sum()), drawable[columns].max()
            row = _row(metric, name, mean, over, n, failed[columns].max(), most)
            row["positives"] = int((labels[:, columns][usable[:, columns]] == 1).sum())
            row["tasks"] = int((~np.isnan(values[columns])).sum())
            found.append(row if row["tasks"] else row | {"reason": NO_TASK})
    return found


def _row(metric: str, task: str, mean: float, replicates: np.ndarray, n: int, failed: int, drawable: int) -> dict:
    """The start of a row; where the data's own value is undefined, replicates that happen to have one do not count."""
    return interval_row(metric, task, mean, replicates[:0] if np.isnan(mean) else replicates, n, failed, drawable)


def _reason(metric: str, positives: int, n: int, row: Mapping) -> str:
    """Why a metric is undefined; empty where it is not."""
    if not n:
        return "no CXR with a score and a label"
    if metric in AT_THRESHOLD and row["score_threshold"] is None:
        return "no threshold for this task"
    for needed in scores.NEEDS.get(metric, ()):
        if not (positives if needed else n - positives):
            return f"no CXR is {'positive' if needed else 'negative'}"
    return ""
