"""Labels of sets that give images by an id alone: VinDr-CXR's of several readers, and RSNA's classes and boxes.

VinDr-CXR   image_labels_train.csv: image_id, rad_id, a column per finding: 1 or 0; each image read by three
            radiologists, of whom the majority counts, and a tie is uncertain. image_labels_test.csv: no rad_id
RSNA        stage_2_detailed_class_info.csv: patientId, class; stage_2_train_labels.csv: patientId, ..., Target
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath

from chextools.errors import InputError
from chextools.inputs import label_columns
from chextools.inputs.label_columns import Wishes, checked_labels
from chextools.plumbing.csvtext import CsvTable
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tasks import CHEXPERT, canonical, choose

log = logging.getLogger(__name__)

_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")
_VINDR_FOLDERS = ("", "train", "test", "images")
_RSNA_FOLDERS = ("", "stage_2_train_images", "stage_2_test_images", "images")
_CHEXPERT = {task.lower(): task for task in (*CHEXPERT, "Lung Opacity")}

# RSNA's classes (Shih et al. 2019): what of the two tasks each of them says
_CLASSES = {
    "Lung Opacity": {"Pneumonia": 1, "No Finding": 0},
    "No Lung Opacity / Not Normal": {"Pneumonia": 0, "No Finding": 0},
    "Normal": {"Pneumonia": 0, "No Finding": 1},
}


def is_vindr(header: Sequence[str]) -> bool:
    """Whether it is a table of labels; that of boxes has class names."""
    return "image_id" in header and "class_name" not in header and len(header) > 2


def is_rsna(header: Sequence[str]) -> bool:
    return "patientId" in header and bool({"class", "Target"} & set(header))


def read_vindr(table: CsvTable, wishes: Wishes) -> Iterator[Located | Failure]:
    """A record per image, where it stands first; the table is read to its end, as its readers are anywhere in it."""
    wishes.check(table)
    sample, rows = label_columns.sampled(table)
    columns = label_columns.columns_of_labels(table, sample, wishes.dropped, ("image_id", "rad_id"))
    names = {column: _CHEXPERT[column.lower()] for column in columns if column.lower() in _CHEXPERT}
    label_columns.check_names(table.name, wishes.renamed, columns)
    tasks = label_columns.named_tasks(
        table.name, columns, {**{old: new for old, new in names.items() if old != new}, **wishes.renamed}
    )
    wanted = frozenset(choose(wishes.tasks, tasks.values(), table.name))

    def said(cells: Mapping[str, str]) -> dict[str, int]:
        return checked_labels({task: cells[column] for column, task in tasks.items() if task in wanted})

    yield from _read_by_image(table, rows, "image_id", said, _VINDR_FOLDERS, wishes)


def read_rsna(table: CsvTable, wishes: Wishes) -> Iterator[Located | Failure]:
    """A record per image; in the table of boxes one has a row for each."""
    wishes.check(table)
    classes = "class" in table.header
    known = ("Pneumonia", "No Finding") if classes else ("Pneumonia",)
    label_columns.check_names(table.name, wishes.renamed, known)
    tasks = {task: canonical(wishes.renamed.get(task, task)) for task in known}
    wanted = frozenset(choose(wishes.tasks, tasks.values(), table.name))

    def said(cells: Mapping[str, str]) -> dict[str, int]:
        if classes:
            if cells["class"].strip() not in _CLASSES:
                raise InputError(f"the class is {cells['class'][:40]!r}; it is one of {', '.join(_CLASSES)}")
            found = _CLASSES[cells["class"].strip()]
        else:
            found = checked_labels({"Pneumonia": cells["Target"]})
        return {tasks[task]: value for task, value in found.items() if tasks[task] in wanted}

    yield from _read_by_image(table, table.rows(), "patientId", said, _RSNA_FOLDERS, wishes)


def _read_by_image(
    table: CsvTable,
    rows: Iterable[tuple[str, dict[str, str] | InputError]],
    key: str,
    said: Callable[[Mapping[str, str]], dict[str, int]],
    folders: Sequence[str],
    wishes: Wishes,
) -> Iterator[Located | Failure]:
    """Rows of an image together, and whoever cannot be read where it stands."""
    places: dict[str, str] = {}
    first: dict[str, Mapping[str, str]] = {}
    votes: dict[str, list[dict[str, int]]] = {}
    for where, cells in rows:
        try:
            if isinstance(cells, InputError):
                raise cells
            image = cells[key].strip()
            if not image or image != PurePath(image).name:
                raise InputError(f"no usable {key}")
            labels = said(cells)
        except InputError as error:
            yield Failure(where, str(error))
            continue
        places.setdefault(image, where)
        first.setdefault(image, cells)
        votes.setdefault(image, []).append(labels)
    several = max((len(found) for found in votes.values()), default=1)
    if several > 1 and key == "image_id":
        log.warning("%s: up to %d readers an image: the majority counts, a tie is uncertain", table.name, several)
    for image, found in votes.items():
        try:
            record = label_columns.image_record(image, _file(image, wishes.root, folders))
            record["labels"] = {task: _majority([each[task] for each in found if task in each]) for task in found[0]}
            if key == "patientId":
                record["patient"] = image
            yield Located(places[image], records.ordered(wishes.noted(record, first[image])))
        except InputError as error:
            yield Failure(places[image], str(error))


def _majority(votes: Sequence[int]) -> int:
    positive, negative = votes.count(1), votes.count(0)
    return 1 if positive > len(votes) / 2 else 0 if negative > len(votes) / 2 else -1


def _file(image: str, root: str, folders: Sequence[str]) -> str:
    candidates = [str(PurePath(root, folder, image + suffix)) for folder in folders for suffix in _SUFFIXES]
    return next(filter(os.path.exists, candidates), candidates[0])
