"""Records with masks in the formats that other tools read."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator

from chextools import tasks
from chextools.inputs import coco
from chextools.masks.mask import Mask
from chextools.records.records import dumps

log = logging.getLogger(__name__)

FORMATS = ("jsonl", "chexlocalize", "coco", "coco-results")


def write(records: Iterable[dict], output_format: str, wanted: Collection[str] | None = None) -> Iterator[str]:
    """Text of the records, piece by piece: JSON Lines, the study's {id: {task: RLE}}, a COCO data set or its results.

    wanted: the tasks that the study's format must hold for every image; None for the study's ten.
    """
    if output_format == "jsonl":
        return (dumps(record) + "\n" for record in records)
    if output_format == "chexlocalize":
        return _chexlocalize(records, tasks.STUDY if wanted is None else wanted)
    if output_format == "coco-results":
        return _listed(coco.results_of(records))
    return iter([dumps(coco.document_of(records)) + "\n"])


def _listed(items: Iterable[dict]) -> Iterator[str]:
    """A JSON list, an item a line."""
    separator = "["
    for item in items:
        yield f"{separator}{dumps(item)}"
        separator = ",\n"
    yield "[]\n" if separator == "[" else "]\n"


def _chexlocalize(records: Iterable[dict], wanted: Collection[str]) -> Iterator[str]:
    """The study's format has no way to leave a task out: one without a heatmap gets an empty mask, and is named."""
    separator = "{"
    for record in records:
        masks = dict(record["masks"])
        failed = record.get("failed", {})
        missing = [task for task in tasks.study_order(wanted) if task not in masks and task not in failed]
        if missing and "heatmap" in record:  # outlines name what is there, and nothing else is
            log.warning("%s: no heatmap for %s; empty masks written", record["id"], ", ".join(missing))
        empty = Mask.empty(tuple(record["size"])).to_rle()
        masks |= dict.fromkeys(missing, empty)
        yield f"{separator}{json.dumps(record['id'])}: {json.dumps(masks)}"
        separator = ", "
    yield "{}\n" if separator == "{" else "}\n"
