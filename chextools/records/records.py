"""Records: JSON Lines, one UTF-8 JSON object per image, that commands pass to each other.

A record that cannot be used does not end the stream: readers yield `Failure` in its place.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from chextools import tasks
from chextools.errors import InputError
from chextools.plumbing.jsontext import dumps as dumps
from chextools.plumbing.jsontext import finite as finite
from chextools.plumbing.jsontext import loads as loads
from chextools.records.sizes import check_size

log = logging.getLogger(__name__)

# The order in which keys are written; what other tools added follows, untouched.
KEYS = (
    "id",
    "image",
    "size",
    "labels",
    "patient",
    "view",
    "split",
    "scores",
    "heatmap",
    "method",
    "model",
    "masks",
    "kind",
    "instances",
    "readers",
    "failed",
)

# Values that map a task to something: names are made canonical when read.
TASK_KEYS = ("labels", "scores", "masks", "failed", "flags", "outlines", "points")


RESERVED = ("Average", "Competition", "Overall", "img_id")  # rows and columns of result tables


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


def ordered(record: dict) -> dict:
    """The record with its keys in the order in which they are written."""
    known = {key: record[key] for key in KEYS if key in record}
    return known | {key: value for key, value in record.items() if key not in known}


def checked(record: object) -> dict:
    """The record with canonical task names. Raises InputError unless it is an object with a usable id and values."""
    if not isinstance(record, dict):
        raise InputError("not a JSON object")
    if "id" not in record:
        raise InputError('no "id" key')
    check_id(record["id"])
    if record.get("size") is not None:
        check_size(record["size"], '"size"')
    for key in TASK_KEYS:
        if key in record:
            record[key] = by_task(record[key], key)
    if not isinstance(record.get("patient") or "", str):
        raise InputError('"patient" must be a string')
    for task, score in record.get("scores", {}).items():
        if not (score is None or 0 <= number(score, "scores") <= 1):
            raise InputError(f"the score of {task} is {score}; it must be a probability in [0, 1]")
    return record


def by_task(value: object, what: str) -> dict:
    """A mapping from canonical task names; two spellings of one task are refused."""
    if not isinstance(value, dict):
        raise InputError(f'"{what}" must be an object by task')
    for name in value:
        if not name or name in RESERVED or not name.isprintable():
            raise InputError(f"{json.dumps(name)} cannot be the name of a task")
    if any(name in tasks.ALIASES for name in value):
        renamed = {tasks.canonical(name): v for name, v in value.items()}
        if len(renamed) < len(value):
            raise InputError(f'"{what}" names one task twice: {", ".join(map(repr, value))}')
        return renamed
    return value


def number(value: object, what: str) -> float:
    """A number as float, NaN for null. Raises InputError for anything else."""
    if value is None:
        return math.nan
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f'"{what}" must hold numbers or null, not {str(value)[:40]!r}')
    return number


def check_id(identifier: object) -> str:
    """An id is one plain name: never a path, so that no output file named after it can leave its folder."""
    if not isinstance(identifier, str) or not identifier:
        raise InputError(f"the id must be a string that is not empty, not {identifier!r}")
    if "/" in identifier or identifier in (".", "..") or any(ord(c) < 32 for c in identifier):
        raise InputError(f"id {json.dumps(identifier)[:80]} is not a plain name (no /, no control characters)")
    try:
        identifier.encode("utf-8", "surrogateescape")  # as in a file's name
    except UnicodeEncodeError:
        raise InputError(f"id {json.dumps(identifier)[:80]} is not a plain name (half of a character)") from None
    if len(identifier.encode("utf-8", "surrogatepass")) > 200:
        raise InputError(f"id {identifier[:40]!r}... is longer than 200 bytes")
    return identifier


def patient(record: dict) -> str:
    """Whose image it is: the record's patient, else the id's `patientNNN` part, else the whole id."""
    return record.get("patient") or patient_of(record["id"])


def patient_of(identifier: str) -> str:
    first = identifier.split("_", 1)[0]
    return first if first.startswith("patient") and first[7:].isdigit() else identifier


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
    seen = []
    for item in items:
        seen.append(item)
        if isinstance(item, Located):
            return item.record, itertools.chain(seen, items)
    reason = f"none of {len(seen)} records could be read ({seen[0].where}: {seen[0].reason})" if seen else "no records"
    raise InputError(f"{where}: {reason}")


def few(ids: Sequence[str]) -> str:
    """Ids for a message: how many, and the first three."""
    return f"{len(ids)} CXR{'s' * (len(ids) > 1)} ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)})"


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
