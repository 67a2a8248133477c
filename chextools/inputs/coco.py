"""COCO's object-detection JSON as records with masks, and back. https://cocodataset.org/#format-data"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.masks.mask import Mask, union
from chextools.records.sizes import MAX_PIXELS, check_size


def records_of(document: object) -> Iterator[dict]:
    """One record per image. A category without an annotation in an image has an empty mask there.

    The id is the image's "record" key, which `document_of` writes, else that of its file name.
    """
    if isinstance(document, list):
        raise InputError("COCO results name neither images nor categories; give the whole data set, with both")
    try:
        names = {c["id"]: str(c["name"]) for c in document["categories"]}
        images = document["images"]
        by_image: dict[object, dict[str, list]] = {image["id"]: {} for image in images}
        for annotation in document.get("annotations", ()):
            segments = by_image[annotation["image_id"]]
            segments.setdefault(names[annotation["category_id"]], []).append(annotation["segmentation"])
        if len(by_image) < len(images):
            raise InputError("COCO: two images have one id")
    except KeyError as error:
        raise InputError(f"COCO: missing or unknown {error}") from None
    except (TypeError, AttributeError):
        raise InputError("COCO: images, annotations and categories must be lists of objects") from None
    return (_record(image, by_image[image["id"]], names.values()) for image in images)


def _record(image: dict, segments: dict[str, list], names: Iterable[str]) -> dict:
    size = [image.get("height"), image.get("width")]
    path = image.get("file_name")
    identifier = image.get("record") or (inputs.id_of_path(path) if isinstance(path, str) else path)
    record = {"id": identifier, "size": size}
    try:
        height_width = check_size(size)
        empty = Mask.empty(height_width)
        masks = {n: union([empty, *(_mask(s, height_width) for s in segments.get(n, ()))]) for n in names}
    except InputError as error:
        return record | {"failed": {n: str(error) for n in names}}
    return record | {"masks": {n: mask.to_rle() for n, mask in masks.items()}}


def _mask(segmentation: object, size: tuple[int, int]) -> Mask:
    """One annotation's mask: RLE as it is, polygons as COCO's own library rasterises them."""
    if isinstance(segmentation, dict):
        mask = Mask.from_rle(segmentation)
        if mask.size != size:
            raise InputError(f"a mask of size {list(mask.size)} in an image of {list(size)}")
        return mask
    from pycocotools import mask as cocomask

    height, width = size
    polygons = segmentation if isinstance(segmentation, list) else []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError("a COCO polygon must be a flat list of at least three x, y pairs")
        if not all(isinstance(v, (int, float)) and -MAX_PIXELS < v < MAX_PIXELS for v in polygon):
            raise InputError("a COCO polygon must hold numbers")
        # pycocotools allocates by the outline's length: keep it inside the image.
        if not all(-1 <= v <= limit + 1 for i, v in enumerate(polygon) for limit in [height if i % 2 else width]):
            raise InputError("a COCO polygon leaves the image")
    if not polygons:
        raise InputError("a COCO segmentation is empty")
    return Mask.from_rle(cocomask.merge(cocomask.frPyObjects(polygons, height, width)) | {"size": list(size)})


def document_of(records: Iterable[dict]) -> dict:
    """A COCO data set of records with masks; an empty mask has no annotation."""
    images, annotations, categories = [], [], {}
    for number, record in enumerate(records, 1):
        height, width = record["size"]
        name = record.get("image") or record["id"]
        images.append({"id": number, "file_name": name, "height": height, "width": width, "record": record["id"]})
        for task, rle in record.get("masks", {}).items():
            category = categories.setdefault(task, len(categories) + 1)
            mask = Mask.from_rle(rle)
            if mask.area:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 1}
                    | {"segmentation": rle, "area": mask.area, "bbox": mask.box()}
                )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": task} for task, number in categories.items()],
    }
