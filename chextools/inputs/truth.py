"""What radiologists outlined, in whatever form it comes, by one reader or several."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO

from chextools import tasks
from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.masks.mask import Mask
from chextools.records import records
from chextools.records.packed import PackedRecords
from chextools.records.record import DRAWING
from chextools.records.records import Failure, Located, few
from chextools.records.sizes import check_size

if TYPE_CHECKING:  # shapes that people draw are imported for those who have any
    from chextools.masks.drawing import Drawing

log = logging.getLogger(__name__)

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class TruthSettings:
    """What files of truth do not say.

    size: (height, width) of the image in which their coordinates are; where it is given, truth is scaled to the size
        of what it is compared with.
    consensus: how several readers' masks become one (`masks.consensus.RULES`); None for the majority's.
    images: X-rays, whose sizes count where a file says none: paths of a CSV, folder, pack or records.
    """

    size: Size | None = None
    consensus: str | None = None
    images: Sequence[str] = ()


def read_truth(sources: str | Sequence[str], stdin: BinaryIO, settings: TruthSettings | None = None) -> Truth:
    """The truth of files, told apart by content; several are several readers. Raises InputError if there is none."""
    sources = [sources] if isinstance(sources, str) else list(sources)
    settings = settings or TruthSettings()
    if len(sources) == 1:
        items: Iterable[Located | Failure] = inputs.read_all(sources, stdin)
    else:
        items = _of_readers(sources, stdin)
    truth = truth_of(settled(items, settings, stdin), named(sources))
    if not truth.tasks:
        raise InputError(f"{truth.where}: no finding of any image, and none that was looked for")
    several = []
    if truth.may_have_boxes and settings.consensus is None:
        several = [i for i, r in truth.records.items() if DRAWING in r and len(r[DRAWING].readers) > 1]
    if several:
        log.warning("several readers of %s: what most of them outlined is the truth (--consensus)", few(several))
    return truth


def named(sources: str | Sequence[str] | None) -> str:
    """The files of a truth, in messages."""
    sources = [sources] if isinstance(sources, str) else sources or ()
    return ", ".join("stdin" if source == "-" else source for source in sources)


def settled(
    items: Iterable[Located | Failure], settings: TruthSettings, stdin: BinaryIO
) -> Iterator[Located | Failure]:
    """The items, what is drawn on them with the sizes and the consensus that the settings say."""
    xrays = _xrays(settings.images, stdin) if settings.images else {}

    def record_of(record: dict) -> dict:
        asked = settings.size or (settings.consensus and "readers" in record)
        if DRAWING not in record and not asked:
            return record
        from chextools.inputs import drawn

        drawing = drawn.drawing_of(record)
        if drawing is None:
            return record
        xray = xrays.get(record["id"])
        target = _size_of_xray(xray) if xray else None
        drawing = replace(drawing.measured(settings.size, target), rule=settings.consensus or drawing.rule)
        return {k: v for k, v in record.items() if k not in ("masks", "outlines", "readers")} | {DRAWING: drawing}

    return (records.applied(record_of, item) for item in items)


def _xrays(images: Sequence[str], stdin: BinaryIO) -> dict[str, dict]:
    """Records of X-rays by id. Raises InputError at the first that cannot be read."""
    from chextools.inputs.image_lists import read_image_lists

    found = {}
    for item in read_image_lists(images, stdin):
        if isinstance(item, Failure):
            raise InputError(f"{item.where}: {item.reason}")
        found[item.record["id"]] = item.record
    return found


def _size_of_xray(record: Mapping) -> Size:
    """As the record says, else the image's header."""
    from chextools.xrays.images import measure

    height, width = record.get("size") or measure(record["image"]).size
    return int(height), int(width)


def _of_readers(sources: Sequence[str], stdin: BinaryIO) -> Iterator[Located | Failure]:
    """Each file is a reader, or several, of the images that it has: a record per image with all of them."""
    from chextools.inputs import drawn

    stems = [PurePath(source).name.partition(".")[0] or source for source in sources]
    names = stems if len(set(stems)) == len(stems) else list(sources)
    found: dict[str, dict] = {}
    looked: dict[str, Drawing] = {}
    for source, name in zip(sources, names):
        for item in inputs.read_all([source], stdin):
            if isinstance(item, Failure):
                yield item
                continue
            try:
                drawing = drawn.drawing_of(item.record)
                if drawing is None:
                    raise InputError(_NO_TRUTH)
                identifier = item.record["id"]
                looked[identifier] = _joined(looked.get(identifier), drawing, name)
                found.setdefault(identifier, {}).update(item.record)
            except InputError as error:
                yield Failure(item.where, str(error))
    for identifier, record in found.items():
        yield Located(f"truth: {identifier}", record | {DRAWING: looked[identifier]})


def _joined(before: Drawing | None, drawing: Drawing, name: str) -> Drawing:
    """Readers of one image, and those of one more file. Raises InputError where their images are of other sizes."""
    from chextools.masks.drawing import ALONE

    readers = {f"{name}:{reader}" if reader != ALONE else name: own for reader, own in drawing.readers.items()}
    if before is None:
        return replace(drawing, readers=readers)
    if before.size and drawing.size and before.size != drawing.size:
        raise InputError(f"{name} has an image of {drawing.size}, others have {before.size}")
    return replace(
        before,
        readers={**before.readers, **readers},
        size=before.size or drawing.size,
        is_assumed=before.is_assumed and drawing.is_assumed,
        tasks=tuple(dict.fromkeys([*before.tasks, *drawing.tasks])),
    )


_TRUTH = {"masks", "outlines", DRAWING}
_NO_TRUTH = 'neither "masks" nor outlines'


