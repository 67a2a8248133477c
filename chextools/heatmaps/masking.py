"""Records with heatmaps or outlines to records with masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from chextools.errors import InputError
from chextools.heatmaps.binarization import binarize
from chextools.heatmaps.reading import heatmaps_of
from chextools.masks.mask import Mask


@dataclass(frozen=True, kw_only=True)
class MaskingSettings:
    """How heatmaps become masks.

    threshold: None for Otsu's, one number in [0, 1] for all tasks, or a number by task.
    cutoffs: by task, the score below which the mask is empty.
    smooth: side in pixels of a box filter; 1 is none.
    sign: positive, abs or raw; None for what the record or its heatmap says, else the default: raw for the study's
        pickles, positive for ours.
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


def with_masks(record: dict, settings: MaskingSettings) -> dict:
    """The record with "masks", "failed" and "flags". Raises InputError if none of it can be done."""
    if "outlines" in record:
        return _from_outlines(record, settings)
    return _from_heatmap(record, settings)


def _from_outlines(record: dict, settings: MaskingSettings) -> dict:
    outlines = record.pop("outlines")
    size = tuple(record.get("size") or ())
    if not size:
        raise InputError("outlines without the image's size")
    record["masks"], failed = _by_task(
        settings, outlines, lambda task: Mask.from_polygons(size, outlines[task]), record.get("failed", {})
    )
    return _with_failed(record, failed)


def _from_heatmap(record: dict, settings: MaskingSettings) -> dict:
    loaded = heatmaps_of(record)
    size = loaded.size
    record["size"] = list(size)
    record["scores"] = loaded.scores | record.get("scores", {})
    for key, value in (("labels", loaded.labels), ("method", loaded.method), ("model", loaded.model)):
        if value:
            record.setdefault(key, value)
    sign = record["sign"] = settings.sign or loaded.sign

    def mask(task: str) -> Mask:
        threshold = settings.threshold_of(task)
        if task in settings.cutoffs:
            if record["scores"].get(task) is None:
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
    settings: MaskingSettings, available: Iterable[str], mask: Callable[[str], Mask], failed: Mapping[str, str]
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
