"""chex-features: the shape of what radiologists outlined, by which the study explains how well it is localised.

Definitions are those of Saporta et al. 2022 (Methods), numbers those of their scripts.

    from chextools import features
    rows = features.run(["annotations.json"], features.FeatureSettings(truth="gt.json"))
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from chextools.errors import InputError
from chextools.inputs.inputs import read_some
from chextools.inputs.truth import Truth, TruthSettings, masks_of, read_truth, size_of
from chextools.masks import borders
from chextools.masks.convex import min_area_rectangle
from chextools.masks.mask import Mask
from chextools.metrics.catalogue import FEATURES
from chextools.records.ids import near_miss
from chextools.records.record import DRAWING
from chextools.records.records import Failure, Located, few
from chextools.records.tally import Tally
from chextools.tasks import choose

log = logging.getLogger(__name__)

COLUMNS = (*FEATURES, "rec_area_ratio")


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """truth: the masks of the annotations, a path, several of several readers, or - for stdin.

    truth_settings: what files of truth do not say. tasks: those wanted; none for all.
    """

    truth: str | Sequence[str]
    truth_settings: TruthSettings | None = None
    tasks: Sequence[str] = ()


def run(
    inputs: Sequence[str], settings: FeatureSettings, *, stdin: BinaryIO | None = None, tally: Tally | None = None
) -> list[dict]:
    """A row per CXR and task of annotations (paths, or `-` for `stdin`), sorted by id; what is undefined is None.

    tally: counts what fails, and shows progress. Raises InputError where there is nothing to describe.
    """
    stdin, tally = stdin or sys.stdin.buffer, tally or Tally()
    truth = read_truth(settings.truth, stdin, settings.truth_settings)
    tally.take(truth.failures)
    names = choose(settings.tasks, truth.tasks, truth.where)
    _, items = read_some(inputs, stdin)
    measured = tally.passing(tally.progress(_measured(items, truth, names), "CXRs"))
    rows = [row for record in measured for row in record["rows"]]
    rows.sort(key=lambda row: row["id"])  # stable: tasks keep their order
    return [row | {"failed": tally.failed} for row in rows]


def shape_of(mask: Mask) -> dict[str, float | None]:
    """Area ratio, elongation, irrectangularity and rectangle ratio of a mask; None where there is none.

    Of its borders, holes' too, the one with the most points counts. Its least rectangle, through the centres of the
    pixels, gives elongation (longer over shorter side) and the ratio of the border's area to the rectangle's;
    irrectangularity is what is left of that to 1. Dots and lines have neither.
    """
    shape: dict[str, float | None] = {"area_ratio": mask.area / (mask.size[0] * mask.size[1])}
    ratio = elongation = None
    border = borders.longest(mask)
    if border is not None:
        longer, shorter = min_area_rectangle(border.hull)
        if shorter:
            elongation, ratio = longer / shorter, border.area / (longer * shorter)
    return shape | {
        "elongation": elongation,
        "irrectangularity": None if ratio is None else 1 - ratio,
        "rec_area_ratio": ratio,
    }


def _measured(items: Iterable[Located | Failure], truth: Truth, names: Sequence[str]) -> Iterator[Located | Failure]:
    """Features of each annotated CXR of the truth; the records that come back hold "rows", a row per task.

    A CXR of the truth that is not annotated follows; its outlines cannot be counted where it has a mask.
    """
    strangers: list[str] = []
    ids: set[str] = set()

    def pairs() -> Iterator[tuple[Located | Failure, dict | None]]:
        extra: set[str] = set()
        for item in items:
            if isinstance(item, Located):
                ids.add(item.record["id"])
                if item.record["id"] not in truth.records:
                    strangers.append(item.record["id"])
                    continue
                extra |= item.record.get("outlines", {}).keys() - set(truth.tasks)
            yield item, truth.records.get(item.record["id"]) if isinstance(item, Located) else None
        missing = [identifier for identifier in truth.records if identifier not in ids]
        for identifier in missing:
            yield Located(f"truth: {identifier}", {"id": identifier}), truth.records[identifier]
        if len(strangers) == len(ids):
            near = near_miss(strangers, missing)
            raise InputError(f"no annotated CXR ({strangers[0]}, ...) is in the truth ({missing[0]}, ...){near}")
        if strangers:
            log.warning("annotated but not in the truth, left out: %s", few(strangers, missing))
        if missing:
            log.warning("in the truth but not annotated: %s", few(missing))
        if extra:
            log.warning("outlined but no tasks of the truth, left out: %s", ", ".join(sorted(extra)))

    return (_described(item, known, names, truth.where) for item, known in pairs())


def _described(item: Located | Failure, truth: dict | None, names: Sequence[str], where: str) -> Located | Failure:
    if isinstance(item, Failure):
        return item
    record = item.record
    if not {"outlines", "instances", DRAWING}.intersection(record) and len(record) > 1:
        return Failure(item.where, "no outlines to count: not an annotations JSON")
    rows = []
    masks, failed = masks_of(truth, names, size_of(record), where)
    for task in names:
        row: dict = {}
        if task not in failed:
            try:
                row = _row(record, masks[task], task)
            except InputError as error:
                failed[task] = str(error)
        if task in failed:
            row = dict.fromkeys(COLUMNS) | {"reason": failed[task]}
        rows.append({"id": record["id"], "task": task} | row)
    return Located(item.where, {"rows": rows, "failed": failed})


def _row(record: dict, mask: Mask | None, task: str) -> dict:
    if mask is not None and record.get("size") and list(mask.size) != list(record["size"]):
        raise InputError(f"the mask has the size {list(mask.size)}, the annotations say {list(record['size'])}")
    count = _count(record, task)
    if mask is None or not mask.area:
        shape = {"area_ratio": 0.0} | dict.fromkeys(COLUMNS[2:])
        reason = "outlines, but an empty mask" if count else ""
    else:
        shape = shape_of(mask)
        reason = "a dot or line has no rectangle" if shape["elongation"] is None else ""
        if not count:
            count, reason = None, "a mask, but no outlines"
    return {"num_instances": count} | shape | ({"reason": reason} if reason else {})


def _count(record: dict, task: str) -> int | None:
    """How many outlines or boxes annotations have of a task; None where nobody can tell."""
    if DRAWING in record:
        return record[DRAWING].count(task)
    if "instances" in record:
        return record["instances"].get(task, 0)
    outlines = record.get("outlines", {}).get(task, [])
    if not isinstance(outlines, list):
        raise InputError("the outlines are not a list")
    return len(outlines)


def by_id(rows: Iterable[dict]) -> dict[str, dict[str, dict]]:
    """id -> task -> row."""
    found: dict[str, dict[str, dict]] = {}
    for row in rows:
        found.setdefault(row["id"], {})[row["task"]] = row
    return found
