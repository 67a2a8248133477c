"""LabelMe's JSON, a file per image: polygons, rectangles, circles and masks. https://github.com/wkentaro/labelme"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator

from chextools.errors import InputError
from chextools.inputs.drawn import Images
from chextools.inputs.mask_images import mask_in
from chextools.masks.drawing import ALONE
from chextools.masks.shapes import Box, Ellipse, Painted, Polygon, Shape, finite
from chextools.records.records import Failure
from chextools.records.sizes import check_size, shortened


def is_labelme(document: object) -> bool:
    return isinstance(document, dict) and isinstance(document.get("shapes"), list) and "imagePath" in document


def records_of(document: dict, name: str) -> Iterator[dict | Failure]:
    """The record of an image. Lines and points have no area, and are failures."""
    images = Images(name)
    image = images.image(_base(document["imagePath"]))
    size = None
    if document.get("imageHeight") is not None and document.get("imageWidth") is not None:
        size = check_size((document["imageHeight"], document["imageWidth"]))
        images.sized(image, size)
    images.seen(image, ALONE)
    for number, shape in enumerate(document["shapes"], 1):
        if not isinstance(shape, dict):
            yield Failure(f"shape {number}", "not an object")
            continue
        try:
            task = images.look_for(shape.get("label"))
        except InputError as error:
            yield Failure(f"shape {number}", str(error))
            continue
        with images.failing(image, task, f"shape {number}"):
            images.add(image, ALONE, task, _shape(shape, size))
    yield from images.records()


def _base(path: object) -> object:
    """LabelMe's paths are relative to the JSON: only the file's name tells the image."""
    return path.replace("\\", "/").rpartition("/")[2] if isinstance(path, str) else path


def _shape(shape: dict, size: tuple[int, int] | None) -> Shape:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind == "polygon":
        return Polygon.of(points)
    if kind not in ("rectangle", "circle", "mask"):
        raise InputError(f"a {shortened(kind)} has no area")
    if not isinstance(points, list) or len(points) != 2 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise InputError(f"a {kind} needs two points")
    (x0, y0), (x1, y1) = ((finite(x), finite(y)) for x, y in points)
    if kind == "circle":  # its centre, and a point of it
        radius = math.hypot(x1 - x0, y1 - y0)
        return Ellipse.of(x0, y0, radius, radius)
    if kind == "rectangle":
        return Box.of(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
    try:
        data = base64.b64decode(shape.get("mask") or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise InputError("the mask is no base64") from None
    if size is None:
        raise InputError("a mask, but no imageHeight and imageWidth")
    return Painted(mask_in(io.BytesIO(data), "the mask"), int(x0), int(y0), image=size)
