"""Labels of MIMIC-CXR-JPG, in files of their own: labels of each study, and which images, of which split, it has.

    mimic-cxr-2.0.0-chexpert.csv.gz    subject_id, study_id, a column per finding: 1, 0, -1 or blank
    mimic-cxr-2.0.0-split.csv.gz       dicom_id, study_id, subject_id, split: train, validate or test
    mimic-cxr-2.0.0-metadata.csv.gz    dicom_id, subject_id, study_id, ViewPosition, ...
    files/p10/p10000032/s50414267/DICOM_ID.jpg

Any of them stands for all: the others are looked for beside it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from chextools.errors import InputError
from chextools.inputs import label_columns
from chextools.inputs.label_columns import ImagePaths, Wishes, checked_labels
from chextools.plumbing import csvtext, streams
from chextools.plumbing.csvtext import CsvTable
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tasks import choose

log = logging.getLogger(__name__)

_KEYS = ("subject_id", "study_id")
_FRONTAL, _LATERAL = ("PA", "AP", "AP AXIAL", "PA RLD", "PA LLD", "AP RLD", "AP LLD"), ("LATERAL", "LL")
_NUMBER = re.compile(r"\d{1,12}", re.ASCII)


def is_mimic(header: Sequence[str]) -> bool:
    return set(_KEYS) <= set(header) or {"dicom_id", "study_id"} <= set(header)


def read_labels(table: CsvTable, wishes: Wishes) -> Iterator[Located | Failure]:
    """Records of the images that the tables of MIMIC-CXR-JPG list together."""
    wishes.check(table)
    folder = os.path.dirname(table.name) if table.name != "stdin" else wishes.root
    labels, tasks = _labels(table, folder, wishes)
    listed = table if "dicom_id" in table.header else _beside(folder, ("split", "metadata"))
    if listed is None:
        raise InputError(
            f"{table.name}: labels of studies; their images are listed in mimic-cxr-...-split.csv.gz or "
            "-metadata.csv.gz, and neither is beside it"
        )
    about = _about(folder, listed)
    paths = ImagePaths(wishes.root, _sample(wishes.root), (".jpg", ".png", ".dcm"))
    for where, cells in listed.rows():
        try:
            if isinstance(cells, InputError):
                raise cells
            subject, study, image = (cells[key].strip() for key in ("subject_id", "study_id", "dicom_id"))
            if not (_NUMBER.fullmatch(subject) and _NUMBER.fullmatch(study) and image):
                raise InputError("no usable subject_id, study_id or dicom_id")
            path = f"files/p{subject[:2]}/p{subject}/s{study}/{image}.jpg"
            record = label_columns.image_record(path, paths.resolve(path))
            found = labels.get((subject, study), {}) if labels is not None else {}
            record["labels"] = checked_labels({task: found[task] for task in tasks if task in found})
            record |= _viewed({**about.get(image, {}), **cells})
            record["patient"] = f"p{subject}"
            yield Located(where, records.ordered(wishes.noted(record, cells)))
        except InputError as error:
            yield Failure(where, str(error))


def _labels(table: CsvTable, folder: str, wishes: Wishes) -> tuple[dict[tuple[str, str], dict] | None, list[str]]:
    """(labels by subject and study, tasks)."""
    source = table if "dicom_id" not in table.header else _beside(folder, ("chexpert", "negbio"))
    if source is None:
        log.warning("%s: no labels: mimic-cxr-...-chexpert.csv.gz is not beside it", table.name)
        return None, []
    columns = [c for c in source.header if c and c not in _KEYS and c not in wishes.dropped]
    tasks = label_columns.named_tasks(source.name, columns, wishes.renamed)
    wanted = choose(wishes.tasks, tasks.values(), source.name)
    asked = frozenset(wanted)
    chosen = {column: task for column, task in tasks.items() if task in asked}
    found = {}
    for where, cells in source.rows():
        if isinstance(cells, InputError):
            raise InputError(f"{where}: {cells}")
        values = {task: cells[column] for column, task in chosen.items() if cells[column].strip()}
        found[cells["subject_id"].strip(), cells["study_id"].strip()] = values
    if source is not table:
        log.warning("%s: its labels", source.name)
    return found, wanted


def _about(folder: str, listed: CsvTable) -> dict[str, dict[str, str]]:
    """Split and view by image, of the files beside the one that lists images."""
    found: dict[str, dict[str, str]] = {}
    for kind, columns in (("split", ("split",)), ("metadata", ("ViewPosition",))):
        if set(columns) <= set(listed.header) or (other := _beside(folder, (kind,))) is None:
            continue
        for _, cells in other.rows():
            if not isinstance(cells, InputError) and "dicom_id" in cells:
                found.setdefault(cells["dicom_id"].strip(), {}).update({c: cells.get(c, "") for c in columns})
    return found


def _viewed(cells: Mapping[str, str]) -> dict:
    found = label_columns.about({c: cells[c] for c in ("split", "ViewPosition") if c in cells})
    position = str(found.get("projection", "")).upper()
    if position in _FRONTAL or position in _LATERAL:
        found["view"] = "frontal" if position in _FRONTAL else "lateral"
    return found


def _beside(folder: str, kinds: Sequence[str]) -> CsvTable | None:
    """The first table of one of these kinds in the folder."""
    for kind in kinds:
        for path in sorted(Path(folder or ".").glob(f"mimic-cxr-*-{kind}.csv*")):
            if path.is_file() and path.name.endswith((".csv", ".csv.gz")):
                return csvtext.read_table(streams.open_input(str(path), named=False), str(path))
    return None


def _sample(root: str) -> list[str]:
    """A path by which is seen whether `files` stands below the root."""
    inside = next(Path(root or ".").glob("p[0-9][0-9]/p*/s*/*"), None)
    return [f"files/{inside.relative_to(root or '.')}"] if inside else []
