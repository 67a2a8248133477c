"""Label Studio's JSON and JSON-MIN exports: rectangles, polygons, ellipses, brushes; several people's annotations.

https://labelstud.io/guide/export
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from chextools.errors import InputError
from chextools.inputs.drawn import Images
from chextools.masks.drawing import ALONE
from chextools.masks.mask import Mask
from chextools.masks.shapes import Box, Ellipse, Painted, Polygon, Shape, finite, rows_mask
from chextools.records.records import Failure
from chextools.records.sizes import check_size, shortened

_KINDS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels")
_MOST = 2**24  # bytes of a brush
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # is put before the name of a file that somebody uploaded


def is_label_studio(document: object) -> bool:
    if not isinstance(document, list) or not document or not isinstance(document[0], dict):
        return False
    first = document[0]
    if isinstance(first.get("data"), dict):
        return "annotations" in first or "completions" in first
    return "annotator" in first and any(isinstance(value, str) for value in first.values())


def records_of(document: list, name: str) -> Iterator[dict | Failure]:
    """A record per image; who annotated it are its readers, where there are several."""
    images = Images(name)
    for number, task in enumerate(document, 1):
        try:
            if not isinstance(task, dict):
                raise InputError("not an object")
            yield from _add_minimal(images, task) if "data" not in task else _add(images, task)
        except InputError as error:
            yield Failure(f"Label Studio: task {number}", str(error))
    yield from images.records()


def _add(images: Images, task: dict) -> Iterator[Failure]:
    image = images.image(_name_of(task["data"]))
    done = task.get("annotations", task.get("completions")) or []
    for annotation in done if isinstance(done, list) else []:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        person = annotation.get("completed_by")
        if isinstance(person, dict):
            person = person.get("email") or person.get("id")
        reader = ALONE if person is None else str(person)[:100]
        images.seen(image, reader)
        results = annotation.get("result") or []
        for number, result in enumerate(results if isinstance(results, list) else [], 1):
            try:
                _add_result(images, image, reader, result, f"region {number}")
            except InputError as error:
                yield Failure(f"Label Studio: {image}: region {number}", str(error))


def _add_minimal(images: Images, task: dict) -> Iterator[Failure]:
    """A task of the export JSON-MIN, which holds only what is drawn."""
    image = images.image(_name_of(task))
    reader = str(task.get("annotator", ALONE))[:100]
    images.seen(image, reader)
    for values in task.values():
        for number, value in enumerate(values if isinstance(values, list) else [], 1):
            if isinstance(value, dict) and (kind := next((k for k in _KINDS if k in value), None)):
                try:
                    _add_result(images, image, reader, value | {"type": kind, "value": value}, f"region {number}")
                except InputError as error:
                    yield Failure(f"Label Studio: {image}: region {number}", str(error))


def _name_of(data: dict) -> str:
    """The image's file: of the values the one called image, else one that looks like a path."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    found = next((value for key, value in texts.items() if "image" in key.lower() or key.lower() == "img"), None)
    found = found or next((value for value in texts.values() if "/" in value or "." in value), None)
    if found is None:
        raise InputError("names no image")
    parts = urlsplit(found)
    path = parse_qs(parts.query).get("d", [parts.path])[0]  # local files are served as ?d=PATH
    base = unquote(path).replace("\\", "/").rpartition("/")[2]
    return _UPLOADED.sub("", base, count=1) if "upload" in path and _UPLOADED.match(base) else base


def _add_result(images: Images, image: str, reader: str, result: object, where: str) -> None:
    """A region, of each of its labels; what is no region, such as a choice, is passed over."""
    if not isinstance(result, dict) or str(result.get("type", "")).lower() not in _KINDS:
        return
    kind, value = str(result["type"]).lower(), result.get("value")
    if not isinstance(value, dict):
        raise InputError("no value")
    sides: list = [result.get("original_height"), result.get("original_width")]
    size = check_size(sides)
    images.sized(image, size)
    labels = value.get(kind)
    for label in labels if isinstance(labels, list) else []:
        task = images.look_for(label)
        with images.failing(image, task, where):
            images.add(image, reader, task, _shape(kind, value, size))


def _shape(kind: str, value: dict, size: tuple[int, int]) -> Shape:
    """Coordinates are in percent of the image."""
    down, across = size[0] / 100, size[1] / 100
    if kind == "brushlabels":
        if value.get("format") not in (None, "rle"):
            raise InputError(f"a brush of format {shortened(value['format'])}")
        return Painted(brush(value.get("rle"), size))
    if kind == "polygonlabels":
        points = value.get("points")
        if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
            raise InputError("a polygon must be a list of points [x, y]")
        return Polygon.of([[finite(x) * across, finite(y) * down] for x, y in points])
    x, y = finite(value.get("x")) * across, finite(value.get("y")) * down
    turn = finite(value.get("rotation") or 0)
    if kind == "ellipselabels":
        return Ellipse.of(x, y, finite(value.get("radiusX")) * across, finite(value.get("radiusY")) * down, turn)
    width, height = finite(value.get("width")) * across, finite(value.get("height")) * down
    if not turn:
        return Box.of(x, y, width, height)
    angle = np.deg2rad(turn)  # about its upper left corner
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ [
        [np.cos(angle), np.sin(angle)],
        [-np.sin(angle), np.cos(angle)],
    ]
    return Polygon.of((corners + [x, y]).tolist(), as_coco=True)


def brush(codes: object, size: tuple[int, int]) -> Mask:
    """The mask of a brush: bytes of a bit stream of runs, of an RGBA image row by row, whose alpha counts.

    The stream (thi.ng's rle-pack): 32 bits how many values, 5 the bits of a value less 1, 4 times 4 the bits of a run's
    length less 1; then runs: a bit whether one value is repeated, 2 bits which of the lengths, the length less 1, and
    the value, or as many values. Raises InputError where it is not of this size, or cut.
    """
    if not isinstance(codes, list) or not codes:
        raise InputError("a brush without rle")
    try:
        data = bytes(codes)
    except (TypeError, ValueError):
        raise InputError("a brush's rle must be bytes, numbers from 0 to 255") from None
    if len(data) > _MOST:
        raise InputError(f"a brush of more than {_MOST} bytes")
    height, width = size
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    place = 0

    def take(length: int) -> int:
        nonlocal place
        place += length
        if place > len(bits):
            raise InputError("a brush that is cut")
        return int(bits[place - length : place], 2)

    count, word = take(32), take(5) + 1
    if count != 4 * height * width:
        raise InputError(f"a brush of {count} values in an image of {height} x {width} with four channels")
    lengths = [take(4) + 1 for _ in range(4)]
    starts, ends = [], []
    done = 0
    while done < count:
        is_repeated = take(1)
        run = take(lengths[take(2)]) + 1
        for length in (run,) if is_repeated else (1,) * run:
            if take(word):
                starts.append(done)
                ends.append(done + length)
            done += length
    # Of four values, alpha is the last: a run that covers it covers the pixel.
    return rows_mask(np.array(starts, np.int64) // 4, np.minimum(ends, count).astype(np.int64) // 4, size)
