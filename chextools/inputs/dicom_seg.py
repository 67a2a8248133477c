"""DICOM Segmentation objects, by the extra `dicom`: a task per segment, of the X-ray that they name.

DICOM PS3.3 A.51; bits packed, or fractions of which half and more count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from chextools.errors import InputError, MissingExtra
from chextools.inputs.drawn import Images
from chextools.masks.drawing import ALONE
from chextools.masks.mask import Mask
from chextools.masks.shapes import Painted
from chextools.records.sizes import check_size

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST = 2**28  # pixels of all frames
SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # its storage, and as a label map


def is_segmentation(path: str) -> bool:
    """Whether a file is a DICOM Segmentation, by its first bytes: the class stands in its file meta information."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(2048)
    except OSError:
        return False
    return head[128:132] == b"DICM" and any(uid.encode() in head for uid in SEGMENTATION)


def records_of(path: str) -> Iterator[dict]:
    """The record of the X-ray that a Segmentation is of. Raises InputError for one that cannot be read."""
    try:
        import pydicom
        from pydicom.filereader import read_file_meta_info
        from pydicom.uid import DeflatedExplicitVRLittleEndian
    except ModuleNotFoundError:
        raise MissingExtra("DICOM Segmentation needs pydicom: pip install 'chextools[dicom]'") from None
    try:
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise InputError("a deflated data set, which may unpack to any size")
        dataset = pydicom.dcmread(path)
        yield from _records(dataset, path)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  pydicom raises whatever a broken file leads it to
        raise InputError(
            f"no DICOM Segmentation that can be read: {str(error)[:100] or type(error).__name__}"
        ) from None


def _records(dataset: Dataset, path: str) -> Iterator[dict]:
    size = check_size((int(dataset.Rows), int(dataset.Columns)))
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    if count * size[0] * size[1] > _MOST:
        raise InputError(f"{count} frames of {size[0]} x {size[1]} are more than anybody draws on an X-ray")
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
    frames = dataset.pixel_array.reshape(-1, *size)
    images = Images(path)
    tasks = {number: images.look_for(name) for number, name in names.items()}
    whole = _reference(dataset)
    if str(dataset.get("SegmentationType", "")) == "LABELMAP":
        image = images.image(whole or _stem(path))
        images.sized(image, size)
        images.seen(image, ALONE)
        for number in np.unique(frames[frames > 0]).tolist():
            if number not in tasks:
                raise InputError(f"the value {number} is no segment")
            images.add(image, ALONE, tasks[number], Painted(Mask.from_array((frames == number).any(axis=0))))
        yield from images.records()
        return
    half = 1
    if str(dataset.get("SegmentationType", "BINARY")) == "FRACTIONAL":
        half = (int(dataset.get("MaximumFractionalValue", 255)) + 1) // 2
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence", ()))
    for place, frame in enumerate(frames):
        group = groups[place] if place < len(groups) else None
        number = _segment(group, names, place)
        image = images.image(_reference(group) or whole or _stem(path))
        images.sized(image, size)
        images.seen(image, ALONE)
        images.add(image, ALONE, tasks[number], Painted(Mask.from_array(frame >= half)))
    yield from images.records()


def _segment(group: Dataset | None, names: dict[int, str], place: int) -> int:
    found = group.get("SegmentIdentificationSequence") if group is not None else None
    number = int(found[0].ReferencedSegmentNumber) if found else sorted(names)[min(place, len(names) - 1)]
    if number not in names:
        raise InputError(f"frame {place + 1} is of segment {number}, which is not there")
    return number


def _reference(group: Dataset | None) -> str | None:
    """The UID of the image that a segmentation, or one of its frames, is of."""
    if group is None:
        return None
    for derivation in group.get("DerivationImageSequence", ()):
        for source in derivation.get("SourceImageSequence", ()):
            return str(source.ReferencedSOPInstanceUID)
    for series in group.get("ReferencedSeriesSequence", ()):
        for instance in series.get("ReferencedInstanceSequence", ()):
            return str(instance.ReferencedSOPInstanceUID)
    return None


def _stem(path: str) -> str:
    base = path.replace("\\", "/").rpartition("/")[2]
    return base.removesuffix(".dcm")