@dataclass
class Truth:
    """What radiologists outlined: records by id, their tasks in the study's order, and what could not be read.

    may_have_boxes: whether any record says that it does, or was drawn by people.
    """

    records: Mapping[str, dict]
    tasks: list[str]
    failures: list[Failure]
    where: str = "the truth"
    may_have_boxes: bool = True

    def drawn_as(self, task: str) -> str | None:
        """ "boxes" where all that is there of a task is boxes, "boxes and outlines" where some is, else None."""
        if not self.may_have_boxes:
            return None
        seen = {is_box(record, task) for record in self.records.values() if _is_there(record, task)}
        return None if True not in seen else "boxes and outlines" if False in seen else "boxes"


def truth_of(items: Iterable[Located | Failure], where: str) -> Truth:
    """The truth in records with masks or outlines. Raises InputError if there is none."""
    found = PackedRecords()
    names: dict[str, None] = {}
    failures = []
    boxes = False
    for item in items:
        if isinstance(item, Located) and _TRUTH.intersection(item.record):
            found.add(item.record)
            boxes = boxes or "kind" in item.record or DRAWING in item.record
            names.update(dict.fromkeys(tasks_of(item.record)))
        elif isinstance(item, Located):
            failures.append(Failure(item.where, _NO_TRUTH))
        else:
            failures.append(item)
    if not found:
        reason = f" ({failures[0].where}: {failures[0].reason})" if failures else ""
        raise InputError(f"{where}: no truth{reason}")
    return Truth(found, tasks.study_order(names), failures, where, boxes)


def tasks_of(record: Mapping) -> list[str]:
    """The tasks of which a record has masks, outlines or drawings, or says why it has none."""
    drawn = record[DRAWING].names if DRAWING in record else record.get("masks", record.get("outlines", ()))
    return [*drawn, *record.get("failed", ())]


def _is_there(record: Mapping, task: str) -> bool:
    """Whether anything was drawn of a task, as far as can be told without drawing it; of a broken mask nothing is."""
    if DRAWING in record:
        return any(by_task.get(task) for by_task in record[DRAWING].readers.values())
    if task in record.get("masks", {}):
        with contextlib.suppress(InputError):
            return is_box(record, task) or bool(Mask.from_rle(record["masks"][task]).bounds.size)
        return False
    return bool(record.get("outlines", {}).get(task))


def masks_of(
    record: dict | None, names: Iterable[str], size: Size | None = None, where: str = ""
) -> tuple[dict[str, Mask | None], dict[str, str]]:
    """`mask_of` of each task, and the reasons of those that failed or are broken."""
    masks: dict[str, Mask | None] = {}
    failed: dict[str, str] = {}
    asked = dict.fromkeys(names)
    encoded = {task: rle for task, rle in (record or {}).get("masks", {}).items() if task in asked}
    if record is not None and not record.get("failed") and DRAWING not in record:
        with contextlib.suppress(InputError):  # one is broken: then one by one, to say which
            decoded = Mask.from_rles(list(encoded.values()))
            masks = {task: _check_frame(mask, record) for task, mask in zip(encoded, decoded)}
    for task in asked:
        if task not in masks:
            try:
                masks[task] = mask_of(record, task, size, where)
            except InputError as error:
                failed[task] = str(error)
    return masks, failed


def mask_of(record: dict | None, task: str, size: Size | None = None, where: str = "") -> Mask | None:
    """The task's mask; None where there is none. Raises InputError for one that failed or is broken.

    size: of the image, for what was drawn on one of an unknown or another size. where: the record's file, for messages
    that would not say it.
    """
    if record is None:
        return None
    try:
        if task in record.get("failed", {}):
            raise InputError(record["failed"][task])
        if DRAWING in record:
            return record[DRAWING].mask(task, size)
        if task in record.get("masks", {}):
            return _check_frame(Mask.from_rle(record["masks"][task]), record)
        if "outlines" in record:  # an image's outlines name the tasks that are there; the others are empty
            return Mask.from_polygons(tuple(record["size"]), record["outlines"].get(task, ()))
    except InputError as error:
        raise InputError(f"{where}: {record['id']}: {error}" if where else str(error)) from None
    return None


def _check_frame(mask: Mask, record: Mapping) -> Mask:
    """The mask. Raises InputError where its record says another size."""
    if record.get("size") and mask.size != tuple(record["size"]):
        raise InputError(f"the mask has the size {list(mask.size)}, its record says {record['size']}")
    return mask


def frame_of(truth: Mapping | None, size: Size | None) -> Size | None:
    """A size in which a truth can be drawn when it only matters whether it is there: of the image, else the least."""
    drawing = (truth or {}).get(DRAWING)
    if size is None and drawing is not None and not (drawing.size or drawing.target):
        return drawing.least_size
    return size


def size_of(record: Mapping | None) -> Size | None:
    """The size of a prediction's image, for its truth; None where only its heatmap's file could tell."""
    if record is None:
        return None
    if record.get("size"):
        return tuple(record["size"])
    if DRAWING in record:
        return record[DRAWING].target or record[DRAWING].size
    rle = next(iter(record.get("masks", {}).values()), None)
    with contextlib.suppress(InputError):  # of a broken mask there is none
        return check_size(rle["size"]) if isinstance(rle, dict) and "size" in rle else None
    return None


def is_box(record: Mapping, task: str) -> bool:
    """Whether a record's mask of a task is made of boxes."""
    if DRAWING in record:
        return record[DRAWING].is_of_boxes(task)
    kind = record.get("kind")
    return kind == "box" or (isinstance(kind, Mapping) and kind.get(task) == "box")
