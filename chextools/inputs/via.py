"""VGG Image Annotator's projects, JSON and CSV: polygons, rectangles, circles, ellipses; without an image's size.

https://www.robots.ox.ac.uk/~vgg/software/via/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from chextools.errors import InputError
from chextools.inputs.drawn import Images, Row, Table
from chextools.masks.drawing import ALONE
from chextools.masks.shapes import Box, Ellipse, Polygon, Shape
from chextools.plumbing import jsontext
from chextools.records.records import Failure
from chextools.records.sizes import shortened

_NAMES = ("label", "labels", "class", "name", "type", "finding", "findings", "pathology", "category", "disease")


def is_via(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    files = document.get("_via_img_metadata", document)
    first = next(iter(files.values()), None) if isinstance(files, dict) else None
    return "_via_img_metadata" in document or (isinstance(first, dict) and "filename" in first and "regions" in first)


def records_of(document: dict, name: str) -> Iterator[dict | Failure]:
    """A record per image of a project or an export."""
    files = document.get("_via_img_metadata", document)
    if not isinstance(files, dict):
        raise InputError("VIA: images must be an object")
    images = Images(name)
    for key, file in files.items():
        try:
            if not isinstance(file, dict):
                raise InputError("not an object")
            image = images.image(file.get("filename"))
            images.seen(image, ALONE)
            regions = file.get("regions") or []
            regions = list(regions.values()) if isinstance(regions, dict) else regions
            for number, region in enumerate(regions, 1):
                if not isinstance(region, dict):
                    raise InputError(f"region {number} is no object")
                _add(images, image, region.get("shape_attributes"), region.get("region_attributes"), f"region {number}")
        except InputError as error:
            yield Failure(f"VIA: {shortened(key)}", str(error))
    yield from images.records()


def reader_of(header: Sequence[str]) -> Callable[[Table], Iterator[dict | Failure]] | None:
    """The reader of VIA's CSV; None where the columns, in lower case, are not its."""
    return _csv if {"filename", "region_shape_attributes", "region_attributes"} <= set(header) else None


def _csv(table: Table) -> Iterator[dict | Failure]:
    images = Images(table.name)

    def add(row: Row) -> None:
        image = images.image(row["filename"])
        images.seen(image, ALONE)
        shape, said = (jsontext.loads(row[key] or "{}") for key in ("region_shape_attributes", "region_attributes"))
        if shape:
            _add(images, image, shape, said, images.where)

    yield from images.read(table, add)


def _add(images: Images, image: str, shape: object, said: object, where: str) -> None:
    """A region, of each finding that its attributes name."""
    found = _findings(said)
    if not found:
        raise InputError(f"{where} does not say what it is: no attribute such as label")
    for name in found:
        task = images.look_for(name)
        with images.failing(image, task, where):
            images.add(image, ALONE, task, _shape(shape))


def _findings(said: object) -> list[str]:
    """What a region's attributes name: the one there is, or the one called label or the like; boxes ticked."""
    if not isinstance(said, Mapping) or not said:
        return []
    by_name = {str(key).lower(): value for key, value in said.items()}
    value = next((by_name[name] for name in _NAMES if name in by_name), next(iter(by_name.values())))
    if isinstance(value, Mapping):
        return [str(name) for name, ticked in value.items() if ticked]
    return [value] if isinstance(value, str) and value.strip() else []


def _shape(shape: object) -> Shape:
    if not isinstance(shape, Mapping):
        raise InputError("no shape")
    kind, get = shape.get("name"), shape.get
    if kind == "rect":
        return Box.of(get("x"), get("y"), get("width"), get("height"))
    if kind == "circle":
        return Ellipse.of(get("cx"), get("cy"), get("r"), get("r"))
    if kind == "ellipse":
        turn = get("theta") or 0.0  # in radians
        return Ellipse.of(get("cx"), get("cy"), get("rx"), get("ry"), turn * 57.29577951308232)
    if kind != "polygon":
        raise InputError(f"a {shortened(kind)} has no area")
    xs, ys = get("all_points_x"), get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        raise InputError("a polygon needs as many x as y")
    return Polygon.of([list(point) for point in zip(xs, ys)])
