"""Inputs told apart by their content, whatever they hold: each becomes a stream of records.

    JSON Lines of records              as they are
    {id: {task: RLE}}, COCO            records with "masks"
    {id: {img_size, task: outlines}}   records with "size" and "outlines"
    {id: {task: [[x, y], ...]}}        records with "points"
    other tools' and sets' truth       records with drawings (`foreign`)
    folder of heatmaps, one heatmap    records with "heatmap"

Any of the files may be compressed with gzip. Memory does not grow with the length of a stream of JSON Lines, nor of the
study's JSON by image.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, BinaryIO

from chextools.errors import InputError
from chextools.inputs import foreign
from chextools.plumbing import jsontext, streams
from chextools.records import records
from chextools.records.records import Failure, Located


def read(source: str, stdin: BinaryIO) -> Iterator[Located | Failure]:
    """Records of one input: a path, or `-` for `stdin`.

    Raises InputError where the input as a whole cannot be used.
    """
    if source == "-":
        with streams.open_source(source, stdin) as stream:
            yield from read_stream(stream, "stdin")
    elif os.path.isdir(source):
        yield from _read_folder(source)
    elif _is_heatmap(source):
        from chextools.heatmaps.study_pickles import split_name

        identifier, _ = split_name(source) or (PurePath(source).stem, "")
        yield from _located(source, [{"id": identifier, "heatmap": source}])
    elif (found := foreign.of_file(source)) is not None:
        yield from _located(source, found)
    else:
        with streams.open_input(source) as stream:
            yield from read_stream(stream, source)


def read_all(sources: Sequence[str], stdin: BinaryIO) -> Iterator[Located | Failure]:
    """Records of all inputs in turn; an id that comes twice is a failure."""
    return records.unique(item for source in sources for item in read(source, stdin))


def read_some(sources: Sequence[str], stdin: BinaryIO) -> tuple[dict, Iterable[Located | Failure]]:
    """The first usable record, and all of `read_all`. Raises InputError if there is none: a reducer needs some."""
    return records.peek(read_all(sources, stdin), "stdin" if sources[0] == "-" else sources[0])


def read_stream(stream: BinaryIO, name: str) -> Iterator[Located | Failure]:
    """A stream of `streams.open_source` whose first line tells JSON Lines of records from one JSON document."""
    if _is_by_image(streams.peek(stream)):
        yield from _by_image(stream, name)
        return
    lines = streams.lines(stream, name, streams.MAX_DOCUMENT)
    number = 0
    for first in lines:
        number += 1
        if first.strip():
            break
    else:
        return
    start = first.lstrip()[:1]
    if start not in (b"{", b"["):
        yield from _located(name, foreign.of_text(first, lines, name))
        return
    (where, value), *_ = jsontext.parsed_lines([first], name, number - 1)
    if _is_record(value):
        yield _line(where, value)
        yield from _records(lines, name, number)
        return
    rest = streams.read_rest(lines, name)
    broken = isinstance(value, InputError)
    follows = next((line for line in rest if line.strip()), b"")
    if follows and (not broken or _is_record(_parsed(follows))):  # one object a line: JSON Lines
        yield _line(where, value)
        yield from _records(rest, name, number)
    elif not broken and _is_flat(value):  # a lone line of some other kind of object
        yield _line(where, value)
    else:
        try:
            document = jsontext.loads(b"".join([first, *rest])) if broken else value
            yield from _located(name, _from_document(document, name))
        except InputError as error:
            raise _of(name, error) from None


def _of(name: str, error: InputError) -> InputError:
    """The error as one of an input, which it may name already."""
    return error if str(error).startswith(f"{name}: ") else InputError(f"{name}: {error}")


# How the study's JSON begins: images of which nothing is known, then one with a mask, its size, outlines or points.
_BY_IMAGE = re.compile(
    rb'\s*\{(?:\s*"[^"\\]*"\s*:\s*\{\s*\}\s*,)*'
    rb'\s*"(?P<image>[^"\\]*)"\s*:\s*\{\s*"[^"\\]*"\s*:\s*(?:\{\s*"(?:size|counts)"|\[)'
)


def _is_by_image(start: bytes) -> bool:
    """Whether this is the start of one JSON document by image, and not of JSON Lines."""
    found = _BY_IMAGE.match(start)
    if found is None or found["image"].decode("utf-8", "replace") in records.KEYS:
        return False
    first, *rest = [line for line in start.split(b"\n", 2) if line.strip()][:2]
    return not rest or (isinstance(_parsed(first), InputError) and not _is_record(_parsed(rest[0])))


def _by_image(stream: BinaryIO, name: str) -> Iterator[Located | Failure]:
    """Records of the study's JSON by image, as they are read."""
    try:
        members = jsontext.members(stream)
        seen = []
        for member in members:
            seen.append(member)
            if member[1]:
                break
        members = itertools.chain(seen, members)
        form = _form_of([value for _, value in seen])
        if form is None:
            yield from _located(name, _from_document(dict(members), name))
        else:
            yield from _located(name, _each_image(members, form))
    except InputError as error:
        raise _of(name, error) from None


