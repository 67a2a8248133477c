"""Image records from whatever lists X-rays: a CSV of labels, a folder, image files, paths, a pack, or records.

    a CSV of labels              told apart by its header: CheXpert's, CheXpert Plus', NIH's, MIMIC-CXR-JPG's,
                                 PadChest's, VinDr-CXR's, RSNA's, or one's own with a column Path
    a folder                     the images in it and its subfolders
    paths on stdin               one a line, or ended by NUL
    a pack, JSON Lines           records, as chex-prep writes them

No image is opened for it, only the first bytes of a file. Labels are 1, 0 or -1; a blank one is missing. Paths in
records are relative to the working directory.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from chextools.errors import InputError
from chextools.inputs import inputs, labels_by_id, labels_chexpert, labels_mimic, labels_nih, labels_padchest
from chextools.inputs.label_columns import GROUP, Wishes, checked_labels, described
from chextools.plumbing import csvtext, files, streams
from chextools.records import records
from chextools.records.ids import id_of_path
from chextools.records.records import Failure, Located
from chextools.tasks import canonical, hint
from chextools.xrays import images, packs

log = logging.getLogger(__name__)

# Media Storage SOP Classes of DICOM that are no images: directories, reports, presentation states, waveforms, documents
_NO_IMAGES = (
    b"1.2.840.10008.1.3.10",
    b"1.2.840.10008.5.1.4.1.1.88.",
    b"1.2.840.10008.5.1.4.1.1.11.",
    b"1.2.840.10008.5.1.4.1.1.9.",
    b"1.2.840.10008.5.1.4.1.1.104.",
    b"1.2.840.10008.5.1.4.1.1.66\0",
)
_HEAD = 512  # bytes in which the class is said

_IMAGE_NAMES = frozenset(
    ".jpg .jpeg .jpe .png .dcm .dicom .tif .tiff .gif .bmp .webp .pgm .ppm .jp2 .j2k".split()
)  # meant to be images, so that one that is none is an error and not just some other file


def read_image_lists(sources: Sequence[str], stdin: BinaryIO, **options: Any) -> Iterator[Located | Failure]:
    """Image records of all inputs in turn, with `read_image_list`'s options; an id that comes twice is a failure."""
    return records.unique(item for source in sources for item in read_image_list(source, stdin, **options))


def read_image_list(
    source: str,
    stdin: BinaryIO,
    *,
    root: str | None = None,
    null: bool = False,
    renamed: Mapping[str, str] | None = None,
    tasks: Sequence[str] = (),
    patient: str | None = None,
    dropped: Sequence[str] = (),
    split_by: str | None = None,
) -> Iterator[Located | Failure]:
    """Image records of one input: a path, or `-` for `stdin`.

    root: against which a CSV's paths are taken; None for the CSV's folder, or the working directory on stdin.
    null: stdin holds paths ended by NUL.
    renamed, tasks, patient, dropped, split_by: see `label_columns.Wishes`; of records, columns are keys.

    A record has "id" and "image", and what is known of "labels", "patient", "view", "split", "sex", "age" and
    "projection". Whether the image is there is not checked. Raises InputError where the input cannot be used at all.
    """
    if root is None:
        root = "" if source == "-" else os.path.dirname(source)
    wishes = Wishes(root=root, renamed=renamed or {}, tasks=tasks, patient=patient, dropped=dropped, split_by=split_by)
    if source != "-" and os.path.isdir(source):
        if packs.is_pack(source):
            return _records((Located(f"{source}: {r['id']}", r) for r in packs.open_pack(source).records), wishes)
        return _folder(source)
    return _stream(source, stdin, null, wishes)


def _stream(source: str, stdin: BinaryIO, null: bool, wishes: Wishes) -> Iterator[Located | Failure]:
    name = "stdin" if source == "-" else source
    with streams.open_source(source, stdin) as stream:
        if source != "-" and _is_image(source, stream):
            yield located(source, source, source)
            return
        if source == "-" and null:
            yield from _paths(_until_null(stream))
            return
        if streams.is_json(stream):
            yield from _records(inputs.read_stream(stream, name), wishes)
            return
        header, lines = csvtext.peeked(streams.lines(stream, name))
        if reader := _reader_of(header):
            yield from reader(csvtext.CsvTable(lines, name), wishes)
        elif source == "-" and not _wants_path(header):
            yield from _paths(os.fsdecode(line.rstrip(b"\r\n")) for line in lines)
        else:
            raise InputError(
                f"{name}: neither an image, records, nor a CSV with a column Path or Image Index"
                f"{hint(header[0], ['Path', 'Image Index']) if header else ''}"
            )


