"""What the columns of a CSV of X-rays are: known columns that are no findings, findings, and where images are.

Names are compared without case, blanks and punctuation, so that `patient_id`, `PatientID` and `Patient ID` are one.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import PurePath

from chextools.errors import InputError
from chextools.plumbing.csvtext import CsvTable, is_index
from chextools.records import records
from chextools.records.ids import id_of_path
from chextools.tasks import ALIASES, CHEXPERT, canonical, hint

log = logging.getLogger(__name__)

_MOST_DROPPED = 32
SAMPLE = 256  # rows looked at before the first is passed on, to see what columns hold and where images are

# NIH's 14 findings (Wang et al. 2017)
NIH = tuple(
    "Atelectasis Cardiomegaly Consolidation Edema Effusion Emphysema Fibrosis Hernia Infiltration Mass Nodule "
    "Pleural_Thickening Pneumonia Pneumothorax".split()
)
# Findings of VinDr-CXR (Nguyen et al. 2022) that have none of the names above
VINDR = (
    "Aortic enlargement",
    "Calcification",
    "Clavicle fracture",
    "Enlarged PA",
    "ILD",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Tuberculosis",
    "Other diseases",
    "No finding",
)

_PATIENT = frozenset("patient patientid subject subjectid deidpatientid pid caseid".split())
_SPLIT = frozenset("split set setid subset partition".split())
_SPLITS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validate": "valid"}
_SPLITS |= {"validation": "valid", "dev": "valid", "test": "test", "testing": "test"}
_ABOUT = {"sex": "sex", "gender": "sex", "patientsex": "sex", "patientgender": "sex", "age": "age", "patientage": "age"}
_ABOUT |= {"frontallateral": "view", "view": "view", "appa": "projection", "viewposition": "projection"}
_ABOUT |= {"projection": "projection"}
_SEXES = {"m": "Male", "f": "Female", "male": "Male", "female": "Female"}
_VIEWS = ("frontal", "lateral")
# Columns that many sets have and that are no findings
_NO_FINDINGS = frozenset(
    "fold kfold cvfold id idx row rownumber report reporttext findings impression indication text caption study "
    "studyid studydate studytime studyinstanceuid seriesinstanceuid sopinstanceuid accession accessionnumber date "
    "time year imageid imagename dicomid dicom filename file path pathtodicom pathtoimage height width rows "
    "columns imageheight imagewidth imgsize size pixelspacing race ethnicity insurancetype interpreterneeded "
    "recentbmi bmi weight deceased dataset source site hospital institution manufacturer modality bodypart radid "
    "reader annotator radiologist patientreportdateorder followup followupno originalimagewidth".split()
)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user wants of a CSV.

    root: folder of its paths. renamed: names of tasks for columns and findings. tasks: the only ones wanted; none for
    all. patient: the column that says whose image it is. dropped: columns to leave out. split_by: the column whose
    values are kept on one side of a split.
    """

    root: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    tasks: Sequence[str] = ()
    patient: str | None = None
    dropped: Sequence[str] = ()
    split_by: str | None = None

    def check(self, table: CsvTable) -> None:
        """Raise InputError unless the columns that are named are there."""
        for column in filter(None, (self.patient, self.split_by, *self.dropped)):
            if column not in table.header:
                raise InputError(f"{table.name}: no column {column!r}{hint(column, table.header)}")

    def noted(self, record: dict, row: Mapping[str, str]) -> dict:
        """The record with the patient and group that the row's columns say."""
        if self.patient and (value := row[self.patient].strip()):
            record["patient"] = value
        if self.split_by:
            record[GROUP] = row[self.split_by].strip()
        return record


GROUP = "split_by"  # key of a record on its way to the split


def plain(column: str) -> str:
    """A column's name as it is compared."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


_FINDINGS = frozenset(map(plain, (*CHEXPERT, *ALIASES, *NIH, *VINDR)))


def is_known(column: str) -> bool:
    """Whether a column is known to hold no finding."""
    name = plain(column)
    return is_index(column) or name in _PATIENT | _SPLIT | _NO_FINDINGS or name in _ABOUT or name.startswith("section")


def about(row: Mapping[str, str]) -> dict:
    """What the known columns of a row say of its image: patient, split, sex, age, view, projection."""
    found: dict = {}
    for column, cell in row.items():
        name, value = plain(column), cell.strip()
        if not value or value.lower() == "nan":
            continue
        if name in _PATIENT:
            found.setdefault("patient", value)
        elif name in _SPLIT:
            if value.lower() in _SPLITS:
                found["split"] = _SPLITS[value.lower()]
        elif key := _ABOUT.get(name):
            if key == "view" and value.lower() not in _VIEWS:
                key = "projection"
            found[key] = _said(key, value)
    return found


def _said(key: str, value: str) -> int | str:
    if key == "age":
        digits = value.removesuffix("Y").removesuffix(".0")
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else value
    if key == "sex":
        return _SEXES.get(value.lower(), value)
    return value.lower() if key == "view" else value


def columns_of_labels(
    table: CsvTable, sample: Sequence[Mapping[str, str]], dropped: Iterable[str], extra: Iterable[str] = ()
) -> list[str]:
    """The columns that hold labels; what is left out, and what is taken for a task of an unknown name, is said.

    sample: the first rows. extra: columns known to this kind of table. A column of an unknown name in whose first
    rows most values are no labels is left out.
    """
    candidates = [c for c in table.header if c and not is_known(c) and c not in {*dropped, *extra}]
    without, unknown = [], []
    for column in candidates:
        if plain(column) in _FINDINGS:
            continue
        cells = [row[column].strip() for row in sample]
        filled = [cell for cell in cells if cell]
        if 2 * sum(map(_is_label, filled)) < len(filled):
            without.append(column)
        elif filled:
            unknown.append(column)
    if without:
        log.warning("%s: columns without labels, left out: %s", table.name, _listed(without))
    if unknown:
        log.warning("%s: columns taken for tasks, by their values: %s", table.name, _listed(unknown))
    return [column for column in candidates if column not in without]


def named_tasks(name: str, columns: Sequence[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """The task of each column. Raises InputError if two are one task, or `renamed` names what is not there."""
    check_names(name, renamed, columns)
    tasks = {column: canonical(renamed.get(column, column)) for column in columns}
    first: dict[str, str] = {}
    for column, task in tasks.items():
        if task in first:
            raise InputError(f"{name}: the columns {first[task]!r} and {column!r} are one task")
        first[task] = column
    return tasks


def check_names(name: str, renamed: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise InputError if something is to be renamed that is not there."""
    for old in renamed:
        if old not in known:
            raise InputError(f"{name}: nothing is called {old!r}{hint(old, known)}")


