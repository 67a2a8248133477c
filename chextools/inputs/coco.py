"""COCO's object-detection JSON as records, and back. https://cocodataset.org/#format-data

An annotation that cannot be used costs only its own category of its own image.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator

from chextools.errors import InputError
from chextools.inputs import drawn
from chextools.masks.drawing import ALONE, Drawing
from chextools.masks.mask import Mask, union
from chextools.masks.shapes import Box, Painted, Polygon, Shape, draw, outside
from chextools.plumbing import jsontext, streams
from chextools.records import records
from chextools.records.records import Failure
from chextools.records.sizes import check_size, shortened
from chextools.tasks import CHEXPERT, canonical

log = logging.getLogger(__name__)


def records_of(document: object) -> Iterator[dict | Failure]:
    """One record per image, and a failure per annotation of an image or category that is not listed.

    A category without an annotation in an image has an empty mask there. An annotation without outline is its box. The
    id is the image's "record" key, which `document_of` writes, else that of its file name.
    """
    if isinstance(document, list):
        raise InputError("COCO results name neither images nor categories; give the whole data set, with both")
    images, annotations, categories = (_listed(document, key) for key in ("images", "annotations", "categories"))
    try:
        names = {category["id"]: canonical(str(category["name"])) for category in categories}
        if any(names[category["id"]] != canonical(str(category["name"])) for category in categories):
            raise InputError("COCO: two categories have one id")
        by_image: dict[object, list[dict]] = {image["id"]: [] for image in images}
    except KeyError as error:
        raise InputError(f"COCO: missing or unknown {error}") from None
    except TypeError:
        raise InputError("COCO: an id is neither a number nor a string") from None
    if len(by_image) < len(images):
        raise InputError("COCO: two images have one id")
    strangers = []
    for annotation in annotations:
        try:
            names[annotation.get("category_id")]
            by_image[annotation.get("image_id")].append(annotation)
        except (KeyError, TypeError):
            strangers.append(annotation)
    return _all(images, by_image, names, strangers)


def _listed(document: object, key: str) -> list[dict]:
    if not isinstance(document, dict) or key not in document:
        if key == "annotations":
            return []
        raise InputError(f"COCO: missing or unknown {key!r}")
    found = document[key]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError("COCO: images, annotations and categories must be lists of objects")
    return found


def _all(
    images: list[dict], by_image: dict[object, list[dict]], names: dict[object, str], strangers: list[dict]
) -> Iterator[dict | Failure]:
    boxes = clipped = 0
    for image in images:
        try:
            record, only_boxes, outsiders = _record(image, by_image[image["id"]], names)
        except InputError as error:
            yield Failure(f"COCO: image {shortened(image['id'])}", str(error))
            continue
        boxes, clipped = boxes + only_boxes, clipped + outsiders
        yield record
    for annotation in strangers:
        what = "image" if _unknown(annotation.get("image_id"), by_image) else "category"
        yield Failure(
            f"COCO: annotation {shortened(annotation.get('id'))}",
            f"{what} {shortened(annotation.get(f'{what}_id'))} is not listed",
        )
    if boxes:
        log.warning("COCO: %d annotations have a box and no outline: rectangles, of kind box", boxes)
    if clipped:
        log.warning("COCO: %d outlines reach outside their image: clipped", clipped)


def _unknown(key: object, known: dict) -> bool:
    try:
        return key not in known
    except TypeError:
        return True


def _record(image: dict, annotations: list[dict], names: dict[object, str]) -> tuple[dict, int, int]:
    """An image's record; how many annotations are boxes alone; how many shapes reach outside."""
    path = image.get("file_name")
    identifier = image.get("record") or drawn.id_of_image(path)
    sides: list = [image.get("height"), image.get("width")]
    tasks = tuple(dict.fromkeys(names.values()))
    size = check_size(sides, "its size")
    shapes: dict[str, list[Shape]] = {}
    failed: dict[str, str] = {}
    boxes = clipped = 0
    for annotation in annotations:
        task = names[annotation["category_id"]]
        try:
            parts = _shapes(annotation, size)
            mask = union(draw(parts, size))
        except InputError as error:
            failed[task] = f"annotation {shortened(annotation.get('id'))}: {error}"
            continue
        clipped += any(outside(part, size) > 1 for part in parts)
        is_box = isinstance(parts[0], Box)
        boxes += is_box
        shapes.setdefault(task, []).append(parts[0] if is_box else Painted(mask))
    drawing = Drawing(readers={ALONE: shapes}, size=size, tasks=tasks)
    return drawn.with_masks(drawn.record_of(str(identifier), drawing, failed=failed)), boxes, clipped