def objects(stream: BinaryIO, name: str) -> Iterator[Located | Failure]:
    """JSON Lines of objects of any kind, such as a command's rows, as they are."""
    for where, value in jsontext.parsed_lines(streams.lines(stream, name), name):
        yield _object(where, value)


def _is_heatmap(path: str) -> bool:
    return path.endswith((".npz", "_map.pkl"))


def _read_folder(path: str) -> Iterator[Located | Failure]:
    from chextools.heatmaps.folders import open_folder

    if foreign.is_truth_folder(path):
        files = foreign.files_in(path)
        yield from _each(files) if files else _located(path, foreign.of_masks(path))
        return
    folder = open_folder(path)
    yield from _located(path, ({"id": i, "heatmap": folder.reference(i)} for i in folder))


def _each(files: Sequence[str]) -> Iterator[Located | Failure]:
    """Records of files that were found, not named: one that cannot be read is a failure."""
    for file in files:
        try:
            with streams.open_input(os.devnull) as nothing:
                yield from read(file, nothing)
        except InputError as error:
            yield Failure(file, str(error).removeprefix(f"{file}: "))


def _located(name: str, items: Iterable[dict | Failure]) -> Iterator[Located | Failure]:
    for record in items:
        if isinstance(record, Failure):
            where = record.where if record.where.startswith(f"{name}:") else f"{name}: {record.where}"
            yield Failure(where, record.reason)
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


def _parsed(line: bytes) -> object:
    try:
        return jsontext.loads(line)
    except InputError as error:
        return error


def _records(lines: Iterable[bytes], name: str, number: int) -> Iterator[Located | Failure]:
    for where, value in jsontext.parsed_lines(lines, name, number):
        yield _line(where, value)


def _object(where: str, value: object) -> Located | Failure:
    if isinstance(value, InputError):
        return Failure(where, str(value))
    return Located(where, value) if isinstance(value, dict) else Failure(where, "not a JSON object")


def _line(where: str, value: object) -> Located | Failure:
    if isinstance(value, InputError):
        return Failure(where, str(value))
    try:
        return Located(where, records.checked(value))
    except InputError as error:
        return Failure(where, str(error))


def _from_document(document: object, name: str) -> Iterator[dict | Failure]:
    """Records of one JSON document, told apart by its first value that is not empty."""
    if (found := foreign.of_document(document, name)) is not None:
        return found
    if not isinstance(document, dict) or not all(isinstance(v, dict) for v in document.values()):
        raise InputError(_NOT_BY_IMAGE)
    form = _form_of(list(document.values()))
    if form is None:
        raise InputError(
            "neither masks ({id: {task: RLE}}), outlines (with img_size) nor points ({id: {task: [[x, y]]}})"
        )
    return _each_image(document.items(), form)


def _form_of(values: Sequence[Any]) -> Callable[[str, dict], dict] | None:
    """What makes records of the study's JSON by image, told by its values; None where it is none."""
    values = [value for value in values if isinstance(value, dict)]
    if any("img_size" in value for value in values):
        return _outlined
    first = next((v for value in values for v in value.values() if v), None)
    if first is None or (isinstance(first, dict) and "counts" in first):
        return lambda identifier, value: {"id": identifier, "masks": value}
    if isinstance(first, list) and isinstance(first[0], (list, tuple)) and len(first[0]) == 2:
        return lambda identifier, value: {"id": identifier, "points": value}
    return None


def _each_image(members: Iterable[tuple[str, Any]], form: Callable[[str, dict], dict]) -> Iterator[dict]:
    for identifier, value in members:
        if not isinstance(value, dict):
            raise InputError(_NOT_BY_IMAGE)
        yield form(identifier, value)


_NOT_BY_IMAGE = "neither records nor masks, outlines, points or COCO: expected an object by image id"


def _outlined(identifier: str, value: dict) -> dict:
    outlines = {task: polygons for task, polygons in value.items() if task != "img_size"}
    return {"id": identifier, "size": value.get("img_size", []), "outlines": outlines}
