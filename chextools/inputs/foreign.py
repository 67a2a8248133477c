"""Truth and masks as other tools and public sets write them, told apart by content: which reader a file is for.

A format's reader is imported only once a file may be its: most files are ours, and should not wait for the others.
A reader yields records, whose drawings become masks once sizes are known (`inputs.drawn`), and failures.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chextools.errors import InputError
from chextools.inputs.words import PICTURES
from chextools.plumbing import csvtext
from chextools.plumbing.files import walk
from chextools.records.records import Failure

_FILES = (".xml", ".json", ".dcm")
_MOST_OF_TABLE = 2**16  # bytes


def of_document(document: Any, name: str) -> Iterator[dict | Failure] | None:
    """Records of one JSON document; None where it is none of another tool."""
    if isinstance(document, dict) and "shapes" in document:
        from chextools.inputs import labelme

        if labelme.is_labelme(document):
            return labelme.records_of(document, name)
    if isinstance(document, dict) and _may_be_via(document):
        from chextools.inputs import via

        if via.is_via(document):
            return via.records_of(document, name)
    if isinstance(document, list):
        from chextools.inputs import label_studio

        if label_studio.is_label_studio(document):
            return label_studio.records_of(document, name)
    if isinstance(document, list) or (isinstance(document, dict) and {"images", "annotations"}.intersection(document)):
        from chextools.inputs import coco

        return coco.records_of(document)
    return None


def of_text(first: bytes, rest: Iterable[bytes], name: str) -> Iterator[dict | Failure]:
    """Records of lines that are no JSON. Raises InputError where they are neither XML nor CSV of truth or scores."""
    lines = itertools.chain([first], rest)
    if first.lstrip()[:1] == b"<":
        from chextools.inputs import truth_xml

        return truth_xml.records_of(lines, name)
    if any(byte < 32 and byte not in b"\t\r\n" for byte in first[:4096]):
        raise InputError(f"{name}: neither JSON, XML nor CSV (it starts with {first[:20]!r})")
    from chextools.inputs import scores_csv, truth_csv

    header, again = csvtext.peeked(lines)
    if not truth_csv.is_truth(header):
        found, again = scores_csv.told_apart(again, name)
        if found is not None:
            return found
    return truth_csv.records_of(again, name)


def of_file(path: str) -> Iterator[dict | Failure] | None:
    """Records of a file that is no text; None where it may be."""
    if os.path.splitext(path)[1].lower() in PICTURES:
        from chextools.inputs import mask_images

        if mask_images.is_mask_file(path):
            return iter([mask_images.record_of_file(path)])
    if os.path.isfile(path) and _is_dicom(path):  # a pipe is read once
        from chextools.inputs import dicom_seg

        return dicom_seg.records_of(path) if dicom_seg.is_segmentation(path) else None
    return None


def _may_be_via(document: dict) -> bool:
    first = next(iter(document.values()), None)
    return "_via_img_metadata" in document or (isinstance(first, dict) and "regions" in first)


def _is_dicom(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_truth_folder(path: str) -> bool:
    """Whether a folder holds images or an annotation tool's files, and no heatmaps."""
    found = False
    for file in walk(Path(path)):
        if file.name.endswith((".npz", "_map.pkl")):
            return False
        found = found or file.suffix.lower() in (*PICTURES, *_FILES)
    return found


def files_in(path: str) -> list[str]:
    """The files of an annotation tool in a folder, each to be read by itself; none where it holds masks as images."""
    return [str(f) for f in walk(Path(path)) if f.suffix.lower() in _FILES and not _is_table(f)]


def of_masks(path: str) -> Iterator[dict | Failure]:
    """Records of a folder of masks as images."""
    from chextools.inputs import mask_images

    return mask_images.records_of(path, [file.relative_to(path) for file in walk(Path(path))])


def _is_table(file: Path) -> bool:
    """Whether a JSON says which value of a label image is which task."""
    if file.suffix.lower() != ".json" or os.path.getsize(file) > _MOST_OF_TABLE:
        return False
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and not any(isinstance(value, (dict, list)) for value in found.values())
