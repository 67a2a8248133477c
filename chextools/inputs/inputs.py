"""Inputs told apart by their content, whatever they hold: each becomes a stream of records.

    JSON Lines of records              as they are
    {id: {task: RLE}}, COCO            records with "masks"
    {id: {img_size, task: outlines}}   records with "size" and "outlines"
    {id: {task: [[x, y], ...]}}        records with "points"
    folder of heatmaps, one heatmap    records with "heatmap"

Any of the files may be compressed with gzip. Memory does not grow with the length of a JSON Lines stream.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import BinaryIO

from chextools.errors import InputError
from chextools.records import records
from chextools.records.records import Failure, Located

MAX_LINE = 2**26  # bytes; a record of a full-size X-ray with ten ragged masks has about 2**20
MAX_DOCUMENT = 2**30  # the study's masks of 668 CXRs are 2**26

_PATIENT = re.compile(r"patient\d+")


def read(source: str, stdin: BinaryIO) -> Iterator[Located | Failure]:
    """Records of one input: a path, or `-` for `stdin`.

    Raises InputError where the input as a whole cannot be used.
    """
    if source == "-":
        yield from read_stream(_decompressed(stdin, "stdin"), "stdin")
    elif os.path.isdir(source):
        yield from _read_folder(source)
    elif _is_heatmap(source):
        from chextools.heatmaps.study_pickles import split_name

        identifier, _ = split_name(source) or (PurePath(source).stem, "")
        yield from _located(source, [{"id": identifier, "heatmap": source}])
    else:
        with open_input(source) as stream:
            yield from read_stream(stream, source)


def read_all(sources: Sequence[str], stdin: BinaryIO) -> Iterator[Located | Failure]:
    """Records of all inputs in turn; an id that comes twice is a failure."""
    return records.unique(item for source in sources for item in read(source, stdin))


def read_some(sources: Sequence[str], stdin: BinaryIO) -> tuple[dict, Iterable[Located | Failure]]:
    """The first usable record, and all of `read_all`. Raises InputError if there is none: a reducer needs some."""
    return records.peek(read_all(sources, stdin), "stdin" if sources[0] == "-" else sources[0])


def read_stream(stream: BinaryIO, name: str) -> Iterator[Located | Failure]:
    """A stream whose first line tells whether it is JSON Lines of records or one JSON document."""
    first, number = b"", 0
    while not first.strip():
        first = _read(stream, name, line=True)
        number += 1
        if not first:
            return
    if number == 1:
        first = first.removeprefix(codecs.BOM_UTF8)
    start = first.lstrip()[:1]
    if start not in (b"{", b"["):
        raise InputError(f"{name}: neither JSON Lines nor a JSON document (it starts with {first[:20]!r})")
    try:
        value, reason = records.loads(first), ""
    except InputError as error:
        value, reason = None, str(error)
    if _is_record(value):
        yield _line(value, f"{name}:{number}")
        yield from _read_lines(stream, name, number)
        return
    rest = _read(stream, name)
    if value is not None and rest.strip():  # more lines follow a complete object: JSON Lines
        yield _line(value, f"{name}:{number}")
        yield from _read_lines(io.BytesIO(rest), name, number)
    elif value is None and _is_record(_first_object(rest)):
        yield Failure(f"{name}:{number}", reason)
        yield from _read_lines(io.BytesIO(rest), name, number)
    elif value is not None and _is_flat(value):  # a lone line of some other kind of object
        yield _line(value, f"{name}:{number}")
    else:
        try:
            document = records.loads(first + rest) if value is None else value
            yield from _located(name, _from_document(document))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None


def open_input(path: str) -> BinaryIO:
    """A file opened for reading, decompressed where it is gzip. Raises InputError that names it."""
    try:
        raw = open(path, "rb")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return _decompressed(raw, path)


@contextlib.contextmanager
def open_source(source: str, stdin: BinaryIO) -> Iterator[BinaryIO]:
    """The file of a path, or `stdin` for `-`, decompressed where it is gzip."""
    if source == "-":
        yield _decompressed(stdin, "stdin")
    else:
        with open_input(source) as stream:
            yield stream


def is_json(stream: BinaryIO, name: str) -> bool:
    """Whether a stream from `open_source` goes on with JSON rather than, say, CSV; nothing is read from it."""
    try:
        return stream.peek(1).lstrip()[:1] in (b"{", b"[", b"")
    except (OSError, EOFError, zlib.error) as error:  # gzip: truncated or corrupt
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def objects(stream: BinaryIO, name: str) -> Iterator[Located | Failure]:
    """JSON Lines of objects of any kind, such as a command's rows, as they are."""
    return _read_lines(stream, name, 0, _object)


def lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """The lines of a stream from `open_source`, each with its end. Raises InputError for damaged gzip."""
    return iter(lambda: _read(stream, name, line=True), b"")


