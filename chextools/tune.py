"""chex-tune: the heatmap threshold, score cutoff or operating point that is best per task on data with a truth.

from chextools import tune
tuned = tune.run(["maps"], tune.TuningSettings(purpose="threshold", truth="gt.json"))
tuned.best
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import BinaryIO

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.masking import MaskingSettings, with_masks
from chextools.heatmaps.reading import heatmaps_of
from chextools.heatmaps.surface import surface_of
from chextools.inputs.inputs import read_some
from chextools.inputs.truth import Truth, TruthSettings, frame_of, mask_of, read_truth, size_of
from chextools.masks.mask import Mask, intersection
from chextools.metrics import bootstrap, overlap
from chextools.metrics.choosing import first_best, grid_values, operating_points
from chextools.metrics.cuts import areas_of_cuts
from chextools.plumbing.parallel import default_jobs, ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located, few
from chextools.records.tally import Tally
from chextools.results import thresholds
from chextools.tasks import blank_means, canonical, choose

log = logging.getLogger(__name__)

OBJECTIVES_OF = {"iou": overlap.iou, "dice": overlap.dice}
GRIDS = {
    "threshold": (0.2, 0.8, 0.1),
    "cutoff": (0.0, 0.8, 0.1),
    "score": (0.0, 0.0, 1.0),
}  # the study's; none of scores
EXCEPTION = ("Lung Lesion", 0.1)  # the study's cutoffs of this task start here


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """What to choose, and how.

    purpose: one of `catalogue.PURPOSES`.
    truth: what radiologists outlined, a path, several of several readers, or - for stdin;
        of scores it may be None, for the records' labels.
    truth_settings: what files of truth do not say.
    tasks: those wanted, in this order; none for all.
    grid: (start, stop, step) of the values to choose from; None for the study's. Scores are chosen from themselves.
    objective: of `catalogue.OBJECTIVES`, what a threshold or cutoff maximises the mean of.
    sensitivity: what a score threshold must reach; None to maximise Youden's J.
    missing: what blank labels count as, "negative" or "ignore"; None for `tasks.blank_means`.
    exception: whether cutoffs of Lung Lesion start at 0.1, as in the study.
    threshold, smooth, sign: how heatmaps become masks, before cutoffs; the last two also for thresholds.
    remake: make masks anew where a record has some.
    replicates, seed: of the bootstrap.
    jobs: processes; None for as many as are ours to use.
    """

    purpose: str
    truth: str | Sequence[str] | None = None
    truth_settings: TruthSettings | None = None
    tasks: Sequence[str] = ()
    grid: tuple[float, float, float] | None = None
    objective: str = "iou"
    sensitivity: float | None = None
    missing: str | None = None
    exception: bool = True
    threshold: str | float | Mapping[str, float] | None = "otsu"
    smooth: int = 1
    sign: str | None = None
    remake: bool = False
    replicates: int = 1000
    seed: int = 0
    jobs: int | None = None

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The values to choose from, ascending."""
        return grid_values(*(self.grid or GRIDS[self.purpose]))

    @property
    def key(self) -> str:
        """The key of what is chosen, in the rows."""
        return "score_threshold" if self.purpose == "score" else self.purpose


