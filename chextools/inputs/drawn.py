"""Records of what people drew: built by the readers of truth, turned into masks once sizes are known."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from chextools.errors import InputError
from chextools.masks.consensus import agreed
from chextools.masks.drawing import ALONE, Drawing, kind_of
from chextools.masks.mask import Mask
from chextools.masks.shapes import Painted, Polygon, Shape, finite, outside
from chextools.records import records
from chextools.records.ids import id_of_path
from chextools.records.record import DRAWING
from chextools.records.records import Failure
from chextools.records.sizes import check_size
from chextools.tasks import CHEXPERT, canonical

log = logging.getLogger(__name__)

_SPELLED = {name.lower(): name for name in (*CHEXPERT, "Lung Opacity")}
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
    return records.check_id(id_of_path(name))


def task_of(name: object, renamed: Mapping[str, str] | None = None) -> str:
    """The task of a finding that a file of truth names: CheXpert's name, however it is spelled, else its own.

    Raises InputError for what cannot be the name of a task.
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"no finding is named: {str(name)[:40]!r}")
    name = (renamed or {}).get(name.strip(), name.strip())
    name = canonical(_SPELLED.get(name.lower().replace("_", " "), name))
    records.by_task({name: None}, "finding")
    return name


def record_of(identifier: str, drawing: Drawing, **more: object) -> dict:
    """A record with a drawing, its tasks under canonical names."""
    record: dict = {"id": identifier}
    if drawing.size and not drawing.is_assumed:
        record["size"] = list(drawing.size)
    return record | {key: value for key, value in more.items() if value} | {DRAWING: drawing}


def with_masks(record: dict, tasks: Iterable[str] | None = None, size: tuple[int, int] | None = None) -> dict:
    """The record with "masks", and "kind", "readers" and "failed" where there are such, in place of its drawing.

    tasks: those wanted; None for all. size: of the image, where it is not the drawing's.
    """
    drawing: Drawing = record[DRAWING]
    masks, failed = {}, dict(record.get("failed", {}))
    readers: dict[str, dict] = {reader: {} for reader in drawing.readers} if len(drawing.readers) > 1 else {}
    wanted = drawing.names if tasks is None else [task for task in drawing.names if task in set(tasks)]
    into = size
    for task in wanted:
        if task in failed:
            continue
        try:
            by_reader = drawing.by_reader(task, size)
            mask = agreed(list(by_reader.values()), drawing.rule)
            masks[task], into = mask.to_rle(), mask.size
            for reader, own in by_reader.items():
                if readers and own.bounds.size:
                    readers[reader][task] = own.to_rle()
        except InputError as error:
            failed[task] = str(error)
    made = {key: value for key, value in record.items() if key not in (DRAWING, "failed")}
    if into:
        made["size"] = list(into)
    made["masks"] = masks
    counts = {task: drawing.count(task) for task in masks}
    more = {"kind": kind_of(drawing, list(masks)), "readers": readers, "failed": failed}
    if any(counts.values()):
        more["instances"] = {task: count for task, count in counts.items() if count is not None}
    return made | {key: value for key, value in more.items() if value}


def renamed(record: dict, names: Mapping[str, str]) -> dict:
    """The record with its tasks called as the names say, names of either spelling."""
    called = {canonical(_SPELLED.get(old.lower(), old)): canonical(new) for old, new in names.items()}

    def by_name(found: Mapping) -> dict:
        result = {called.get(task, task): value for task, value in found.items()}
        if len(result) < len(found):
            raise InputError(f"two tasks are called {' and '.join(called.values())}")
        return result

    made = {key: by_name(value) if key in records.TASK_KEYS else value for key, value in record.items()}
    if isinstance(record.get(DRAWING), Drawing):
        drawing = record[DRAWING]
        made[DRAWING] = replace(
            drawing,
            readers={reader: by_name(own) for reader, own in drawing.readers.items()},
            tasks=tuple(called.get(task, task) for task in drawing.tasks),
        )
    return made


def drawing_of(record: Mapping) -> Drawing | None:
    """What a record of any form holds as a drawing, its readers apart; None where it holds no truth.

    Raises InputError for masks that are not of the image's size.
    """
    if isinstance(record.get(DRAWING), Drawing):
        return record[DRAWING]
    size = tuple(record["size"]) if record.get("size") else None
    looked: Mapping = {}
    if isinstance(record.get("readers"), Mapping):
        readers: dict = {
            reader: {canonical(task): [Painted(Mask.from_rle(rle))] for task, rle in by_task.items()}
            for reader, by_task in record["readers"].items()
            if isinstance(by_task, Mapping)
        }
        looked = record.get("masks", {})  # a reader's mask that is not there is empty
    elif "masks" in record:
        readers = {ALONE: {task: [Painted(Mask.from_rle(rle))] for task, rle in record["masks"].items()}}
    elif "outlines" in record:
        readers = {ALONE: {task: [Polygon.of(p) for p in drawn] for task, drawn in record["outlines"].items()}}
    else:
        return None
    painted = [shape for by_task in readers.values() for shapes in by_task.values() for shape in shapes]
    sizes = [shape.mask_.size for shape in painted if isinstance(shape, Painted)]
    size = size or next(iter(sizes), None)
    for other in sizes:
        if other != size:
            raise InputError(f"a mask has the size {list(other)}, the image {list(size or ())}")
    return Drawing(readers=readers, size=size, tasks=tuple(dict.fromkeys([*looked, *_tasks(readers)])))