def _is_label(cell: str) -> bool:
    try:
        return float(cell) in (1, 0, -1)
    except ValueError:
        return False


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


# Rows


def sampled(table: CsvTable) -> tuple[list[dict[str, str]], Iterator[tuple[str, dict[str, str] | InputError]]]:
    """(the first rows that can be read, all rows)."""
    rows = table.rows()
    first = list(islice(rows, SAMPLE))
    return [cells for _, cells in first if not isinstance(cells, InputError)], chain(first, rows)


# Where images are


class ImagePaths:
    """Where the images of one CSV are: its paths against a root, leading components dropped once for all of them.

    root: a folder. sample: some of the paths, by which is seen how many components to drop: as many as find most of
    the images, but never a component `patientNNN`, as patients' files have the same names, and never so many that two
    paths become one. suffixes: others that files may have in place of their own.
    """

    def __init__(self, root: str, sample: Iterable[str], suffixes: Sequence[str] = ()):
        self.root, self.suffixes = root, suffixes
        parts = list({_parts(path): None for path in sample if path.strip()})
        self.dropped = self._drop(parts)
        self._taken: dict[str, str] = {}

    def resolve(self, path: str) -> str:
        """Where an image is, whether or not it is there. Raises InputError if another path led to the same file."""
        parts = _parts(path)
        found = self._file(parts, min(self.dropped, _droppable(parts)))
        whole = "/".join(parts)
        if self._taken.setdefault(found, whole) != whole:
            raise InputError(f"{path} and {self._taken[found]} would be one file, {found}")
        return found

    def _drop(self, paths: Sequence[tuple[str, ...]]) -> int:
        best, most = 0, 0
        for count in range(min(max(map(_droppable, paths), default=0), _MOST_DROPPED) + 1):
            shorter = [parts[min(count, _droppable(parts)) :] for parts in paths]
            if len(set(shorter)) < len(paths):
                break
            there = sum(os.path.exists(self._file(parts, min(count, _droppable(parts)))) for parts in paths)
            if there > most:
                best, most = count, there
            if there == len(paths):
                break
        return best

    def _file(self, parts: tuple[str, ...], dropped: int) -> str:
        path = PurePath(self.root, *parts[dropped:])
        if self.suffixes and not os.path.exists(path):
            others = (path.with_suffix(suffix) for suffix in self.suffixes)
            path = next((other for other in others if os.path.exists(other)), path)
        return str(path)


def slashed(path: str) -> str:
    """A path as it is written here: one of Windows has backslashes, and no slash."""
    return path.replace("\\", "/") if "\\" in path and "/" not in path else path


def _parts(path: str) -> tuple[str, ...]:
    return PurePath(slashed(path)).parts


def _droppable(parts: Sequence[str]) -> int:
    """How many leading components may go."""
    return next((i for i, part in enumerate(parts) if part.startswith("patient")), max(len(parts) - 1, 0))


def image_record(path: str, image: str) -> dict:
    """The record of an image whose id comes from a CSV's `path`."""
    return described(records.check_id(id_of_path(slashed(path))), image)


_VIEW = re.compile(r"(frontal|lateral)$")
_NIH_NAME = re.compile(r"(\d{8})_\d{3}", re.ASCII)
_MIMIC_PATIENT = re.compile(r"p\d{8}", re.ASCII)


def described(identifier: str, image: str) -> dict:
    """A record of an image with what its id and path say: patient, view, and CheXpert's own split.

    Patients are those of CheXpert (`patientNNN`), of MIMIC (`pNNNNNNNN` among the folders) and of NIH (`NNNNNNNN_MMM`).
    """
    record = {"id": identifier, "image": image}
    patient = records.patient_of(identifier)
    path = PurePath(image)
    if patient.startswith("patient") and patient[7:].isdigit():
        record["patient"] = patient
        before = path.parts[path.parts.index(patient) - 1] if patient in path.parts[1:] else ""
        if before in ("train", "valid", "test"):
            record["split"] = before
    elif found := _NIH_NAME.fullmatch(path.stem):
        record["patient"] = str(int(found[1]))
    elif mimic := [part for part in path.parts[:-1] if _MIMIC_PATIENT.fullmatch(part)]:
        record["patient"] = mimic[-1]
    if view := _VIEW.search(identifier):
        record["view"] = view[1]
    return record


def checked_labels(labels: Mapping[str, object]) -> dict[str, int]:
    """Labels as 1, 0 and -1, blanks left out. Raises InputError for any other value."""
    found = {}
    for task, value in labels.items():
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "":
            continue
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = 2.0
        if isinstance(value, bool) or number not in (1, 0, -1):
            raise InputError(f"{task} is {str(value)[:40]!r}; a label is 1, 0, -1 or blank")
        found[task] = int(number)
    return found
