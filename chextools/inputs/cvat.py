"""CVAT's XML 1.1 for images: boxes, polygons, ellipses and masks. https://docs.cvat.ai/docs/other/xml_format"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np

from chextools.errors import InputError
from chextools.inputs.drawn import Images
from chextools.masks.drawing import ALONE
from chextools.masks.shapes import Box, Ellipse, Painted, Polygon, Shape, finite, rows_mask
from chextools.records.records import Failure
from chextools.records.sizes import check_size

log = logging.getLogger(__name__)

_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


def records_of(root: Element, name: str) -> Iterator[dict | Failure]:
    """A record per image, also of those on which nothing is drawn. Raises InputError for annotations of a video."""
    if root.find("track") is not None:
        raise InputError("CVAT's annotations of a video: export them as 'CVAT for images'")
    images = Images(name)
    without = 0
    for number, part in enumerate(root.iter("image"), 1):
        try:
            size = check_size((_int(part.get("height")), _int(part.get("width"))))
            image = images.image(part.get("name"))
            images.sized(image, size)
            images.seen(image, ALONE)
            for place, drawn in enumerate(part, 1):
                if drawn.tag not in _SHAPES:
                    without += drawn.tag in _WITHOUT_AREA
                    continue
                task = images.look_for(drawn.get("label"))
                with images.failing(image, task, f"{drawn.tag} {place}"):
                    images.add(image, ALONE, task, _SHAPES[drawn.tag](drawn, size))
        except InputError as error:
            yield Failure(f"image {number}", str(error))
    if without:
        log.warning("%s: %d lines, points or cuboids have no area: left out", name, without)
    yield from images.records()


def _int(text: object) -> int:
    return int(finite(text))


def _box(part: Element, _: tuple[int, int]) -> Shape:
    left, top, right, bottom = (finite(part.get(end)) for end in ("xtl", "ytl", "xbr", "ybr"))
    turn = np.deg2rad(finite(part.get("rotation") or 0))
    box = Box.of(left, top, right - left, bottom - top)
    if not turn:
        return box
    middle = np.array([(left + right) / 2, (top + bottom) / 2])  # about its centre
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) - middle
    turned = corners @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + middle
    return Polygon.of(turned.tolist(), as_coco=True)


def _polygon(part: Element, _: tuple[int, int]) -> Shape:
    pairs = [pair.split(",") for pair in (part.get("points") or "").split(";") if pair.strip()]
    return Polygon.of(pairs)


def _ellipse(part: Element, _: tuple[int, int]) -> Shape:
    x, y, across, down = (part.get(key) for key in ("cx", "cy", "rx", "ry"))
    return Ellipse.of(x, y, across, down, part.get("rotation") or 0)


def _mask(part: Element, size: tuple[int, int]) -> Shape:
    """Lengths of alternating runs, the first outside, row by row in the mask's own box."""
    left, top, width, height = (_int(part.get(key)) for key in ("left", "top", "width", "height"))
    own = check_size((height, width), "a mask's size")
    words = (part.get("rle") or "").replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) < 11 for word in words):
        raise InputError("a mask's rle must be lengths of runs")
    counts = np.array(words, np.int64)
    if counts.sum() != height * width:
        raise InputError(f"a mask's runs add up to {counts.sum()}, but its box has {height * width} pixels")
    bounds = np.cumsum(counts)[: len(counts) // 2 * 2]
    return Painted(rows_mask(bounds[0::2], bounds[1::2], own), left, top, image=size)


_SHAPES = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}