def _tasks(readers: Mapping[str, Mapping[str, Sequence]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(task for by_task in readers.values() for task in by_task))


class Table:
    """A CSV file of truth: its name, its columns in lower case, and its rows with where they stand.

    A row is its cells by column, or why it cannot be read.
    """

    __slots__ = ("header", "name", "rows")

    def __init__(self, name: str, header: Sequence[str], rows: Iterable[tuple[str, Row | InputError]]):
        self.name, self.header, self.rows = name, header, rows

    def of(self, rows: Iterable[tuple[str, Row | InputError]]) -> Table:
        """The same columns with other rows."""
        return Table(self.name, self.header, rows)


Row = dict[str, str]


def size_in(row: Row) -> tuple[int, int] | None:
    """The image's size where a row says it; "" is none."""
    for down, across in (("height", "width"), ("image_height", "image_width"), ("dim0", "dim1"), ("rows", "columns")):
        if row.get(down) and row.get(across):  # blank says nothing
            height, width = finite(row[down]), finite(row[across])
            if height != int(height) or width != int(width):
                raise InputError(f"the size {row[down]} x {row[across]} is no number of pixels")
            return check_size((int(height), int(width)))
    return None


class Images:
    """What a file of truth says of each image, put together from lines or items in any order.

    size: of all images, where one is known. is_assumed: whether only as the set publishes them.
    renamed: names of findings that are other tasks' names.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int] | None = None,
        is_assumed: bool = False,
        renamed: Mapping[str, str] | None = None,
    ):
        self.name, self.size, self.is_assumed, self.renamed = name, size, is_assumed, renamed or {}
        self.where = ""
        self._seen: set[tuple] = set()
        self._readers: dict[str, dict[str, dict[str, list[Shape]]]] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._failed: dict[str, dict[str, str]] = {}
        self._tasks: dict[str, None] = {}

    def image(self, name: object) -> str:
        """The id of an image by its name in the file."""
        identifier = id_of_image(name)
        self._readers.setdefault(identifier, {})
        return identifier

    def sized(self, image: str, size: tuple[int, int] | None) -> None:
        """An image's size. Raises InputError where it was said to be another."""
        if size is not None and self._sizes.setdefault(image, size) != size:
            raise InputError(f"{image} has two sizes: {self._sizes[image]} and {size}")

    def look_for(self, task: object) -> str:
        """Every reader looked for a task: what is not drawn is not there."""
        name = task_of(task, self.renamed)
        self._tasks.setdefault(name)
        return name

    def seen(self, image: str, reader: str) -> None:
        """A reader read an image, whatever was drawn."""
        self._readers[image].setdefault(str(reader), {})

    def nothing(self, image: str, reader: str, task: str) -> None:
        """A reader looked for a task and drew nothing."""
        self._readers[image].setdefault(str(reader), {}).setdefault(task_of(task, self.renamed), [])

    def add(self, image: str, reader: str, task: str, shape: Shape) -> None:
        """A shape that a reader drew; the same one twice is one."""
        task = task_of(task, self.renamed)
        if not isinstance(shape, Painted):
            if (image, reader, task, shape) in self._seen:
                return
            self._seen.add((image, reader, task, shape))
        self._readers[image].setdefault(str(reader), {}).setdefault(task, []).append(shape)

    def fail(self, image: str, task: str, reason: str) -> None:
        self._failed.setdefault(image, {}).setdefault(task_of(task, self.renamed), reason)

    @contextlib.contextmanager
    def failing(self, image: str, task: object, where: str = "") -> Iterator[str]:
        """The name of a task; an InputError in the block costs this task of this image. where: else the row's."""
        name = task_of(task, self.renamed)
        try:
            yield name
        except InputError as error:
            self.fail(image, name, f"{where or self.where}: {error}")

    def read(self, table: Table, add: Callable[[Row], None]) -> Iterator[dict | Failure]:
        """Add each row of a table, then give a record per image, and a failure per row that names none."""
        for where, row in table.rows:
            try:
                if isinstance(row, InputError):
                    raise row
                self.where = where
                add(row)
            except InputError as error:
                yield Failure(where, str(error))
        yield from self.records()

    def records(self) -> Iterator[dict]:
        """A record per image, in the order in which the file names them."""
        outsiders = 0
        for image, readers in self._readers.items():
            if not readers and image not in self._failed:
                continue  # nothing that could be read
            size = self._sizes.get(image, self.size)
            drawing = Drawing(
                readers=readers or {ALONE: {}},
                size=size,
                tasks=tuple(self._tasks),
                is_assumed=self.is_assumed and image not in self._sizes,
            )
            if size and not drawing.is_assumed:
                drawn = itertools.chain.from_iterable(s for by_task in readers.values() for s in by_task.values())
                outsiders += sum(outside(shape, size) > 1 for shape in drawn)
            yield record_of(image, drawing, failed=self._failed.get(image))
        if outsiders:
            log.warning("%s: %d shapes reach outside their image: clipped", self.name, outsiders)
