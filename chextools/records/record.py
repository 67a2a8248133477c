"""The record: every key that a command writes or looks at, its type, and the one check of what comes from outside."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypedDict

from chextools import tasks
from chextools.errors import InputError, quoted
from chextools.records.sizes import check_size, is_spacing

DRAWING = "drawing"  # a key in memory, never written: what people drew, until its size is known (masks.drawing)
RESERVED = ("Average", "Competition", "Overall", "img_id")  # rows and columns of result tables


class Rle(TypedDict):
    """A mask in COCO's run-length encoding."""

    size: list[int]
    counts: str | list[int]


class Record(TypedDict, total=False):
    """One image. Keys are written in this order; what other tools added follows, untouched.

    A key `by task` maps canonical names to values. An id is the only key that must be there.
    """

    id: str  # `check_id`
    image: str  # path
    size: list[int]  # [height, width] in pixels of the original image
    labels: dict[str, int]  # by task: 1, 0, -1
    patient: str
    view: str
    split: str
    scores: dict[str, float | None]  # by task: probability
    heatmap: str  # path, or FOLDER#ID
    method: str
    model: str  # sha256 of the checkpoints
    masks: dict[str, Rle]  # by task
    kind: str | dict[str, str]  # "box" where masks were drawn as boxes, by task where only some were
    instances: dict[str, int]  # by task: how many were drawn
    readers: dict[str, dict[str, Rle]]  # masks of several, by reader and task
    failed: dict[str, str]  # by task: why it could not be done
    # of chex-prep
    sex: str
    age: int | str
    projection: str
    spacing: list[float]  # [height, width] of a pixel of the original image in mm
    # of chex-predict and chex-cam
    logits: dict[str, float | None]  # by task
    flags: dict[str, str]  # by task: "flat"
    delta: dict[str, float | None]  # by task: how far a map is from complete
    absorbed: dict[str, float | None]  # by task: relevance that is not in the map
    sign: str
    probes: dict[str, Any]  # of chex-probe, by task
    # of other forms of truth and predictions, read but not written
    outlines: dict[str, list[list[list[float]]]]  # by task: polygons of [x, y]
    points: dict[str, list[list[float]]]  # by task: [x, y]
    # of chex-eval --per-image and chex-view
    iou: dict[str, float | None]  # by task
    hit: dict[str, float | None]  # by task
    views: dict[str, dict[str, Any]]  # by task


KEYS = tuple(Record.__annotations__)


def ordered(record: dict) -> dict:
    """The record with its keys in the order in which they are written."""
    known = {key: record[key] for key in KEYS if key in record}
    return known | {key: value for key, value in record.items() if key not in known}


def checked(record: object) -> dict:
    """The record with values of the types that `Record` says, and canonical task names; a null path or size is none.

    Raises InputError for anything else. But broken points cost their task, not the record, and so do broken masks and
    outlines, which are decoded where they are used.
    """
    if not isinstance(record, dict):
        raise InputError("not a JSON object")
    if "id" not in record:
        raise InputError('no "id" key')
    check_id(record["id"])
    for key in _OPTIONAL:
        if key in record and record[key] is None:
            del record[key]
    for key, check in _CHECKS.items():
        if key in record:
            record[key] = check(record[key], key)
    if "outlines" in record and "size" not in record:
        raise InputError('"outlines" need the image\'s "size"')
    problems = {task: _point_problem(points) for task, points in record.get("points", {}).items()}
    if failed := {task: problem for task, problem in problems.items() if problem}:
        record["points"] = {task: points for task, points in record["points"].items() if task not in failed}
        record["failed"] = record.get("failed", {}) | failed
    return record


def by_task(value: object, what: str) -> dict:
    """A mapping from canonical task names; two spellings of one task are refused."""
    if not isinstance(value, dict):
        raise InputError(f'"{what}" must be an object by task, not {quoted(value)}')
    for name in value:
        if not name or name in RESERVED or not name.isprintable() or len(name) > _MOST_LETTERS:
            raise InputError(f"{quoted(name)} cannot be the name of a task")
    if any(name in tasks.ALIASES for name in value):
        renamed = {tasks.canonical(name): v for name, v in value.items()}
        if len(renamed) < len(value):
            twice = next(name for name in value if name != tasks.canonical(name) and tasks.canonical(name) in value)
            raise InputError(f'"{what}" names one task twice: {twice!r}, {tasks.canonical(twice)!r}')
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
        raise InputError(f'"{what}" must hold numbers or null, not {quoted(value)}')
    return number


