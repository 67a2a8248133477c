"""Image records from whatever lists X-rays: a CSV of labels, a folder, image files, paths, a pack, or records.

    CheXpert's CSV               Path, perhaps Sex, Age, Frontal/Lateral, AP/PA; any other column is a task
    NIH's Data_Entry CSV         Image Index, Finding Labels, ...: findings become labels under CheXpert's names
    a folder                     the images in it and its subfolders
    paths on stdin               one a line, or ended by NUL
    a pack, JSON Lines           records, as chex-prep writes them

No image is opened for it, only the first bytes of a file whose name says nothing. Labels are 1, 0 or -1; a blank one is
missing. Paths in records are relative to the working directory.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.plumbing import csvtext, files, streams
from chextools.records import records
from chextools.records.ids import id_of_path
from chextools.records.records import Failure, Located
from chextools.tasks import canonical, choose, hint
from chextools.xrays import images, packs

log = logging.getLogger(__name__)

# NIH's 14 findings (Wang et al. 2017). Every image was read for all of them, so one that is not named is negative.
NIH = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)

# Only what is the same finding under another name. That an infiltration is an airspace opacity, or a mass a lung
# lesion, is the user's to say.
NIH_NAMES = {"Effusion": "Pleural Effusion"}

# Columns of CheXpert's CSV that are no tasks, and what a record calls them
COLUMNS = {"Sex": "sex", "Age": "age", "Frontal/Lateral": "view", "AP/PA": "projection"}

_VIEW = re.compile(r"(frontal|lateral)$")
_IMAGE_NAMES = frozenset(
    ".jpg .jpeg .jpe .png .dcm .dicom .tif .tiff .gif .bmp .webp .pgm .ppm .jp2 .j2k".split()
)  # meant to be images, so that one that is none is an error and not just some other file


def read_all(sources: Sequence[str], stdin: BinaryIO, **options) -> Iterator[Located | Failure]:
    """Image records of all inputs in turn, with the options of `read`; an id that comes twice is a failure."""
    return records.unique(item for source in sources for item in read(source, stdin, **options))


def read(
    source: str,
    stdin: BinaryIO,
    root: str | None = None,
    null: bool = False,
    renamed: Mapping[str, str] | None = None,
    tasks: Sequence[str] = (),
) -> Iterator[Located | Failure]:
    """Image records of one input: a path, or `-` for `stdin`.

    root: against which a CSV's paths are taken; None for the CSV's folder, or the working directory on stdin.
    null: stdin holds paths ended by NUL.
    renamed: names of tasks for columns and findings; those of NIH default to `NIH_NAMES`.
    tasks: the only tasks wanted; none for all.

    A record has "id" and "image", and what is known of "labels", "patient", "view", "split", "sex", "age" and
    "projection". Whether the image is there is not checked. Raises InputError where the input cannot be used at all.
    """
    if source != "-" and os.path.isdir(source):
        if packs.is_pack(source):
            found = (Located(f"{source}: {r['id']}", r) for r in packs.open_pack(source).records)
            return _records(found, renamed or {}, tasks)
        return _folder(source)
    return _stream(source, stdin, root, null, renamed, tasks)


def _stream(
    source: str, stdin: BinaryIO, root: str | None, null: bool, renamed: Mapping[str, str] | None, tasks: Sequence[str]
) -> Iterator[Located | Failure]:
    name = "stdin" if source == "-" else source
    with streams.open_source(source, stdin) as stream:
        if source != "-" and _is_image(source, stream):
            yield located(source, source, source)
            return
        if source == "-" and null:
            yield from _paths(_until_null(stream))
            return
        if streams.is_json(stream):
            yield from _records(inputs.read_stream(stream, name), renamed or {}, tasks)
            return
        header, lines = csvtext.peeked(streams.lines(stream, name))
        if root is None:
            root = "" if source == "-" else os.path.dirname(source)
        if "Path" in header:
            yield from _rows(name, lines, functools.partial(_CheXpert, root=root), renamed or {}, tasks)
        elif "Image Index" in header:
            yield from _rows(name, lines, functools.partial(_Nih, root=root), NIH_NAMES | dict(renamed or {}), tasks)
        elif source == "-" and not _wants_path(header):
            yield from _paths(os.fsdecode(line.rstrip(b"\r\n")) for line in lines)
        else:
            raise InputError(
                f"{name}: neither an image, records, nor a CSV with a column Path or Image Index"
                f"{hint(header[0], ['Path', 'Image Index']) if header else ''}"
            )


def located(where: str, image: str, relative: str) -> Located | Failure:
    """The record of an image whose id comes from its path `relative` to its folder or CSV."""
    try:
        return Located(where, records.ordered(described(records.check_id(id_of_path(relative)), image)))
    except InputError as error:
        return Failure(where, str(error))


def described(identifier: str, image: str) -> dict:
    """A record of an image with what its id and path say: patient, view, and CheXpert's own split."""
    record = {"id": identifier, "image": image}
    patient = records.patient_of(identifier)
    if patient.startswith("patient") and patient[7:].isdigit():
        record["patient"] = patient
        parts = PurePath(image).parts
        before = parts[parts.index(patient) - 1] if patient in parts[1:] else ""
        if before in ("train", "valid", "test"):
            record["split"] = before
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
            number = float(value)
        except (TypeError, ValueError):
            number = 2.0
        if isinstance(value, bool) or number not in (1, 0, -1):
            raise InputError(f"{task} is {str(value)[:40]!r}; a label is 1, 0, -1 or blank")
        found[task] = int(number)
    return found


