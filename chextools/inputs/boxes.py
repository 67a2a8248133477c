"""Boxes around findings, as three public sets publish them.

NIH ChestX-ray8     BBox_List_2017.csv: Image Index, Finding Label, Bbox [x, y, w, h]; in images of 1024 x 1024
RSNA Pneumonia      stage_2_train_labels.csv: patientId, x, y, width, height, Target; in images of 1024 x 1024;
                    a Target of 0 is an image that was read, and nothing found
VinDr-CXR           train.csv, annotations_train.csv: image_id, rad_id, class_name, x_min, y_min, x_max, y_max; each
                    image read by three radiologists; in the original's pixels, whose number it does not say
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from chextools.errors import InputError
from chextools.inputs.drawn import Images, Row, Table, size_in
from chextools.masks.drawing import ALONE
from chextools.masks.shapes import Box, finite
from chextools.records.records import Failure

PUBLISHED = (1024, 1024)  # the size of NIH's and RSNA's images

# Only what is the same finding under another name
NIH_NAMES = {"Infiltrate": "Infiltration", "Effusion": "Pleural Effusion"}
NO_FINDING = "no finding"


def reader_of(header: Sequence[str]) -> Callable[[Table], Iterator[dict | Failure]] | None:
    """The reader of a CSV with these columns, in lower case; None where it is none of these."""
    if {"image index", "finding label"} <= set(header):
        return _nih
    if {"patientid", "x", "y", "width", "height", "target"} <= set(header):
        return _rsna
    if {"image_id", "class_name", "x_min", "y_min", "x_max", "y_max"} <= set(header):
        return _vindr
    return None


def _nih(table: Table) -> Iterator[dict | Failure]:
    """Only positive findings have boxes: what an image has no box of was not looked for."""
    written = ["bbox [x", "y", "w", "h]"]  # as it is published: the comma in the name makes four columns of it
    places = written if set(written) <= set(table.header) else ["x", "y", "w", "h"]
    if not set(places) <= set(table.header):
        raise InputError(f"{table.name}: no four columns of a box, Bbox [x, y, w, h]")
    images = Images(table.name, size=PUBLISHED, is_assumed=True, renamed=NIH_NAMES)

    def add(row: Row) -> None:
        image = images.image(row["image index"])
        with images.failing(image, row["finding label"]) as task:
            images.add(image, ALONE, task, Box.of(*(row[place] for place in places)))

    yield from images.read(table, add)


def _rsna(table: Table) -> Iterator[dict | Failure]:
    images = Images(table.name, size=PUBLISHED, is_assumed=True)
    task = images.look_for("Pneumonia")

    def add(row: Row) -> None:
        image = images.image(row["patientid"])
        with images.failing(image, task):
            target = finite(row["target"])
            if target not in (0, 1):
                raise InputError(f"Target is {row['target']}; it must be 0 or 1")
            cells = [row[name] for name in ("x", "y", "width", "height")]
            if target == 1:
                images.add(image, ALONE, task, Box.of(*cells))
            elif any(cells):
                raise InputError("Target is 0, but there is a box")
            else:
                images.seen(image, ALONE)

    yield from images.read(table, add)


def _vindr(table: Table) -> Iterator[dict | Failure]:
    """Each reader looked for all findings of the file: what one did not mark, that reader did not see."""
    images = Images(table.name)

    def add(row: Row) -> None:
        image, reader = images.image(row["image_id"]), row.get("rad_id") or ALONE
        images.sized(image, size_in(row))
        if row["class_name"].lower() == NO_FINDING:
            images.seen(image, reader)
            return
        images.look_for(row["class_name"])
        with images.failing(image, row["class_name"]) as task:
            left, top, right, bottom = (finite(row[name]) for name in ("x_min", "y_min", "x_max", "y_max"))
            images.add(image, reader, task, Box.of(left, top, right - left, bottom - top))

    yield from images.read(table, add)
