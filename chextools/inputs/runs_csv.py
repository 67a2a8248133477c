"""Run lengths in CSV files.

    SIIM-ACR           train-rle.csv: ImageId, EncodedPixels; relative runs, columns first, several rows an image; -1 is
                       an image that was read, and nothing found; in images of 1024 x 1024
    Kaggle's others    the same columns; absolute runs from 1, columns first; perhaps a column of classes, Height, Width
    CheXmask           Left Lung, Right Lung, Heart, Height, Width beside an id; absolute runs from 1, rows first

Relative and absolute runs look alike. The wrong form makes runs overlap, so that the area is another, or leave the
image: by that a file says which it is, and one that could be either is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from chextools.errors import InputError
from chextools.inputs.boxes import PUBLISHED
from chextools.inputs.drawn import Images, Row, Table, size_in
from chextools.masks.drawing import ALONE
from chextools.masks.shapes import Runs, runs_of
from chextools.records.records import Failure

log = logging.getLogger(__name__)

COLUMNS = ("ImageId", "Height", "Width", "ClassId", "EncodedPixels")  # what `results.formats` writes
ORGANS = {"left lung": "Left Lung", "right lung": "Right Lung", "heart": "Heart"}

_IDS = ("imageid", "image_id", "dicom_id", "image index", "path", "patientid", "img_id", "id", "img", "image")
_CLASSES = ("classid", "class_id", "class", "class_name", "label", "task", "finding")
_RUNS = ("encodedpixels", "encodedpixels relative", "encodedpixels absolute", "rle", "segmentation")
_ENOUGH = 5  # runs that each start behind the one before are no relative ones


def reader_of(header: Sequence[str]) -> Callable[[Table], Iterator[dict | Failure]] | None:
    """The reader of a CSV with these columns, in lower case; None where it is none of these."""
    if any(organ in header for organ in ORGANS) and "height" in header and "width" in header:
        return _chexmask
    if any(word in header for word in _RUNS) and any(word in header for word in _IDS):
        return _kaggle
    return None


def _first(names: Sequence[str], header: Sequence[str]) -> str | None:
    return next((name for name in names if name in header), None)


def _chexmask(table: Table) -> Iterator[dict | Failure]:
    """Streams, as a row is an image."""
    key = _first(_IDS, table.header) or table.header[0]
    organs = [organ for organ in ORGANS if organ in table.header]
    images = Images(table.name)

    def add(row: Row) -> None:
        size = size_in(row)
        if size is None:
            raise InputError("no Height and Width")
        image = images.image(row[key])
        images.sized(image, size)
        for organ in organs:
            images.look_for(ORGANS[organ])
            if row[organ] not in ("", "-1", "nan"):
                images.add(image, ALONE, ORGANS[organ], Runs(row[organ], "rows", size))
            else:
                images.seen(image, ALONE)

    for item in table.rows:
        images = Images(table.name)
        yield from images.read(table.of([item]), add)


def _kaggle(table: Table) -> Iterator[dict | Failure]:
    key, code = _first(_IDS, table.header), _first(_RUNS, table.header)
    label = _first(_CLASSES, table.header)
    assert key and code  # as `reader_of` has seen them
    rows = list(table.rows)
    whole = [row for _, row in rows if not isinstance(row, InputError)]
    texts = [row[code] for row in whole if row[code] not in ("", "-1")]
    is_siim = any(row[code] == "-1" or row[key].startswith("1.2.") for row in whole)
    is_ours = {column.lower() for column in COLUMNS} <= set(table.header)
    form = "absolute" if is_ours else _form(texts, code, is_siim, table.name)
    assumed = PUBLISHED if is_siim or form == "relative" else None
    images = Images(table.name, size=assumed, is_assumed=True)
    if label is None:
        images.look_for("Pneumothorax")
    elif not is_ours:  # which leaves out the rows of classes that are not there
        for row in whole:
            images.look_for(row[label])
        if not is_siim:
            log.warning("%s: no column names the finding: read as Pneumothorax", table.name)

    def add(row: Row) -> None:
        image = images.image(row[key])
        images.sized(image, size_in(row))
        with images.failing(image, row[label] if label else "Pneumothorax") as task:
            if row[code] in ("", "-1"):
                images.nothing(image, ALONE, task)
                return
            runs_of(row[code], form)
            images.add(image, ALONE, task, Runs(row[code], form))

    yield from images.read(table.of(rows), add)


def _form(texts: Sequence[str], column: str, is_siim: bool, name: str) -> str:
    """In which form all runs of a file are. Raises InputError where none, or either, could be meant."""
    if column.endswith((" relative", " absolute")):
        return column.rpartition(" ")[2]
    fits = {form: [_fits(text, form) for text in texts] for form in ("relative", "absolute")}
    relative, absolute = sum(fits["relative"]), sum(fits["absolute"])
    if absolute < relative:
        return "relative"
    longest = max((len(text.split()) // 2 for text, fit in zip(texts, fits["absolute"]) if fit), default=0)
    if relative < absolute or longest >= _ENOUGH:
        return "absolute"
    if is_siim or not texts:
        return "relative"
    raise InputError(
        f"{name}: these runs could be SIIM-ACR's relative ones or Kaggle's absolute ones: name the column "
        "'EncodedPixels relative' or 'EncodedPixels absolute'"
    )


def _fits(text: str, form: str) -> bool:
    """Whether runs are apart and stay within an image as large as SIIM-ACR's, where they are relative."""
    try:
        starts, lengths = runs_of(text, form)
    except InputError:
        return False
    return form == "absolute" or not starts.size or starts[-1] + lengths[-1] <= PUBLISHED[0] * PUBLISHED[1]