def read_text(path: str) -> str:
    """A whole text file such as a CSV, decompressed where it is gzip."""
    with open_input(path) as stream:
        try:
            return _read(stream, path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 at byte {error.start + 1}") from None


def id_of_path(path: str) -> str:
    """An image's id: its path's parts from the first `patientNNN` on, else all of it, joined by `_`, no extension."""
    pure = PurePath(path)
    if pure.name and not pure.suffix[1:].isdigit():  # a DICOM UID such as 1.2.840 has no extension
        pure = pure.with_suffix("")
    parts = [part for part in pure.parts if part not in ("/", ".")]
    start = next((i for i, part in enumerate(parts) if _PATIENT.match(part)), 0)
    return "_".join(parts[start:])


def _decompressed(raw: BinaryIO, name: str) -> BinaryIO:
    stream = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
    try:
        if stream.peek(2)[:2] == b"\x1f\x8b":
            return io.BufferedReader(gzip.GzipFile(fileobj=stream))
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}") from None
    return stream


def _read(stream: BinaryIO, name: str, line: bool = False) -> bytes:
    try:
        data = stream.readline(MAX_LINE + 1) if line else stream.read(MAX_DOCUMENT + 1)
        if len(data) > (MAX_LINE if line else MAX_DOCUMENT):
            raise InputError(f"{name}: {'a line' if line else 'a document'} of more than {len(data) - 1} bytes")
        return data
    except (OSError, EOFError, zlib.error) as error:  # gzip: truncated or corrupt
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _is_heatmap(path: str) -> bool:
    return path.endswith((".npz", "_map.pkl"))


def _read_folder(path: str) -> Iterator[Located | Failure]:
    from chextools.heatmaps.folders import open_folder

    folder = open_folder(path)
    yield from _located(path, ({"id": i, "heatmap": folder.reference(i)} for i in folder))


def _located(name: str, items) -> Iterator[Located | Failure]:
    for record in items:
        if isinstance(record, Failure):
            yield Failure(f"{name}: {record.where}", record.reason)
            continue
        where = f"{name}: {record.get('id')}"
        try:
            yield Located(where, records.checked(record))
        except InputError as error:
            yield Failure(where, str(error))


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str)


def _is_flat(value: object) -> bool:
    """An object none of whose values is an object or list, as in no document."""
    return isinstance(value, dict) and bool(value) and not any(isinstance(v, (dict, list)) for v in value.values())


def _first_object(rest: bytes) -> object:
    """The second line's object, where there is one: what tells a broken first line from a broken document."""
    for line in rest.splitlines():
        if line.strip():
            try:
                return records.loads(line)
            except InputError:
                return None
    return None


def _read_lines(
    stream: BinaryIO, name: str, number: int, of: Callable[[object, str], Located | Failure] | None = None
) -> Iterator[Located | Failure]:
    while line := _read(stream, name, line=True):
        number += 1
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = records.loads(line)
        except InputError as error:
            cut = "" if line.endswith(b"\n") or "truncated" in str(error) else " (a truncated last line)"
            yield Failure(where, f"{error}{cut}")
        else:
            yield (of or _line)(value, where)


def _object(value: object, where: str) -> Located | Failure:
    return Located(where, value) if isinstance(value, dict) else Failure(where, "not a JSON object")


def _line(value: object, where: str) -> Located | Failure:
    try:
        return Located(where, records.checked(value))
    except InputError as error:
        return Failure(where, str(error))


def _from_document(document: object) -> Iterator[dict]:
    """Records of one JSON document, told apart by its first value that is not empty."""
    if isinstance(document, list) or "images" in document or "annotations" in document:
        from chextools.inputs import coco

        return coco.records_of(document)
    if not isinstance(document, dict) or not all(isinstance(v, dict) for v in document.values()):
        raise InputError("neither records nor masks, outlines, points or COCO: expected an object by image id")
    if any("img_size" in value for value in document.values()):
        return (_outlined(identifier, value) for identifier, value in document.items())
    first = next((v for value in document.values() for v in value.values() if v), None)
    if first is None or (isinstance(first, dict) and "counts" in first):
        return ({"id": identifier, "masks": value} for identifier, value in document.items())
    if isinstance(first, list) and isinstance(first[0], (list, tuple)) and len(first[0]) == 2:
        return ({"id": identifier, "points": value} for identifier, value in document.items())
    raise InputError("neither masks ({id: {task: RLE}}), outlines (with img_size) nor points ({id: {task: [[x, y]]}})")


def _outlined(identifier: str, value: dict) -> dict:
    outlines = {task: polygons for task, polygons in value.items() if task != "img_size"}
    return {"id": identifier, "size": value.get("img_size", []), "outlines": outlines}