def resolve(path: str, root: str) -> str:
    """Where a CSV's image is: its path against `root`, else with leading components dropped, the first that exists.

    A component `patientNNN` is never dropped, as patients' files have the same names. Where there is none, the path
    against `root`.
    """
    parts = PurePath(path).parts
    last = next((i for i, part in enumerate(parts) if part.startswith("patient")), len(parts) - 1)
    candidates = [str(PurePath(root, *parts[start:])) for start in range(max(1, last + 1))]
    return next((c for c in candidates if os.path.exists(c)), candidates[0])


# CSV


def _rows(
    name: str,
    lines: Iterable[bytes],
    reader: Callable[..., _CheXpert | _Nih],
    renamed: Mapping[str, str],
    tasks: Sequence[str],
) -> Iterator[Located | Failure]:
    table = csvtext.CsvTable(lines, name)
    columns = reader(name, table.header, renamed, tasks)
    for where, cells in table.rows():
        try:
            if isinstance(cells, InputError):
                raise cells
            yield Located(where, records.ordered(columns.record(cells)))
        except InputError as error:
            yield Failure(where, str(error))


class _CheXpert:
    """CheXpert's columns, of one CSV: labels are all that is not known to be something else."""

    def __init__(self, name: str, header: list[str], renamed: Mapping[str, str], tasks: Sequence[str], root: str):
        self.root = root
        columns = [c for c in header if c != "Path" and c not in COLUMNS and c and not c.startswith("Unnamed: ")]
        _check_names(name, renamed, columns)
        named = {column: canonical(renamed.get(column, column)) for column in columns}
        if len(set(named.values())) < len(named):
            twice = [c for c in columns if list(named.values()).count(named[c]) > 1]
            raise InputError(f"{name}: the columns {' and '.join(map(repr, twice))} are one task")
        wanted = choose(tasks, named.values(), name)
        self.labels = {column: task for column, task in named.items() if task in wanted}

    def record(self, row: Mapping[str, str]) -> dict:
        path = row["Path"]
        if not path.strip():
            raise InputError("no path")
        record = described(records.check_id(id_of_path(path)), resolve(path, self.root))
        record["labels"] = checked_labels({task: row[column] for column, task in self.labels.items()})
        for column, key in COLUMNS.items():
            if value := row.get(column, "").strip():
                record[key] = _age(value) if key == "age" else value.lower() if key == "view" else value
        return record


