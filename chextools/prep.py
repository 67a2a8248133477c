"""chex-prep: X-rays to image records, checked, measured and split; and to packs."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from chextools.errors import InputError, MissingExtra
from chextools.inputs.label_columns import GROUP
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.xrays import images
from chextools.xrays.packs import Writer

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class PrepSettings:
    """What is done with each image.

    size: side in pixels of the images to pack; None for no pack.
    split: the shares of `SPLITS`, adding up to 1; None leaves records as they are. Images of a patient stay together,
    or those of a group where records have the key `GROUP`.
    seed: of the split.
    decode: whether to look for all damage: to decode images that are not packed, and to find JPEGs that were cut.
    """

    size: int | None = None
    split: Sequence[float] | None = None
    seed: int = 0
    decode: bool = False


@dataclass(frozen=True)
class _Task:
    """An item, its place in the list, and what the pack that is resumed knows of it."""

    item: Located | Failure
    at: int
    entry: dict | None = None


@dataclass(frozen=True)
class _Done:
    item: Located | Failure
    at: int
    frames: int = 1
    pixels: np.ndarray | None = None
    grouped: bool = False


def prepare(
    items: Iterable[tuple[int, Located | Failure]], settings: PrepSettings, jobs: int = 1, pack: Writer | None = None
) -> Iterator[Located | Failure]:
    """Image records with "size" and "split", in order, for (place in the list, record); into the pack as they come.

    A record whose image is not there, is none or is not whole is a failure. Raises MissingExtra at the first image that
    needs it. Logs the rate at the end.
    """
    start, count, strangers = time.perf_counter(), 0, 0
    held = set(pack.done) if pack else set()

    def tasks() -> Iterator[_Task]:
        for at, item in items:
            identifier = item.record["id"] if isinstance(item, Located) else ""
            held.discard(identifier)
            yield _Task(item, at, pack.entry(identifier) if pack else None)

    for result in ordered_map(partial(_prepare, settings=settings), tasks(), jobs):
        item = result.item
        if isinstance(item, Located):
            count += 1
            strangers += (
                not result.grouped
                and not item.record.get("patient")
                and records.patient_of(item.record["id"]) == item.record["id"]
            )
            if result.frames > 1:
                log.warning("%s: %d frames; the first counts", item.record["image"], result.frames)
            if result.pixels is not None and pack:
                pack.add(result.at, item.record, result.pixels)
        yield item
    if pack:
        pack.finish()
    if held and pack:
        log.warning("%s: the pack also holds %s not in this list", pack.part.folder, records.few(sorted(held)))
    if settings.split and strangers:
        log.warning("%d images of no known patient: each is split on its own", strangers)
    if count:
        seconds = time.perf_counter() - start
        log.warning("%d images in %.1f s, %.1f images a second", count, seconds, count / seconds)


def placed(
    items: Iterable[Located | Failure], shard: tuple[int, int] | None = None
) -> Iterator[tuple[int, Located | Failure]]:
    """(place in the list, item) of what a shard takes of the items; the place is that in the whole list."""
    places: dict[str, int] = {}

    def noted() -> Iterator[Located | Failure]:
        for at, item in enumerate(items):
            if isinstance(item, Located) and records.in_shard(item.record["id"], shard):
                places[item.record["id"]] = at
            yield item

    for item in records.select_shard(noted(), shard):
        yield places.pop(item.record["id"]) if isinstance(item, Located) else -1, item


def split_of(patient: str, shares: Sequence[float], seed: int) -> str:
    """On which side a patient is: a property of the patient and the seed alone, however the list is cut."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in zip(SPLITS, shares):
        position -= share
        if position < 0:
            return name
    return next(name for name, share in reversed(list(zip(SPLITS, shares))) if share)  # shares' sum was rounded down


def _prepare(task: _Task, settings: PrepSettings) -> _Done:
    item = task.item
    if isinstance(item, Failure):
        return _Done(item, task.at)
    record = item.record
    grouped = GROUP in record
    try:
        if task.entry:
            return _Done(Located(item.where, _again(record, task.entry["record"], settings)), task.at, grouped=grouped)
        pixels = None
        if settings.size:
            header, pixels = images.decode(record["image"], settings.size, settings.decode)
        else:
            header = images.check(record["image"], settings.decode)
        record = _described(record, header.about | {"size": list(header.size)}, settings)
        return _Done(Located(item.where, record), task.at, header.frames, pixels, grouped)
    except MissingExtra:
        raise
    except InputError as error:
        reason = str(error)
        if item.where == record["image"]:
            reason = reason.removeprefix(f"{item.where}: ")
        return _Done(Failure(item.where, reason), task.at)


def _described(record: dict, found: dict, settings: PrepSettings) -> dict:
    """The record with what its file says of it: the size always, the rest where nothing is known."""
    record = found | record | {"size": found["size"]}
    group = record.pop(GROUP, None)
    if settings.split:
        record["split"] = split_of(group or records.patient(record), settings.split, settings.seed)
    record.pop("pack", None)  # whose pixels were read from their file
    return records.ordered(record)


def _again(record: dict, packed: dict, settings: PrepSettings) -> dict:
    """The packed record. Raises InputError unless it is what the list says today."""
    about = {k: v for k, v in packed.items() if k not in record and k != "split"}
    now = _described(record, about | {"size": packed["size"]}, settings)
    if now != packed:
        other = next((k for k in {**now, **packed} if now.get(k) != packed.get(k)), "")
        raise InputError(f"packed with another {other!r}: {packed.get(other)!r}, now {now.get(other)!r}")
    return packed
