"""What is known beside the records: what radiologists outlined, their points, and where the X-rays are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from chextools.errors import InputError
from chextools.inputs import drawn, inputs
from chextools.inputs.truth import TruthSettings, settled, truth_of
from chextools.records import records
from chextools.records.record import DRAWING
from chextools.records.records import Failure, Located
from chextools.viewing.panels import Subject
from chextools.xrays import images


@dataclass
class Known:
    """What is known beside the records: by id the truth's records, its points by task, and images; all its tasks."""

    truth: Mapping[str, dict] = field(default_factory=dict)
    points: dict[str, dict] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def subject(self, item: Located | Failure) -> Subject | Failure:
        """A record with what is known of it."""
        if isinstance(item, Failure):
            return item
        identifier = item.record["id"]
        if identifier in self.images:
            item.record.setdefault("image", self.images[identifier])
        truth = self.truth.get(identifier)
        if truth is not None and DRAWING in truth:  # drawn into the image as it is
            try:
                size = item.record.get("size") or images.measure(item.record["image"]).size
                truth = drawn.with_masks(truth, size=tuple(size))
                if truth.get("failed") and not truth["masks"]:
                    raise InputError(next(iter(truth["failed"].values())))
            except (InputError, KeyError) as error:
                return Failure(item.where, str(error))
        return Subject(item.where, item.record, truth, self.points.get(identifier))


def read_known(
    truth: Sequence[str], xrays: Iterable[Located | Failure], stdin: BinaryIO, settings: TruthSettings | None = None
) -> Known:
    """The truth in files of masks, annotations or points, told apart by content, and the images in image records."""
    known = Known()
    outlined = []
    items = itertools.chain.from_iterable(inputs.read_all([source], stdin) for source in truth)
    for item in settled(items, settings or TruthSettings(), stdin):
        found = item.record if isinstance(item, Located) else {}
        if "points" in found:
            known.points[found["id"]] = found["points"]
        if "points" not in found or "masks" in found:
            outlined.append(item)
    if outlined or (truth and not known.points):
        read = truth_of(records.unique(outlined), ", ".join(truth))
        known.truth, known.tasks, known.failures = read.records, read.tasks, read.failures
    for item in xrays:
        if isinstance(item, Located):
            known.images[item.record["id"]] = item.record["image"]
        else:
            known.failures.append(item)
    return known
