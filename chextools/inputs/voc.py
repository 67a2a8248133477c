"""Pascal VOC's XML, a file per image: boxes, their pixels counted from 1 and both ends included.

http://host.robots.ox.ac.uk/pascal/VOC/
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from chextools.errors import InputError
from chextools.inputs.drawn import Images
from chextools.masks.drawing import ALONE
from chextools.masks.shapes import Box, finite
from chextools.records.records import Failure
from chextools.records.sizes import check_size

_ENDS = ("xmin", "ymin", "xmax", "ymax")


def records_of(root: Element, name: str) -> Iterator[dict | Failure]:
    """The record of an image."""
    images = Images(name)
    image = images.image((root.findtext("filename") or "").replace("\\", "/").rpartition("/")[2])
    height, width = (root.findtext(f"size/{side}") or "0" for side in ("height", "width"))
    if height.strip() not in ("", "0"):
        images.sized(image, check_size((int(finite(height)), int(finite(width)))))
    images.seen(image, ALONE)
    for number, part in enumerate(root.iter("object"), 1):
        try:
            task = images.look_for(part.findtext("name"))
        except InputError as error:
            yield Failure(f"object {number}", str(error))
            continue
        with images.failing(image, task, f"object {number}"):
            left, top, right, bottom = (finite(part.findtext(f"bndbox/{end}")) for end in _ENDS)
            images.add(image, ALONE, task, Box.of(left - 1, top - 1, right - left + 1, bottom - top + 1))
    yield from images.records()
