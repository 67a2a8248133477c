"""chex-segment: heatmaps and radiologists' outlines to masks."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from chextools import heatmaps, inputs, records
from chextools.binarize import binarize
from chextools.errors import InputError
from chextools.masks import Mask
from chextools.parallel import ordered_map
from chextools.records import Failure, Located
from chextools.tasks import CHEXPERT, canonical, choose

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How heatmaps become masks.

    threshold: None for Otsu's, one number in [0, 1] for all tasks, or a number by task.
    cutoffs: by task, the score below which the mask is empty.
    smooth: side in pixels of a box filter; 1 is none.
    sign: positive, abs or raw; None for the default: raw for the study's pickles, positive for ours.
    tasks: tasks wanted; None for all.
    """

    threshold: float | Mapping[str, float] | None = None
    cutoffs: Mapping[str, float] = field(default_factory=dict)
    smooth: int = 1
    sign: str | None = None
    tasks: frozenset[str] | None = None

    def threshold_of(self, task: str) -> float | None:
        if isinstance(self.threshold, Mapping):
            if task not in self.threshold:
                raise InputError("the threshold file has no threshold for this task")
            return self.threshold[task]
        return self.threshold


def select_tasks(
    items: Iterable[Located | Failure], requested: Sequence[str]
) -> tuple[Iterable[Located | Failure], frozenset[str] | None]:
    """The items, untouched, and the requested tasks, None for all. Raises InputError for a task nobody knows."""
    if not requested:
        return items, None
    items = iter(items)
    seen = []
    for item in items:
        seen.append(item)
        if isinstance(item, Located):
            break
    record = seen[-1].record if seen and isinstance(seen[-1], Located) else {}
    available = set(record.get("outlines", ()))
    if "heatmap" in record and not set(map(canonical, requested)) <= set(CHEXPERT):
        available |= heatmaps.open_heatmap(record["heatmap"]).maps.keys()
    return itertools.chain(seen, items), frozenset(choose(requested, available, "the first record"))


def segment(items: Iterable[Located | Failure], settings: Settings, jobs: int = 1) -> Iterator[Located | Failure]:
    """Records with masks for records with heatmaps or outlines, in order; a task that fails goes to "failed"."""
    return ordered_map(partial(_segment, settings=settings), items, jobs)


def _segment(item: Located | Failure, settings: Settings) -> Located | Failure:
    if isinstance(item, Failure):
        return item
    try:
        return Located(item.where, records.ordered(segment_record(item.record, settings)))
    except InputError as error:
        return Failure(item.where, str(error))


def segment_record(record: dict, settings: Settings) -> dict:
    """The record with "masks", "failed" and "flags". Raises InputError if none of it can be done."""
    if "outlines" in record:
        return _from_outlines(record, settings)
    return _from_heatmap(record, settings)


def _from_outlines(record: dict, settings: Settings) -> dict:
    outlines = record.pop("outlines")
    size = tuple(record.get("size") or ())
    if not size:
        raise InputError("outlines without the image's size")
    record["masks"], failed = _by_task(
        settings, outlines, lambda task: Mask.from_polygons(size, outlines[task]), record.get("failed", {})
    )
    return _with_failed(record, failed)


def _from_heatmap(record: dict, settings: Settings) -> dict:
    loaded = heatmaps.of_record(record)
    size = loaded.size
    record["size"] = list(size)
    record["scores"] = loaded.scores | record.get("scores", {})
    for key, value in (("labels", loaded.labels), ("method", loaded.method), ("model", loaded.model)):
        if value:
            record.setdefault(key, value)
    sign = settings.sign or loaded.sign

    def mask(task: str) -> Mask:
        threshold = settings.threshold_of(task)
        if task in settings.cutoffs:
            if task not in record["scores"]:
                raise InputError("no score to compare with the cutoff")
            if record["scores"][task] < settings.cutoffs[task]:
                return Mask.empty(size)
        return binarize(
            loaded.maps[task], size, threshold, input_size=loaded.input_size, smooth=settings.smooth, sign=sign
        )

    record["masks"], failed = _by_task(settings, loaded.maps, mask, loaded.failed | record.get("failed", {}))
    flags = {task: flag for task, flag in loaded.flags.items() if task in record["masks"]}
    if flags:
        record["flags"] = record.get("flags", {}) | flags
    return _with_failed(record, failed)


def _by_task(
    settings: Settings, available: Iterable[str], mask: Callable[[str], Mask], failed: Mapping[str, str]
) -> tuple[dict, dict]:
    """(RLE by task, reason by failed task) of the tasks that are wanted."""
    masks, failed = {}, dict(failed)
    for task in available:
        if (settings.tasks is None or task in settings.tasks) and task not in failed:
            try:
                masks[task] = mask(task).to_rle()
            except InputError as error:
                failed[task] = str(error)
    return masks, {t: r for t, r in failed.items() if settings.tasks is None or t in settings.tasks}


def _with_failed(record: dict, failed: dict) -> dict:
    if failed:
        return record | {"failed": failed}
    record.pop("failed", None)
    return record


def threshold_of(option: str | float) -> float | dict[str, float] | None:
    """What the option --threshold means: "otsu" is None, a number itself, and a file its thresholds by task."""
    if isinstance(option, str):
        return None if option == "otsu" else read_thresholds(option)
    return option


def read_thresholds(path: str) -> dict[str, float]:
    """Threshold by task from the study's tuning_results.csv or chex-tune's JSON Lines."""
    return _read_settings(path, "threshold", lambda rows: _marked(rows)["threshold"])


def read_cutoffs(path: str) -> dict[str, float]:
    """Cutoff by task from the study's probability_tuning_results.csv (its row with the best mIoU) or JSON Lines."""

    def best(rows: list[dict]) -> object:
        if "mIoU" not in rows[0]:
            return _marked(rows)["cutoff" if "cutoff" in rows[0] else "prob_threshold"]
        # A cutoff that leaves nothing to measure has no mIoU; the first of equals wins.
        return max(rows, key=lambda row: _number(row["mIoU"], path) if row["mIoU"] else -1)["prob_threshold"]

    return _read_settings(path, "cutoff", best)


def _marked(rows: list[dict]) -> dict:
    """The row that chex-tune --curve marks as best, else the first."""
    return next((row for row in rows if str(row.get("best")) == "True"), rows[0])


def _read_settings(path: str, what: str, choose: Callable[[list[dict]], object]) -> dict[str, float]:
    text = inputs.read_text(path)
    if text.lstrip()[:1] == "{":
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    rows.append(records.loads(line))
                except InputError as error:
                    raise InputError(f"{path}:{number}: {error}") from None
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
    by_task: dict[str, list[dict]] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("task"), str):
            raise InputError(f"{path}: a row without a task; expected columns such as {what},task")
        by_task.setdefault(canonical(row["task"]), []).append(row)
    if not by_task:
        raise InputError(f"{path}: no rows")
    try:
        chosen = {task: _number(choose(group), path) for task, group in by_task.items()}
    except KeyError as error:
        raise InputError(f"{path}: no column {error}") from None
    for task, value in chosen.items():
        if not 0 <= value <= 1:
            raise InputError(f"{path}: the {what} of {task} is {value:g}; it must lie in [0, 1]")
    return chosen


def _number(value: object, path: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {value!r} is not a number") from None
    if not math.isfinite(number):
        raise InputError(f"{path}: {value!r} is not a finite number")
    return number
