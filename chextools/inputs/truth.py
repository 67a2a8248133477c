"""What radiologists outlined, in whatever form it comes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from chextools import tasks
from chextools.errors import InputError
from chextools.masks.mask import Mask
from chextools.records.records import Failure, Located


@dataclass
class Truth:
    """What radiologists outlined: records by id, their tasks in the study's order, and what could not be read."""

    records: dict[str, dict]
    tasks: list[str]
    failures: list[Failure]


def read_truth(items: Iterable[Located | Failure], where: str) -> Truth:
    """The truth in records with masks or outlines. Raises InputError if there is none."""
    found: dict[str, dict] = {}
    failures = []
    for item in items:
        if isinstance(item, Located) and ("masks" in item.record or "outlines" in item.record):
            found[item.record["id"]] = item.record
        elif isinstance(item, Located):
            failures.append(Failure(item.where, 'neither "masks" nor outlines'))
        else:
            failures.append(item)
    if not found:
        reason = f" ({failures[0].where}: {failures[0].reason})" if failures else ""
        raise InputError(f"{where}: no truth{reason}")
    names = itertools.chain.from_iterable(record.get("masks", record.get("outlines")) for record in found.values())
    return Truth(found, tasks.study_order(names), failures)


def masks_of(record: dict | None, names: Iterable[str]) -> tuple[dict[str, Mask | None], dict[str, str]]:
    """`mask_of` of each task, and the reasons of those that failed or are broken."""
    masks, failed = {}, {}
    encoded = {task: rle for task, rle in (record or {}).get("masks", {}).items() if task in names}
    if record is not None and not record.get("failed"):
        with contextlib.suppress(InputError):  # one is broken: then one by one, to say which
            masks = dict(zip(encoded, Mask.from_rles(list(encoded.values()))))
    for task in names:
        if task not in masks:
            try:
                masks[task] = mask_of(record, task)
            except InputError as error:
                failed[task] = str(error)
    return masks, failed


def mask_of(record: dict | None, task: str) -> Mask | None:
    """The task's mask; None where there is none. Raises InputError for one that failed or is broken."""
    if record is None:
        return None
    if task in record.get("failed", {}):
        raise InputError(record["failed"][task])
    if task in record.get("masks", {}):
        return Mask.from_rle(record["masks"][task])
    if "outlines" in record:  # an image's outlines name the tasks that are there; the others are empty
        return Mask.from_polygons(tuple(record["size"]), record["outlines"].get(task, ()))
    return None