@dataclass
class Tried:
    """What one image says, by task.

    has: tasks of which it has a heatmap, mask or score. values: for a threshold or cutoff the objective at each of the
    grid, float64 [G], NaN where undefined. scored: for a score, it and whether it is positive, None for a blank label.
    failed: why a task could not be measured.
    """

    id: str
    has: frozenset[str]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    scored: dict[str, tuple[float, bool | None]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Tuning:
    """best: one row per task. curve: one per task and value to choose from."""

    best: list[dict]
    curve: list[dict]


def run(
    inputs: Sequence[str], settings: TuningSettings, *, stdin: BinaryIO | None = None, tally: Tally | None = None
) -> Tuning:
    """Choose per task what is best on inputs: paths of heatmaps, masks or scores, or `-` for `stdin`.

    tally: counts what fails, and shows progress. Raises InputError where there is nothing to choose from.
    """
    stdin, tally = stdin or sys.stdin.buffer, tally or Tally()
    truth, chosen = None, list(map(canonical, settings.tasks))
    if settings.truth:
        truth = read_truth(settings.truth, stdin, settings.truth_settings)
        tally.take(truth.failures)
        chosen = choose(settings.tasks, truth.tasks, truth.where)
    elif settings.purpose != "score":
        raise InputError(f"no truth to choose a {settings.purpose} by")
    threshold = settings.threshold
    if isinstance(threshold, (str, float, int)):
        threshold = thresholds.threshold_of(threshold)
    settings = replace(settings, tasks=tuple(chosen), threshold=threshold)
    settings.values  # noqa: B018  refused before anything is read
    _, items = read_some(inputs, stdin)
    measured = _measured(items, truth, settings, settings.jobs or default_jobs())
    rows = [record["row"] for record in tally.passing(tally.progress(measured, "images"))]
    return _tuning(rows, truth, settings, tally.skipped)


# Measuring, image by image


def _measured(
    items: Iterable[Located | Failure], truth: Truth | None, settings: TuningSettings, jobs: int
) -> Iterator[Located | Failure]:
    """Measure each image; the records that come back hold "row", a `Tried`, and "failed" by task."""
    known = truth.records if truth else {}
    pairs = ((item, known.get(item.record["id"]) if isinstance(item, Located) else None) for item in items)
    return ordered_map(partial(_measure, has_truth=truth is not None, settings=settings), pairs, jobs)


def _measure(
    pair: tuple[Located | Failure, dict | None], has_truth: bool, settings: TuningSettings
) -> Located | Failure:
    item, truth = pair
    if isinstance(item, Failure):
        return item
    try:
        if settings.purpose == "threshold":
            row = _at_thresholds(item.record, truth, settings)
        elif settings.purpose == "cutoff":
            row = _at_cutoffs(item.record, truth, settings)
        else:
            row = _scores(item.record, truth, has_truth, settings)
    except InputError as error:
        return Failure(item.where, str(error))
    return Located(item.where, {"row": row, "failed": row.failed})


def _at_thresholds(record: dict, truth: dict | None, settings: TuningSettings) -> Tried:
    """The objective of each heatmap at each threshold, where the truth is not empty (the study's true positives)."""
    loaded = heatmaps_of(record)
    values, failed = {}, {}
    for task in settings.tasks:
        if task not in loaded.maps and task not in loaded.failed:
            continue
        try:
            true = mask_of(truth, task, loaded.size)
            if true is None or not true.area:
                continue
            if task in loaded.failed:
                raise InputError(loaded.failed[task])
            if true.size != loaded.size:
                raise InputError(f"the heatmap is for an image of {list(loaded.size)}, its truth of {list(true.size)}")
            surface = surface_of(
                loaded.maps[task],
                loaded.size,
                input_size=loaded.input_size,
                smooth=settings.smooth,
                sign=settings.sign or loaded.sign,
            )
            both, predicted = areas_of_cuts(surface, true, settings.values)
            values[task] = OBJECTIVES_OF[settings.objective](both, predicted, np.float64(true.area))
        except InputError as error:
            failed[task] = str(error)
    return Tried(record["id"], frozenset(loaded.maps), values, failed=failed)


def _at_cutoffs(record: dict, truth: dict | None, settings: TuningSettings) -> Tried:
    """The objective of each mask at each cutoff, at or below which a score empties it (the study's full slice)."""
    if "masks" not in record or settings.remake:
        record = with_masks(dict(record), _masking(settings))
    scores, grid = record.get("scores", {}), np.array(settings.values)
    failed = dict(record.get("failed", {}))
    values = {}
    for task in settings.tasks:
        if task not in record["masks"]:
            continue
        try:
            if scores.get(task) is None:
                raise InputError("no score to compare with cutoffs")
            score, mask = records.number(scores[task], "scores"), mask_of(record, task)
            assert mask is not None  # it is among the record's
            true = mask_of(truth, task, mask.size) or Mask.empty(mask.size)
            if mask.size != true.size:
                raise InputError(f"the mask has the size {list(mask.size)}, its truth {list(true.size)}")
            kept = score > grid
            both = np.where(kept, intersection(mask, true), 0)
            area = np.where(kept, mask.area, 0)
            values[task] = OBJECTIVES_OF[settings.objective](both, area, np.array(true.area), "full")
        except InputError as error:
            failed[task] = str(error)
    failed = {task: reason for task, reason in failed.items() if task in settings.tasks}
    return Tried(record["id"], frozenset(record["masks"]), values, failed=failed)


def _scores(record: dict, truth: dict | None, has_truth: bool, settings: TuningSettings) -> Tried:
    """Each task's score and whether it is positive: by the truth where there is one, else by the record's labels."""
    scores, labels = record.get("scores", {}), record.get("labels")
    if "heatmap" in record and not (scores and (labels or has_truth)):
        loaded = heatmaps_of(record)
        scores, labels = loaded.scores | scores, loaded.labels | (labels or {}) or labels
    if not scores:
        raise InputError('no "scores"')
    if labels is None and not has_truth:
        raise InputError('no "labels", and no truth given')
    scored: dict[str, tuple[float, bool | None]] = {}
    failed = {}
    for task in settings.tasks or scores:
        if scores.get(task) is None:
            continue
        try:
            score = records.number(scores[task], "scores")
            if has_truth:
                true = mask_of(truth, task, frame_of(truth, size_of(record)))
                scored[task] = score, true is not None and true.area > 0
            elif (label := _checked_label((labels or {}).get(task))) != -1:
                scored[task] = score, None if label is None else label == 1
        except InputError as error:
            failed[task] = str(error)
    return Tried(record["id"], frozenset(scores), scored=scored, failed=failed)


def _checked_label(value: object) -> int | None:
    """1, 0, -1 for uncertain, or None for a blank one."""
    if value is None or (isinstance(value, int) and value in (-1, 0, 1)):
        return value
    raise InputError(f"the label {value!r} is not 1, 0 or -1")


def _masking(settings: TuningSettings) -> MaskingSettings:
    """How heatmaps become masks, before cutoffs."""
    threshold = settings.threshold
    return MaskingSettings(
        threshold=None if isinstance(threshold, str) else threshold,
        smooth=settings.smooth,
        sign=settings.sign,
        tasks=frozenset(settings.tasks) or None,
    )


# Choosing, task by task


def _tuning(rows: Sequence[Tried], truth: Truth | None, settings: TuningSettings, failed: int = 0) -> Tuning:
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


def _compare_ids(rows: Sequence[Tried], truth: Truth, settings: TuningSettings) -> None:
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


def _available(rows: Sequence[Tried], settings: TuningSettings) -> list[str]:
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


def _choose_on_grid(task: str, rows: Sequence[Tried], settings: TuningSettings) -> tuple[dict, list[dict]]:
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


def _choose_score(task: str, rows: Sequence[Tried], settings: TuningSettings) -> tuple[dict, list[dict]]:
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


def _pairs(task: str, rows: Sequence[Tried], settings: TuningSettings) -> list[tuple[float, bool]]:
    """Each image's score and whether it is positive. Blank labels count where the task has a label anywhere."""
    found = [row.scored[task] for row in rows if task in row.scored]
    labelled = any(positive is not None for _, positive in found)
    if labelled and (settings.missing or blank_means(task)) == "negative":
        return [(score, bool(positive)) for score, positive in found]
    return [(score, positive) for score, positive in found if positive is not None]
