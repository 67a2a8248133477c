"""chex-tune: the heatmap threshold, score cutoff or operating point that is best per task on data with a truth."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from chextools import tasks
from chextools.errors import InputError
from chextools.heatmaps import masking
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.levels import levels_above
from chextools.heatmaps.reading import heatmaps_of
from chextools.heatmaps.surface import surface_of
from chextools.inputs.truth import Truth, mask_of
from chextools.masks.mask import Mask, intersection
from chextools.metrics import bootstrap, overlap
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located, few

log = logging.getLogger(__name__)

PURPOSES = ("threshold", "cutoff", "score")
OBJECTIVES = {"iou": overlap.iou, "dice": overlap.dice}
GRIDS = {"threshold": (0.2, 0.8, 0.1), "cutoff": (0.0, 0.8, 0.1)}  # the study's
_PIXELS_AT_ONCE = 1 << 15
MAX_GRID = 1001  # values: steps of a thousandth
EXCEPTION = ("Lung Lesion", 0.1)  # the study's cutoffs of this task start here


@dataclass(frozen=True)
class Settings:
    """What to choose, and how.

    purpose: one of `PURPOSES`.
    tasks: tasks wanted, in this order; None for all that the records have (scores without a truth only).
    grid: the values to choose from, ascending; not for scores, which are chosen from themselves.
    objective: what a threshold or cutoff maximises the mean of: iou or dice.
    sensitivity: what a score threshold must reach; None to maximise Youden's J.
    exception: whether cutoffs of Lung Lesion start at 0.1, as in the study.
    masks: how heatmaps become masks, before cutoffs; sign and smoothing also for thresholds.
    remake: make masks anew where a record has some.
    """

    purpose: str
    tasks: tuple[str, ...] | None
    grid: tuple[float, ...] = ()
    objective: str = "iou"
    sensitivity: float | None = None
    exception: bool = True
    masks: masking.MaskingSettings = field(default_factory=masking.MaskingSettings)
    remake: bool = False
    replicates: int = 1000
    seed: int = 0

    @property
    def key(self) -> str:
        """The key of what is chosen, in the rows."""
        return "score_threshold" if self.purpose == "score" else self.purpose


@dataclass
class Row:
    """What one image says, by task: for a threshold or cutoff the objective at each of the grid, float64 [G], NaN where
    undefined; for a score (score, whether positive). has: tasks of which it has a heatmap, mask or score. failed: why a
    task could not be measured.
    """

    id: str
    has: frozenset[str]
    values: dict[str, np.ndarray | tuple[float, bool]]
    failed: dict[str, str]


@dataclass
class Tuning:
    """best: one row per task. curve: one per task and value to choose from."""

    best: list[dict]
    curve: list[dict]


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


# Measuring, image by image


def measure(
    items: Iterable[Located | Failure], truth: Truth | None, settings: Settings, jobs: int = 1
) -> Iterator[Located | Failure]:
    """Measure each image; the records that come back hold "row", a `Row`, and "failed" by task."""
    known = truth.records if truth else {}
    pairs = ((item, known.get(item.record["id"]) if isinstance(item, Located) else None) for item in items)
    return ordered_map(partial(_measure, has_truth=truth is not None, settings=settings), pairs, jobs)


def _measure(pair: tuple[Located | Failure, dict | None], has_truth: bool, settings: Settings) -> Located | Failure:
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


def _at_thresholds(record: dict, truth: dict | None, settings: Settings) -> Row:
    """The objective of each heatmap at each threshold, where the truth is not empty (the study's true positives)."""
    loaded = heatmaps_of(record)
    values, failed = {}, {}
    for task in settings.tasks:
        if task not in loaded.maps and task not in loaded.failed:
            continue
        try:
            true = mask_of(truth, task)
            if true is None or not true.area:
                continue
            if task in loaded.failed:
                raise InputError(loaded.failed[task])
            if true.size != loaded.size:
                raise InputError(f"the heatmap is for an image of {list(loaded.size)}, its truth of {list(true.size)}")
            both, predicted = _areas(loaded, task, true, settings)
            values[task] = OBJECTIVES[settings.objective](both, predicted, np.float64(true.area))
        except InputError as error:
            failed[task] = str(error)
    return Row(record["id"], frozenset(loaded.maps), values, failed)


def _areas(loaded: Heatmaps, task: str, true: Mask, settings: Settings) -> np.ndarray:
    """Pixels of mask and truth, and of the mask, at each threshold: int64 [2, G].

    The mask's pixels are those >= a level of float32, so one pass over the truth counts them for all levels.
    """
    surface = surface_of(
        loaded.maps[task],
        loaded.size,
        input_size=loaded.input_size,
        smooth=settings.masks.smooth,
        sign=settings.masks.sign or loaded.sign,
    )
    levels = levels_above(settings.grid, surface.minimum, surface.maximum)
    levels = levels[levels < np.inf]
    if not levels.size:
        return np.zeros((2, len(settings.grid)))
    both = np.zeros(len(levels) + 1, np.int64)
    positions = true.positions()
    for start in range(0, len(positions), _PIXELS_AT_ONCE):  # blocks that stay in a core's cache
        x, y = np.divmod(positions[start : start + _PIXELS_AT_ONCE], loaded.size[0])
        both += np.bincount(np.searchsorted(levels, surface.pixels(y, x), side="right"), minlength=len(both))
    areas = np.stack([np.cumsum(both[:0:-1])[::-1], surface.counts(levels)])
    return np.pad(areas, ((0, 0), (0, len(settings.grid) - len(levels))))


def _at_cutoffs(record: dict, truth: dict | None, settings: Settings) -> Row:
    """The objective of each mask at each cutoff, at or below which a score empties it (the study's full slice)."""
    if "masks" not in record or settings.remake:
        record = masking.with_masks(dict(record), settings.masks)
    scores, grid = record.get("scores", {}), np.array(settings.grid)
    failed = dict(record.get("failed", {}))
    values = {}
    for task in settings.tasks:
        if task not in record["masks"]:
            continue
        try:
            if scores.get(task) is None:
                raise InputError("no score to compare with cutoffs")
            score, mask = records.number(scores[task], "scores"), mask_of(record, task)
            true = mask_of(truth, task) or Mask.empty(mask.size)
            if mask.size != true.size:
                raise InputError(f"the mask has the size {list(mask.size)}, its truth {list(true.size)}")
            kept = score > grid
            both = np.where(kept, intersection(mask, true), 0)
            values[task] = OBJECTIVES[settings.objective](both, np.where(kept, mask.area, 0), true.area, "full")
        except InputError as error:
            failed[task] = str(error)
    failed = {task: reason for task, reason in failed.items() if task in settings.tasks}
    return Row(record["id"], frozenset(record["masks"]), values, failed)


def _scores(record: dict, truth: dict | None, has_truth: bool, settings: Settings) -> Row:
    """Each task's score and whether it is positive: by the truth where there is one, else by the record's labels."""
    scores, labels = record.get("scores", {}), record.get("labels", {})
    if "heatmap" in record and not (scores and (labels or has_truth)):
        loaded = heatmaps_of(record)
        scores, labels = loaded.scores | scores, loaded.labels | labels
    if not scores:
        raise InputError('no "scores"')
    if not (labels or has_truth):
        raise InputError('no "labels", and no truth given')
    values, failed = {}, {}
    for task in scores if settings.tasks is None else settings.tasks:
        if scores.get(task) is None:
            continue
        try:
            if has_truth:
                true = mask_of(truth, task)
                positive = true is not None and true.area > 0
            else:
                positive = _label(labels.get(task))
            if positive is not None:
                values[task] = (records.number(scores[task], "scores"), positive)
        except InputError as error:
            failed[task] = str(error)
    return Row(record["id"], frozenset(scores), values, failed)


def _label(value: object) -> bool | None:
    """Whether a label is positive; None where it is missing or uncertain."""
    if value not in (None, -1, 0, 1):
        raise InputError(f"the label {value!r} is not 1, 0 or -1")
    return None if value in (None, -1) else value == 1


# Choosing, task by task


def summarise(rows: Sequence[Row], truth: Truth | None, settings: Settings, failed: int = 0) -> Tuning:
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


def _metric(settings: Settings) -> str:
    if settings.purpose == "score":
        return "youden" if settings.sensitivity is None else "sensitivity"
    return settings.objective


def _compare_ids(rows: Sequence[Row], truth: Truth, settings: Settings) -> None:
    """Say which images are on one side only."""
    ids = {row.id for row in rows}
    missing = sorted(truth.records.keys() - ids)
    strangers = sorted(ids - truth.records.keys())
    if len(strangers) == len(rows) and settings.purpose == "threshold":
        raise InputError(f"no image is on both sides: the truth has {few(missing)}, the heatmaps {few(strangers)}")
    if missing:
        log.warning("in the truth but not among the heatmaps, left out: %s", few(missing))
    if strangers:
        fate = "left out" if settings.purpose == "threshold" else "its truth counts as empty"
        log.warning("among the heatmaps but not in the truth, %s: %s", fate, few(strangers))


def _available(rows: Sequence[Row], settings: Settings) -> list[str]:
    """The tasks to choose for, by name as in the study; those that no image has are left out."""
    has = frozenset().union(*(row.has for row in rows))
    if settings.purpose == "score":
        what, wanted = "score", sorted(tasks.choose(settings.tasks or (), has, "the input"))
    else:
        what, wanted = "heatmap", sorted(settings.tasks)
    names = [task for task in wanted if task in has]
    if not names:
        raise InputError(f"no image with a {what} of {' or '.join(wanted) or 'any task'}")
    if len(names) < len(wanted):
        log.warning("no %s of %s: left out", what, ", ".join(task for task in wanted if task not in has))
    return names


def _choose_on_grid(task: str, rows: Sequence[Row], settings: Settings) -> tuple[dict, list[dict]]:
    """The first grid value with the greatest mean objective; of cutoffs the mean rounded to 3 decimals, as the study.

    Its interval is that of the values chosen in bootstrap replicates. Where nothing is defined, the first value.
    """
    used = _used(task, settings)
    grid = np.array(settings.grid)[used]
    undefined = np.full(len(settings.grid), np.nan)
    table = np.array([row.values.get(task, undefined) for row in rows]).reshape(len(rows), len(used))[:, used]
    decimals = 3 if settings.purpose == "cutoff" else None
    means = _rounded(bootstrap.nanmean(table), decimals)
    replicates = _rounded(bootstrap.means(table, settings.replicates, settings.seed), decimals)
    n = (~np.isnan(table)).sum(axis=0)
    best = _first_best(means[None])
    chosen = _first_best(replicates)
    picks = np.where(chosen < 0, np.nan, grid[chosen])
    lower, upper, count = bootstrap.interval(picks)
    k = max(int(best[0]), 0)
    key, objective = settings.key, settings.objective
    row = {key: _plain(grid[k]), objective: float(means[k]), "n": int(n[k])}
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


def _used(task: str, settings: Settings) -> np.ndarray:
    """Which of the grid may be chosen for a task: bool [G]."""
    grid = np.array(settings.grid)
    if settings.purpose != "cutoff" or not settings.exception or task != EXCEPTION[0] or grid[0] >= EXCEPTION[1]:
        return np.ones(len(grid), bool)
    used = grid >= EXCEPTION[1]
    if not used.any():
        raise InputError(f"{task}: no cutoff of {EXCEPTION[1]} or more in the grid; see --no-lung-lesion-exception")
    log.warning("%s: cutoffs below %g are left out, as in the study (--no-lung-lesion-exception)", *EXCEPTION)
    return used


def _rounded(values: np.ndarray, decimals: int | None) -> np.ndarray:
    return values if decimals is None else np.round(values, decimals)


def _first_best(values: np.ndarray) -> np.ndarray:
    """The first column with each row's greatest value; -1 where all are NaN."""
    known = np.where(np.isnan(values), -np.inf, values)
    return np.where(np.isnan(values).all(axis=1), -1, known.argmax(axis=1))


def _plain(value: float) -> float:
    """A grid value as people write it: 0.3, not 0.30000000000000004."""
    return round(float(value), 10)


def _choose_score(task: str, rows: Sequence[Row], settings: Settings) -> tuple[dict, list[dict]]:
    """The operating point: positive is a score of at least the threshold, which is one of the scores.

    The greatest threshold that maximises Youden's J = sensitivity + specificity - 1 (Youden 1950), or that reaches a
    sensitivity; in bootstrap replicates likewise.
    """
    pairs = [row.values[task] for row in rows if task in row.values]
    scores, positive = np.array([s for s, _ in pairs], float), np.array([p for _, p in pairs], bool)
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    n, positives = len(scores), int(positive.sum())
    names = ("score_threshold", "sensitivity", "specificity", "youden")
    row = dict.fromkeys(names) | {"n": n, "positives": positives, "lower": None, "upper": None, "replicates": 0}
    if not 0 < positives < n:
        missing = "with a score and a label" if not n else "negative" if positives else "positive"
        return row | {"reason": f"no image is {missing}" if n else f"no image {missing}"}, []
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # equal scores are taken together
    picks = []
    for draw in bootstrap.draws(n, settings.replicates, settings.seed):
        times = np.bincount((draw + n * np.arange(len(draw))[:, None]).ravel(), minlength=draw.size).reshape(draw.shape)
        chosen = _operating_point(times, positive, last, settings.sensitivity)
        picks.append(np.where(chosen < 0, np.nan, scores[last[chosen]]))
    lower, upper, count = bootstrap.interval(np.concatenate(picks))
    k = int(_operating_point(np.ones((1, n), np.int64), positive, last, settings.sensitivity)[0])
    sensitivity = np.cumsum(positive)[last] / positives
    specificity = 1 - np.cumsum(~positive)[last] / (n - positives)
    points = np.stack([scores[last], sensitivity, specificity, sensitivity + specificity - 1], axis=1).tolist()
    row |= dict(zip(names, points[k])) | {"lower": lower, "upper": upper, "replicates": count}
    if 1 in (positives, n - positives):
        row |= {"lower": None, "upper": None, "reason": "chosen on one image of a class: no interval"}
    return row, [dict(zip(names, point)) | {"n": n, "best": i == k} for i, point in enumerate(points)]


def _operating_point(times: np.ndarray, positive: np.ndarray, last: np.ndarray, target: float | None) -> np.ndarray:
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
