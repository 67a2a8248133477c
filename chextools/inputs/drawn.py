"""Records of what people drew: built by the readers of truth, turned into masks once sizes are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.masks.drawing import ALONE, KEY, Drawing, kind_of
from chextools.masks.mask import Mask
from chextools.records import records
from chextools.tasks import canonical

_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .png .dcm .dicom .tif .tiff .gif .bmp .webp .pgm .ppm .jp2 .j2k .npz .gz .nii".split()
)


def id_of_image(name: object) -> str:
    """The id of an image that a file of truth names, by path or without extension. Raises InputError."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"no image is named: {str(name)[:40]!r}")
    name = name.strip().replace("\\", "/")
    if PurePath(name).suffix.lower() not in _SUFFIXES and "/" not in name:
        return records.check_id(name)  # such as a DICOM UID: what follows its last dot is no extension
    return records.check_id(inputs.id_of_path(name))


def task_of(name: object, renamed: Mapping[str, str] | None = None) -> str:
    """The name of a task that a file of truth gives, as it is written everywhere. Raises InputError."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"no finding is named: {str(name)[:40]!r}")
    name = canonical((renamed or {}).get(name.strip(), name.strip()))
    records.by_task({name: None}, "finding")
    return name


def record_of(identifier: str, drawing: Drawing, **more: object) -> dict:
    """A record with a drawing, its tasks under canonical names."""
    record: dict = {"id": identifier}
    if drawing.size:
        record["size"] = list(drawing.size)
    return record | {key: value for key, value in more.items() if value} | {KEY: drawing}


def with_masks(record: dict, tasks: Iterable[str] | None = None, size: tuple[int, int] | None = None) -> dict:
    """The record with "masks", and "kind", "readers" and "failed" where there are such, in place of its drawing.

    tasks: those wanted; None for all. size: of the image, where it is not the drawing's.
    """
    drawing: Drawing = record[KEY]
    masks, failed, readers = {}, dict(record.get("failed", {})), {}
    wanted = drawing.names if tasks is None else [task for task in drawing.names if task in set(tasks)]
    into = size
    for task in wanted:
        if task in failed:
            continue
        try:
            mask = drawing.mask(task, size)
            if mask is not None:
                masks[task], into = mask.to_rle(), mask.size
                for reader, own in drawing.by_reader(task, size).items() if len(drawing.readers) > 1 else ():
                    readers.setdefault(reader, {})[task] = own.to_rle()
        except InputError as error:
            failed[task] = str(error)
    made = {key: value for key, value in record.items() if key not in (KEY, "failed")}
    if into:
        made["size"] = list(into)
    made["masks"] = masks
    counts = {task: drawing.count(task) for task in masks}
    more = {"kind": kind_of(drawing, list(masks)), "readers": readers, "failed": failed}
    if any(counts.values()):
        more["instances"] = {task: count for task, count in counts.items() if count is not None}
    return made | {key: value for key, value in more.items() if value}


def drawing_of(record: Mapping, rule: str = "majority") -> Drawing | None:
    """What a record of any form holds as a drawing, its readers apart; None where it holds no truth."""
    from chextools.masks.shapes import Painted, Polygon

    if isinstance(record.get(KEY), Drawing):
        return record[KEY]
    size = tuple(record["size"]) if record.get("size") else None
    if isinstance(record.get("readers"), Mapping):
        readers: dict = {
            reader: {canonical(task): [Painted(Mask.from_rle(rle))] for task, rle in by_task.items()}
            for reader, by_task in record["readers"].items()
            if isinstance(by_task, Mapping)
        }
    elif "masks" in record:
        readers = {ALONE: {task: [Painted(Mask.from_rle(rle))] for task, rle in record["masks"].items()}}
    elif "outlines" in record:
        readers = {ALONE: {task: [Polygon.of(p) for p in drawn] for task, drawn in record["outlines"].items()}}
    else:
        return None
    painted = [shape for by_task in readers.values() for shapes in by_task.values() for shape in shapes]
    if size is None:
        size = next((shape.mask_.size for shape in painted if isinstance(shape, Painted)), None)
    return Drawing(readers=readers, size=size, tasks=_tasks(readers), rule=rule, failed=record.get("failed", {}))


def _tasks(readers: Mapping[str, Mapping[str, Sequence]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(task for by_task in readers.values() for task in by_task))
