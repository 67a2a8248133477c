"""Labels of PadChest (Bustos et al. 2020): a list of findings per image, such as "['cardiomegaly', 'nodule']".

A finding that any image of the file has and this one has not is negative. Images are at ImageDir/ImageID, or all in
one folder.
"""

from __future__ import annotations

import ast
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from chextools.errors import InputError
from chextools.inputs import label_columns
from chextools.inputs.label_columns import Wishes
from chextools.plumbing.csvtext import CsvTable
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tasks import canonical, choose

log = logging.getLogger(__name__)

# Only what is the same finding under another name
NAMES = {
    "normal": "No Finding",
    "cardiomegaly": "Cardiomegaly",
    "consolidation": "Consolidation",
    "pneumonia": "Pneumonia",
    "atelectasis": "Atelectasis",
    "pneumothorax": "Pneumothorax",
    "pleural effusion": "Pleural Effusion",
    "pulmonary edema": "Edema",
    "emphysema": "Emphysema",
    "pulmonary fibrosis": "Fibrosis",
    "hiatal hernia": "Hernia",
    "pulmonary mass": "Mass",
    "nodule": "Nodule",
    "pleural thickening": "Pleural_Thickening",
}
_NO_FINDINGS = ("", "exclude", "suboptimal study", "unchanged")
_FRONTAL, _LATERAL = ("PA", "AP", "AP_HORIZONTAL"), ("L", "LATERAL")
_KEPT = ("ImageID", "ImageDir", "PatientID", "PatientSex_DICOM", "Projection", "Labels")


def is_padchest(header: Sequence[str]) -> bool:
    return {"ImageID", "Labels"} <= set(header)


def read_labels(table: CsvTable, wishes: Wishes) -> Iterator[Located | Failure]:
    """Records of the table, which is read to its end first: only then all findings are known."""
    wishes.check(table)
    kept = {*_KEPT, *filter(None, (wishes.patient, wishes.split_by))}
    rows: list[tuple[str, dict[str, str], list[str] | InputError]] = []
    seen: dict[str, None] = {}
    for where, cells in table.rows():
        if isinstance(cells, InputError):
            rows.append((where, {}, cells))
            continue
        try:
            findings = _findings(cells["Labels"])
            seen |= dict.fromkeys(findings)
            rows.append((where, {k: v for k, v in cells.items() if k in kept}, findings))
        except InputError as error:
            rows.append((where, {}, error))
    label_columns.check_names(table.name, wishes.renamed, seen)
    tasks = {finding: canonical({**NAMES, **wishes.renamed}.get(finding, finding)) for finding in seen}
    wanted = choose(wishes.tasks, tasks.values(), table.name)
    said = "; ".join(f"{finding} is {task}" for finding, task in tasks.items() if finding != task)
    if said:
        log.warning("%s: %s; other findings keep their names (--map OLD=NEW changes it)", table.name, said)
    for where, cells, found in rows:
        try:
            if isinstance(found, InputError):
                raise found
            positive = {tasks[finding] for finding in found}
            yield Located(where, records.ordered(_record(cells, positive, wanted, wishes)))
        except InputError as error:
            yield Failure(where, str(error))


def _record(row: Mapping[str, str], positive: set[str], wanted: Sequence[str], wishes: Wishes) -> dict:
    file, folder = row["ImageID"].strip(), row.get("ImageDir", "").strip()
    if not file or file != PurePath(file).name:
        raise InputError("no usable ImageID")
    places = [PurePath(wishes.root, folder, file), PurePath(wishes.root, file), PurePath(wishes.root, "images", file)]
    record = label_columns.image_record(file, str(next(filter(os.path.exists, places), places[0])))
    record["labels"] = {task: int(task in positive) for task in wanted}
    said = {"PatientID": "patient", "PatientSex_DICOM": "sex", "Projection": "projection"}
    record |= label_columns.about({name: row[column] for column, name in said.items() if column in row})
    projection = str(record.get("projection", "")).upper()
    if projection in _FRONTAL or projection in _LATERAL:
        record["view"] = "frontal" if projection in _FRONTAL else "lateral"
    return wishes.noted(record, row)


def _findings(cell: str) -> list[str]:
    """The findings of a Python list of strings. Raises InputError for anything else."""
    text = cell.strip()
    if not text or text.lower() == "nan":
        return []
    try:
        found = ast.literal_eval(text) if len(text) < 2**14 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InputError(f"Labels is {text[:40]!r}, not a list of findings")
    names = (" ".join(each.split()).lower() for each in found)
    return [name for name in dict.fromkeys(names) if name not in _NO_FINDINGS]
