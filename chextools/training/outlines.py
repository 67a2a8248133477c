"""Where findings were outlined in the images that are trained on, as masks of the network's input."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image

from chextools.errors import InputError
from chextools.inputs import truth
from chextools.masks.mask import Mask
from chextools.records.record import DRAWING
from chextools.training.data import Data
from chextools.xrays import images

log = logging.getLogger(__name__)

Pair = tuple[int, int]  # place of an image, and of a task


class Outlines:
    """Masks of `size` x `size` pixels, by row through all sets and place of a task; each pixel is a bit."""

    def __init__(self, size: int):
        self.size = size
        self._bits: dict[int, dict[int, np.ndarray]] = {}

    def add(self, row: int, task: int, mask: Mask) -> None:
        """A mask of the whole image, of any size; what covers half of a pixel or more becomes part of it."""
        whole = Image.fromarray(mask.to_array().astype(np.uint8) * 255)
        covered = np.asarray(whole.resize((self.size, self.size), Image.Resampling.BOX)) >= 128
        if covered.any():
            self._bits.setdefault(row, {})[task] = np.packbits(covered)

    def __len__(self) -> int:
        return sum(map(len, self._bits.values()))

    def pairs(self, rows: np.ndarray) -> list[Pair]:
        """(place among these rows, task) of each mask that they have."""
        return [(place, task) for place, row in enumerate(rows.tolist()) for task in self._bits.get(row, ())]

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Of `pairs`: float32 [M, size, size] of 0 and 1."""
        found = [np.unpackbits(self._bits[int(rows[place])][task]) for place, task in self.pairs(rows)]
        pixels = np.array(found, np.float32).reshape(len(found), -1)[:, : self.size**2]
        return pixels.reshape(len(found), self.size, self.size)

    def digest(self) -> str:
        """Tells whether a run goes on with the outlines that it began with."""
        told = hashlib.sha256()
        for row, by_task in sorted(self._bits.items()):
            for task, bits in sorted(by_task.items()):
                told.update(f"{row} {task} ".encode() + bits.tobytes())
        return told.hexdigest()


def read_outlines(
    named: Sequence[str], sets: Sequence[Data], tasks: Sequence[str], size: int, stdin: BinaryIO
) -> Outlines:
    """The masks of all that the sets have as positive labels, and these files outlines of; how many is said.

    named: [SET=]FILE, SET as it was named; several files for one are several readers. Raises InputError for a file
    that cannot be read, none that is of any use, and an id of several sets where no SET is said.
    """
    found = Outlines(size)
    starts = np.cumsum([0, *(len(data.records) for data in sets)])
    for which, files in _by_set(named, sets).items():
        read = truth.read_truth(files, stdin)
        if read.failures:
            raise InputError(f"{read.failures[0].where}: {read.failures[0].reason}")
        chosen = [(start, data) for k, (start, data) in enumerate(zip(starts, sets)) if which in (None, k)]
        drawn = set(read.tasks)
        if which is None:
            _check_unambiguous(read, sets)
        before, positive, seen = len(found), 0, 0
        for start, data in chosen:
            for row, record in enumerate(data.records, start):
                labels = record.get("labels", {})
                wanted = {task: k for k, task in enumerate(tasks) if task in drawn and labels.get(task) == 1}
                positive += len(wanted)
                if record["id"] in read.records:
                    for task, mask in _masks(read.records[record["id"]], record, wanted):
                        found.add(row, wanted[task], mask)
                    seen += bool(found.pairs(np.array([row])))
        if len(found) == before:
            raise InputError(
                f"{read.where}: none of its outlines is of a positive label of {', '.join(d.where for _, d in chosen)}"
                f" (it has, for example, {next(iter(read.records))}: {', '.join(read.tasks[:3])})"
            )
        log.warning(
            "%s: outlines of %d of %d positive labels, in %d images", read.where, len(found) - before, positive, seen
        )
    return found


def _by_set(named: Sequence[str], sets: Sequence[Data]) -> dict[int | None, list[str]]:
    """Files by the number of the set that they are for; None: whichever has their ids."""
    numbers = {source: k for k, data in enumerate(sets) for source in data.sources}
    found: dict[int | None, list[str]] = {}
    for text in named:
        which, equals, file = text.partition("=")
        if not equals or which not in numbers or os.path.exists(text):
            found.setdefault(None, []).append(text)
        else:
            found.setdefault(numbers[which], []).append(file)
    return found


def _check_unambiguous(read: truth.Truth, sets: Sequence[Data]) -> None:
    seen = Counter(record["id"] for data in sets for record in data.records if record["id"] in read.records)
    both = next((identifier for identifier, count in seen.items() if count > 1), None)
    if both:
        where = " and ".join(data.where for data in sets if any(record["id"] == both for record in data.records))
        raise InputError(f"{read.where}: {both} is in {where}: --outlines SET=FILE says of which set it is")


def _masks(found: Mapping, record: Mapping, wanted: Mapping[str, int]) -> Iterator[tuple[str, Mask]]:
    """The masks of the tasks that are wanted and there. Raises InputError for one that is broken."""
    found, size = dict(found), None
    drawing = found.get(DRAWING)
    if drawing is not None and not (drawing.size or drawing.target):
        height, width = record.get("size") or images.measure(record["image"]).size
        size = (height, width)
    masks, failed = truth.masks_of(found, wanted, size)
    for task, reason in failed.items():
        raise InputError(f"{record['id']}: {task}: {reason}")
    yield from ((task, mask) for task, mask in masks.items() if mask is not None and mask.bounds.size)
