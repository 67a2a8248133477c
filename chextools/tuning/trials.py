"""What each image says of the values to choose from: the objective at each threshold or cutoff, or a score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.masking import MaskingSettings, with_masks
from chextools.heatmaps.reading import heatmaps_of
from chextools.heatmaps.surface import surface_of
from chextools.inputs.truth import Truth, frame_of, mask_of, named, size_of
from chextools.masks.mask import Mask, intersection
from chextools.metrics import overlap
from chextools.metrics.cuts import areas_of_cuts
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tuning.settings import TuningSettings

OBJECTIVES_OF = {"iou": overlap.iou, "dice": overlap.dice}


@dataclass
class Trial:
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


def measure(
    items: Iterable[Located | Failure], truth: Truth | None, settings: TuningSettings, jobs: int
) -> Iterator[Located | Failure]:
    """Measure each image; the records that come back hold "row", a `Trial`, and "failed" by task."""
    known = truth.records if truth else {}
    pairs = ((item, known.get(item.record["id"]) if isinstance(item, Located) else None) for item in items)
    return ordered_map(partial(_measured, has_truth=truth is not None, settings=settings), pairs, jobs)


def _measured(
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


def _at_thresholds(record: dict, truth: dict | None, settings: TuningSettings) -> Trial:
    """The objective of each heatmap at each threshold, where the truth is not empty (the study's true positives)."""
    loaded = heatmaps_of(record)
    values, failed = {}, {}
    for task in settings.tasks:
        if task not in loaded.maps and task not in loaded.failed:
            continue
        try:
            true = mask_of(truth, task, loaded.size, named(settings.truth))
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
    return Trial(record["id"], frozenset(loaded.maps), values, failed=failed)


def _at_cutoffs(record: dict, truth: dict | None, settings: TuningSettings) -> Trial:
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
            true = mask_of(truth, task, mask.size, named(settings.truth)) or Mask.empty(mask.size)
            if mask.size != true.size:
                raise InputError(f"the mask has the size {list(mask.size)}, its truth {list(true.size)}")
            kept = score > grid
            both = np.where(kept, intersection(mask, true), 0)
            area = np.where(kept, mask.area, 0)
            values[task] = OBJECTIVES_OF[settings.objective](both, area, np.array(true.area), "full")
        except InputError as error:
            failed[task] = str(error)
    failed = {task: reason for task, reason in failed.items() if task in settings.tasks}
    return Trial(record["id"], frozenset(record["masks"]), values, failed=failed)


def _scores(record: dict, truth: dict | None, has_truth: bool, settings: TuningSettings) -> Trial:
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
                true = mask_of(truth, task, frame_of(truth, size_of(record)), named(settings.truth))
                scored[task] = score, true is not None and true.area > 0
            elif (label := _checked_label((labels or {}).get(task))) != -1:
                scored[task] = score, None if label is None else label == 1
        except InputError as error:
            failed[task] = str(error)
    return Trial(record["id"], frozenset(scores), scored=scored, failed=failed)


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
