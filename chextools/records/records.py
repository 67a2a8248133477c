"""Streams of records that commands pass to each other: JSON Lines, one object per image.

A record that cannot be used does not end the stream: readers yield `Failure` in its place.
"""

from __future__ import annotations

import itertools
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from chextools.errors import InputError
from chextools.records.ids import near_miss
from chextools.records.record import KEYS as KEYS
from chextools.records.record import RESERVED as RESERVED
from chextools.records.record import TASK_KEYS as TASK_KEYS
from chextools.records.record import by_task as by_task
from chextools.records.record import check_id as check_id
from chextools.records.record import checked as checked
from chextools.records.record import number as number
from chextools.records.record import ordered as ordered
from chextools.records.record import patient as patient
from chextools.records.record import patient_of as patient_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that could not be used: where it stood, and why in one line."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Located:
    """A record and where it was read, for messages: `stdin:17` or `gt.json: patient1_study1_view1_frontal`."""

    where: str
    record: dict


def applied(function: Callable[[dict], dict], item: Located | Failure) -> Located | Failure:
    """The item with the function's result for its record, or the reason why there is none. A failure stays one."""
    if isinstance(item, Failure):
        return item
    try:
        return Located(item.where, function(item.record))
    except InputError as error:
        return Failure(item.where, str(error))
    except MemoryError:
        return Failure(item.where, "out of memory")


def unique(items: Iterable[Located | Failure]) -> Iterator[Located | Failure]:
    """Replace every record whose id came before by a failure that names both places, and images."""
    seen: dict[str, str] = {}
    for item in items:
        if isinstance(item, Located):
            identifier, image = item.record["id"], item.record.get("image")
            if identifier in seen:
                of = f" of {image}" if image else ""
                item = Failure(item.where, f"duplicate id {identifier!r}{of}, first at {seen[identifier]}")
            else:
                seen[identifier] = f"{item.where} ({image})" if image and image != item.where else item.where
        yield item


def peek(items: Iterable[Located | Failure], where: str) -> tuple[dict, Iterable[Located | Failure]]:
    """The first usable prediction, and all items. Raises InputError if there is none."""
    items = iter(items)
    seen: list[Located | Failure] = []
    for item in items:
        seen.append(item)
        if isinstance(item, Located):
            return item.record, itertools.chain(seen, items)
    first = next((f" ({item.where}: {item.reason})" for item in seen if isinstance(item, Failure)), "")
    reason = f"none of {len(seen)} records could be read{first}" if seen else "no records"
    raise InputError(f"{where}: {reason}")


def few(ids: Sequence[str], known: Iterable[str] = ()) -> str:
    """Ids for a message: how many, the first three, and which of those `known` the first may be meant to be."""
    near = near_miss(ids, known)
    return f"{len(ids)} CXR{'s' * (len(ids) > 1)} ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)}){near}"


def in_shard(identifier: str, shard: tuple[int, int] | None) -> bool:
    """Whether shard I of N (1-based) takes this id: a property of the id alone, however the list is cut."""
    return shard is None or zlib.crc32(identifier.encode("utf-8", "surrogatepass")) % shard[1] == shard[0] - 1


def select_shard(items: Iterable[Located | Failure], shard: tuple[int, int] | None) -> Iterator[Located | Failure]:
    """The part of the items that shard I of N takes; every shard reports what could not even be read."""
    if shard is None:
        yield from items
        return
    taken = seen = 0
    for item in items:
        seen += 1
        if isinstance(item, Failure) or in_shard(item.record["id"], shard):
            taken += 1
            yield item
    log.warning("shard %d/%d: %d of %d records", *shard, taken, seen)
