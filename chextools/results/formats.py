"""Records with masks in the formats that other tools read."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from chextools import tasks
from chextools.masks.mask import Mask
from chextools.plumbing import files
from chextools.plumbing.jsontext import dumps

log = logging.getLogger(__name__)


def write(
    records: Iterable[dict], output_format: str, wanted: Collection[str] | None = None, like: str | None = None
) -> Iterator[str]:
    """Text of the records, piece by piece: JSON Lines, the study's {id: {task: RLE}}, a COCO data set or its results,
    or a CSV of Kaggle's absolute run lengths, a row per image and task. Masks as PNG are files: `write_png`.

    like: a COCO data set whose numbers results take; None for those of ours.
    wanted: the tasks that the study's format must hold for every image; None for the study's ten.
    """
    if output_format == "jsonl":
        return (dumps(record) + "\n" for record in records)
    records = (record for record in records if record.get("size"))  # of a size unknown, nothing could be drawn
    if output_format == "csv-rle":
        return _csv_of_runs(records)
    if output_format == "chexlocalize":
        return _chexlocalize(records, tasks.STUDY if wanted is None else wanted)
    from chextools.inputs import coco  # here, as is what other formats need: it costs start-up

    if output_format == "coco-results":
        return _listed(coco.results_of(records, like))
    return iter([dumps(coco.document_of(records)) + "\n"])


def _csv_of_runs(records: Iterable[dict]) -> Iterator[str]:
    """An empty mask has no runs; a task that failed has no row."""
    import csv
    import io

    from chextools.inputs.runs_csv import COLUMNS
    from chextools.masks.shapes import text_of_runs

    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(COLUMNS)
    for record in records:
        for task, rle in record.get("masks", {}).items():
            mask = Mask.from_rle(rle)
            rows.writerow([record["id"], *mask.size, task, text_of_runs(mask)])
        yield stream.getvalue()
        stream.seek(0)
        stream.truncate()
    yield stream.getvalue()


def write_png(records: Iterable[dict], folder: str, force: bool = False) -> Iterator[tuple[dict, list[str]]]:
    """Write the masks of records as PNG of 0 and 255, TASK/ID.png in a folder: each record with its files.

    Raises InputError for a file that exists, unless `force`.
    """
    from PIL import Image, PngImagePlugin

    from chextools.inputs import mask_images

    for record in records:
        paths = []
        for task, rle in record.get("masks", {}).items():
            path = Path(folder, mask_images.folder_of(task), f"{record['id']}.png")
            path.parent.mkdir(exist_ok=True)
            stamp = PngImagePlugin.PngInfo()
            stamp.add_text(*mask_images.stamp_of(record["id"], task))
            with files.atomic(path, force) as stream:
                Image.fromarray(Mask.from_rle(rle).to_array()).convert("L").save(stream, "PNG", pnginfo=stamp)
            paths.append(str(path))
        yield record, paths


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