def _shapes(annotation: dict, size: tuple[int, int]) -> list[Shape]:
    """An annotation's shapes: RLE as it is, polygons as COCO's own library draws them, else its box."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        mask = Mask.from_rle(segmentation)
        if mask.size != size:
            raise InputError(f"a mask of size {list(mask.size)} in an image of {list(size)}")
        return [Painted(mask)]
    if segmentation is None or segmentation in ([], [[]]):
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise InputError("neither a segmentation nor a box [x, y, width, height]")
        return [Box.of(*box)]
    if not isinstance(segmentation, list):
        raise InputError("a COCO segmentation must be RLE or a list of polygons")
    polygons: list[Shape] = []
    for flat in segmentation:
        if not isinstance(flat, list) or len(flat) < 6 or len(flat) % 2:
            raise InputError("a COCO polygon must be a flat list of at least three x, y pairs")
        polygons.append(Polygon.of([list(pair) for pair in zip(flat[0::2], flat[1::2])], as_coco=True))
    return polygons


def document_of(found: Iterable[dict]) -> dict:
    """A COCO data set of records with masks; an empty mask has no annotation.

    No annotation is a crowd: COCOeval, detectron2 and mmdetection leave crowds out. An image's number comes from its id
    alone, and a category's, of CheXpert's tasks, from its name, so that results of other runs fit (`results_of`).
    """
    images: list[dict] = []
    annotations: list[dict] = []
    categories: dict[str, int] = {}
    for record in found:
        height, width = record["size"]
        name = record.get("image") or record["id"]
        number = number_of(record["id"])
        images.append({"id": number, "file_name": name, "height": height, "width": width, "record": record["id"]})
        for task, rle in record.get("masks", {}).items():
            category = categories.setdefault(task, category_of(task))
            mask = Mask.from_rle(rle)
            if mask.area:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
                    | {"segmentation": rle, "area": mask.area, "bbox": mask.box()}
                )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": task} for task, number in categories.items()],
    }


def results_of(found: Iterable[dict], like: str | None = None) -> Iterator[dict]:
    """COCO results of records with masks and scores, for `loadRes` beside a data set of `document_of`.

    like: another data set's file, whose numbers of images and categories are taken; what it lacks is left out.
    Raises InputError for a mask without a score, by which COCOeval orders.
    """
    image_of, category_of_task = numbers_in(like) if like else (number_of, category_of)
    strangers = []
    for record in found:
        image = image_of(record["id"])
        if image is None:
            strangers.append(record["id"])
            continue
        for task, rle in record.get("masks", {}).items():
            mask, category = Mask.from_rle(rle), category_of_task(task)
            if not mask.area or category is None:
                continue
            score = records.number(record.get("scores", {}).get(task), "scores")
            if score != score:
                raise InputError(f"{record['id']}: {task}: no score, by which COCOeval orders")
            yield {"image_id": image, "category_id": category, "segmentation": rle, "bbox": mask.box(), "score": score}
    if strangers:
        log.warning("not in %s, left out: %s", like, records.few(strangers))


def numbers_in(path: str) -> tuple[Callable[[str], object], Callable[[str], object]]:
    """The numbers of images by id, and of categories by task, of a data set's file. Raises InputError if it is none."""
    with streams.open_input(path) as stream:
        document = jsontext.loads(b"".join(streams.read_rest(streams.lines(stream, path, streams.MAX_DOCUMENT), path)))
    try:
        images = {
            image.get("record") or drawn.id_of_image(image.get("file_name")): image.get("id")
            for image in _listed(document, "images")
        }
        categories = {canonical(str(each.get("name"))): each.get("id") for each in _listed(document, "categories")}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return images.get, categories.get


def number_of(identifier: str) -> int:
    """An image's number in COCO: below 2^52, so that also readers that know only floats keep it."""
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 12 or 1


def category_of(task: str) -> int:
    """A task's number in COCO: 1 to 14 of CheXpert's, any other from its name."""
    return CHEXPERT.index(task) + 1 if task in CHEXPERT else (number_of(task) >> 22) + len(CHEXPERT) + 1