class _Nih:
    """The columns of NIH's Data_Entry_2017: a list of findings, and what is not in it is negative."""

    def __init__(self, name: str, header: list[str], renamed: Mapping[str, str], tasks: Sequence[str], root: str):
        if "Finding Labels" not in header:
            raise InputError(f"{name}: no column Finding Labels")
        _check_names(name, renamed, ("No Finding", *NIH))
        self.folders = _nih_folders(root)
        self.tasks = {finding: canonical(renamed.get(finding, finding)) for finding in ("No Finding", *NIH)}
        self.wanted = choose(tasks, self.tasks.values(), name)
        said = "; ".join(f"{finding} is {task}" for finding, task in self.tasks.items() if finding != task)
        log.warning("%s: %s; other findings keep their names (--map OLD=NEW changes it)", name, said)

    def record(self, row: Mapping[str, str]) -> dict:
        file = row["Image Index"]
        if not file.strip():
            raise InputError("no path")
        candidates = [str(PurePath(folder, file)) for folder in self.folders]
        image = next((c for c in candidates if os.path.exists(c)), candidates[0])
        record = described(records.check_id(id_of_path(file)), image)
        findings = row["Finding Labels"].split("|")
        if unknown := [f for f in findings if f not in self.tasks]:
            raise InputError(f"unknown finding {unknown[0]!r}{hint(unknown[0], self.tasks)}")
        positive = {self.tasks[finding] for finding in findings}
        record["labels"] = {task: int(task in positive) for task in self.wanted}
        record["view"] = "frontal"  # all of them are
        for column, key in (("Patient ID", "patient"), ("View Position", "projection")):
            if value := row.get(column, "").strip():
                record[key] = value
        if sex := {"M": "Male", "F": "Female"}.get(row.get("Patient Gender", row.get("Patient Sex", ""))):
            record["sex"] = sex
        if age := row.get("Patient Age", "").strip():
            record["age"] = _age(age)
        return record


def _nih_folders(root: str) -> list[str]:
    """Where NIH's archives put images: beside the CSV, in images, or in images_001/images and so on."""
    found = sorted(str(path) for path in Path(root or ".").glob("images_*/images"))
    return [root, str(PurePath(root, "images")), *found]


def _check_names(name: str, renamed: Mapping[str, str], known: Iterable[str]) -> None:
    for old in renamed:
        if old not in known:
            raise InputError(f"{name}: nothing is called {old!r}{hint(old, known)}")


def _age(value: str) -> int | str:
    digits = value.removesuffix("Y")
    return int(digits) if digits.isdigit() else value


def _wants_path(header: Sequence[str]) -> bool:
    """Whether a first line is a CSV header that lacks only the right name for its paths."""
    return len(header) > 1 and bool({"path", "image", "filename", "file"} & {cell.strip().lower() for cell in header})


# Folders and paths


def _is_image(path: str, stream: BinaryIO) -> bool:
    """Whether a file is, or is meant to be, an image; nothing is read from its stream."""
    return PurePath(path).suffix.lower() in _IMAGE_NAMES or images.is_image(stream.peek(images.HEAD))


def _folder(folder: str) -> Iterator[Located | Failure]:
    found = others = 0
    for path in files.walk(Path(folder)):
        if path.suffix.lower() not in _IMAGE_NAMES and not _starts_as_image(path):
            others += 1
            continue
        found += 1
        yield located(str(path), str(path), str(path.relative_to(folder)))
    if not found:
        raise InputError(f"{folder}: no images in folder")
    if others:
        log.info("%s: %d files that are no images", folder, others)


def _starts_as_image(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return images.is_image(stream.read(images.HEAD))
    except OSError:
        return False


def _paths(lines: Iterable[str]) -> Iterator[Located | Failure]:
    for number, path in enumerate(lines, 1):
        if path:
            yield located(f"stdin:{number}", path, path)


def _until_null(stream: BinaryIO) -> Iterator[str]:
    rest = b""
    while block := stream.read1(2**16):
        *whole, rest = (rest + block).split(b"\0")
        yield from map(os.fsdecode, whole)
    if rest:
        yield os.fsdecode(rest)


# Records


def _records(
    items: Iterable[Located | Failure], renamed: Mapping[str, str], tasks: Sequence[str]
) -> Iterator[Located | Failure]:
    wanted = frozenset(map(canonical, tasks))
    for item in items:
        if isinstance(item, Located):
            record = item.record
            try:
                if not isinstance(record.get("image"), str) or not record["image"]:
                    raise InputError('no "image" key')
                if "labels" in record:
                    named = {canonical(renamed.get(task, task)): value for task, value in record["labels"].items()}
                    if len(named) < len(record["labels"]):
                        raise InputError('"labels" has two names for one task')
                    labels = checked_labels(named)
                    record["labels"] = {t: v for t, v in labels.items() if not wanted or t in wanted}
            except InputError as error:
                item = Failure(item.where, str(error))
        yield item