def check_id(identifier: object) -> str:
    """An id is one plain name: never a path, so that no output file named after it can leave its folder."""
    if not isinstance(identifier, str) or not identifier:
        raise InputError(f"the id must be a string that is not empty, not {quoted(identifier)}")
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


# The checks, each of a value and its key, that return the value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise InputError(f'"{key}" must be a string, not {quoted(value)}')
    return value


def _path(value: object, key: str) -> str:
    if not _text(value, key) or "\0" in str(value):
        raise InputError(f'"{key}" is {quoted(value)}, not a path')
    return str(value)


def _size(value: Any, key: str) -> list[int]:
    return list(check_size(value, f'"{key}"'))


def _spacing(value: Any, key: str) -> list[float]:
    sides = [number(side, key) for side in value] if isinstance(value, list) else []
    if len(sides) != 2 or not all(map(is_spacing, sides)):
        raise InputError(f'"{key}" is {quoted(value)}, not [height, width] of a pixel in mm')
    return sides


def _readers(value: object, key: str) -> dict[str, dict]:
    if not isinstance(value, dict) or not value or not all(isinstance(masks, dict) for masks in value.values()):
        raise InputError(f'"{key}" is {quoted(value)}, not masks by reader and task')
    return {reader: by_task(masks, key) for reader, masks in value.items()}


def _kind(value: object, key: str) -> str | dict[str, str]:
    return value if isinstance(value, str) else _texts(value, key)


def _instances(value: object, key: str) -> dict[str, int]:
    found = by_task(value, key)
    for task, count in found.items():
        if type(count) is not int or count < 0:
            raise InputError(f'"{key}" of {task} is {quoted(count)}, not a whole number')
    return found


def _texts(value: object, key: str) -> dict[str, str]:
    found = by_task(value, key)
    for task, said in found.items():
        if not isinstance(said, str):
            raise InputError(f'"{key}" of {task} is {quoted(said)}, not text')
    return found


def _scores(value: object, key: str) -> dict[str, float | None]:
    found = by_task(value, key)
    for task, score in found.items():
        if not (score is None or 0 <= number(score, key) <= 1):
            raise InputError(f"the score of {task} is {score:g}; it must be a probability in [0, 1]")
    return found


def _labels(value: object, key: str) -> dict:
    found = by_task(value, key)
    for task, label in found.items():
        if isinstance(label, (dict, list)):
            raise InputError(f'"{key}" of {task} is {quoted(label)}; a label is 1, 0, -1 or blank')
    return found


def _point_problem(points: object) -> str | None:
    """What is wrong with what should be a list of points."""
    if not isinstance(points, list):
        return f"{quoted(points)} is not a list of points [x, y]"
    bad = next((p for p in points if not (isinstance(p, list) and len(p) == 2 and all(map(_is_coordinate, p)))), None)
    odd = bad is not None or None in points
    return f"{quoted(bad)} is not a point [x, y]" if odd else None


def _is_coordinate(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_FARTHEST < value < _FARTHEST


_MOST_LETTERS = 1000  # of a task's name
_FARTHEST = 2**31  # of a point from an image's corner, in pixels
_OPTIONAL = frozenset(
    "image size patient view split heatmap spacing outlines points kind instances readers".split()
)  # null is as if they were not there

_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "image": _path,
    "size": _size,
    "labels": _labels,
    "patient": _text,
    "scores": _scores,
    "heatmap": _path,
    "spacing": _spacing,
    "masks": by_task,
    "kind": _kind,
    "instances": _instances,
    "readers": _readers,
    "failed": _texts,
    "flags": _texts,
    "outlines": by_task,
    "points": by_task,
}

# Values that map a task to something
TASK_KEYS = ("labels", "scores", "masks", "failed", "flags", "outlines", "points")