def _reader_of(header: Sequence[str]) -> Callable[[csvtext.CsvTable, Wishes], Iterator[Located | Failure]] | None:
    """The reader of a CSV of X-rays with these columns."""
    for fits, reader in (
        (labels_chexpert.path_column(header) is not None, labels_chexpert.read_labels),
        ("Image Index" in header, labels_nih.read_labels),
        (labels_mimic.is_mimic(header), labels_mimic.read_labels),
        (labels_padchest.is_padchest(header), labels_padchest.read_labels),
        (labels_by_id.is_rsna(header), labels_by_id.read_rsna),
        (labels_by_id.is_vindr(header), labels_by_id.read_vindr),
    ):
        if fits:
            return reader
    return None


def _wants_path(header: Sequence[str]) -> bool:
    """Whether a first line is a CSV header that lacks only the right name for its paths."""
    return len(header) > 1 and bool({"path", "image", "filename", "file"} & {cell.strip().lower() for cell in header})


def located(where: str, image: str, relative: str) -> Located | Failure:
    """The record of an image whose id comes from its path `relative` to its folder or CSV."""
    try:
        return Located(where, records.ordered(described(records.check_id(id_of_path(relative)), image)))
    except InputError as error:
        return Failure(where, str(error))


# Folders and paths


def _is_image(path: str, stream: BinaryIO) -> bool:
    """Whether a file is, or is meant to be, an image; nothing is read from its stream."""
    return PurePath(path).suffix.lower() in _IMAGE_NAMES or images.is_image(streams.peek(stream)[: images.HEAD])


def _folder(folder: str) -> Iterator[Located | Failure]:
    found = 0
    others: list[str] = []
    for path in files.walk(Path(folder), others):
        if not path.is_file() or not _is_meant(path):
            others.append(path.name)
            continue
        found += 1
        yield located(str(path), str(path), str(path.relative_to(folder)))
    if not found:
        raise InputError(f"{folder}: no images in folder")
    if others:
        few = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        log.warning("%s: %d files that are no images, skipped (%s)", folder, len(others), few)


def _is_meant(path: Path) -> bool:
    """Whether a file is meant to be an image: by its name, or its first bytes; DICOM also holds what is none."""
    try:
        with streams.open_regular(path) as stream:
            head = stream.read(_HEAD)
    except InputError:
        return path.suffix.lower() in _IMAGE_NAMES
    if head[128:132] == b"DICM":
        return not any(uid in head for uid in _NO_IMAGES)
    return path.suffix.lower() in _IMAGE_NAMES or images.is_image(head)


def _paths(lines: Iterable[str]) -> Iterator[Located | Failure]:
    for number, path in enumerate(lines, 1):
        if path:
            yield located(f"stdin:{number}", path, path)


def _until_null(stream: BinaryIO) -> Iterator[str]:
    rest = b""
    while block := cast(io.BufferedReader, stream).read1(2**16):
        *whole, rest = (rest + block).split(b"\0")
        yield from map(os.fsdecode, whole)
    if rest:
        yield os.fsdecode(rest)


# Records


def _records(items: Iterable[Located | Failure], wishes: Wishes) -> Iterator[Located | Failure]:
    wanted = frozenset(map(canonical, wishes.tasks))
    for item in items:
        if isinstance(item, Located):
            record = item.record
            try:
                if not isinstance(record.get("image"), str) or not record["image"]:
                    raise InputError('no "image" key')
                if "labels" in record:
                    given = {task: value for task, value in record["labels"].items() if task not in wishes.dropped}
                    named = {canonical(wishes.renamed.get(task, task)): value for task, value in given.items()}
                    if len(named) < len(given):
                        raise InputError('"labels" has two names for one task')
                    labels = checked_labels(named)
                    record["labels"] = {t: v for t, v in labels.items() if not wanted or t in wanted}
                for key, to in ((wishes.patient, "patient"), (wishes.split_by, GROUP)):
                    if key and key not in record:
                        raise InputError(f'no "{key}" key')
                    if key:
                        record[to] = str(record[key])
            except InputError as error:
                item = Failure(item.where, str(error))
        yield item
