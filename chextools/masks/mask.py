"""Binary masks as runs of pixels: made from and to COCO's run lengths, outlines and arrays; and the arithmetic on runs.

A mask is never held as pixels. Its runs follow COCO's order: column by column from the left, each column from the
top, so that the pixel in row y and column x of an h by w image has the position x * h + y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError
from chextools.masks.polygons import outlines_to_flips, pixels_to_flips
from chextools.masks.rle import compress_counts, decompress_counts
from chextools.records.sizes import MAX_PIXELS, check_size


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A binary mask.

    size: (height, width) in pixels.
    bounds: int64 [2n], strictly increasing positions: run k covers bounds[2k] up to, not including, bounds[2k + 1].
    """

    size: tuple[int, int]
    bounds: np.ndarray

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Mask:
        return cls(size, np.empty(0, np.int64))

    @classmethod
    def from_flips(cls, size: tuple[int, int], flips: np.ndarray) -> Mask:
        """From sorted positions at which the value changes; two at one position cancel."""
        new = flips[1:] != flips[:-1]
        if not new.all():
            first = np.append(0, np.flatnonzero(new) + 1)  # of each position; how often it occurs is to the next
            flips = flips[first[np.diff(first, append=flips.size) % 2 == 1]]
        return cls(size, flips)

    @classmethod
    def from_array(cls, array: np.ndarray) -> Mask:
        """From an array [height, width]; what is not zero belongs to the mask."""
        height, width = array.shape
        return cls.from_flips((height, width), pixels_to_flips(np.asarray(array), 0, 0, height))

    @classmethod
    def from_rle(cls, rle: object) -> Mask:
        """From COCO RLE: {"size": [height, width], "counts": compressed string or list of counts}.

        Raises InputError for counts that are malformed, negative or do not add up to the size.
        """
        return cls.from_rles([rle])[0]

    @classmethod
    def from_rles(cls, rles: Sequence[object]) -> list[Mask]:
        """`from_rle` of each, with one pass over the characters of all: many small masks cost little more than one."""
        sizes, counts, strings = [], [], {}
        for number, rle in enumerate(rles):
            if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
                raise InputError('a mask must be {"size": [height, width], "counts": ...}')
            sizes.append(check_size(rle["size"], "mask size"))
            given = rle["counts"]
            if isinstance(given, (str, bytes)):
                strings[number] = given
            elif not isinstance(given, list) or not all(type(c) is int and 0 <= c <= MAX_PIXELS for c in given):
                raise InputError("RLE counts must be COCO's string or a list of integers")
            counts.append(given)
        for number, values in zip(strings, decompress_counts(list(strings.values()))):
            counts[number] = values
        return [cls.from_counts(size, np.asarray(values, np.int64)) for size, values in zip(sizes, counts)]

    @classmethod
    def from_counts(cls, size: tuple[int, int], counts: np.ndarray) -> Mask:
        """From the lengths of alternating runs, the first outside the mask; they must add up to the size."""
        pixels = size[0] * size[1]
        if counts.size == 0 or counts.min() < 0:
            raise InputError("RLE counts are empty or negative")
        ends = counts.cumsum()
        if ends[-1] != pixels:
            raise InputError(f"RLE counts add up to {ends[-1]}, but {size[0]} x {size[1]} is {pixels} pixels")
        return cls.from_flips(size, ends[: ends.size - ends.size % 2])

    @classmethod
    def from_polygons(cls, size: tuple[int, int], outlines: Sequence[object]) -> Mask:
        """The union of filled outlines, each a list of [x, y] vertices in pixels, drawn as the study draws them.

        Raises InputError for fewer than three vertices, or one more than a pixel outside the image.
        """
        return cls.from_flips(size, outlines_to_flips(size, outlines))

    @property
    def starts(self) -> np.ndarray:
        return self.bounds[0::2]

    @property
    def ends(self) -> np.ndarray:
        return self.bounds[1::2]

    @property
    def area(self) -> int:
        """Pixels in the mask."""
        return int(self.ends.sum() - self.starts.sum())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self.size == other.size and np.array_equal(self.bounds, other.bounds)

    def contains(self, y: int, x: int) -> bool:
        """Whether the pixel in row y and column x belongs to the mask."""
        return bool(np.searchsorted(self.bounds, x * self.size[0] + y, side="right") % 2)

    def positions(self) -> np.ndarray:
        """Where its pixels are, x * height + y: int64 [area], ascending."""
        length = self.ends - self.starts
        return np.arange(length.sum()) + np.repeat(self.starts - np.cumsum(length) + length, length)

    def box(self) -> list[int]:
        """The smallest box around the mask, [x, y, width, height] in pixels."""
        if not self.bounds.size:
            return [0, 0, 0, 0]
        height = self.size[0]
        left, right = int(self.starts[0] // height), int((self.ends[-1] - 1) // height)
        first, last = self.starts % height, (self.ends - 1) % height
        whole = self.starts // height != (self.ends - 1) // height  # a run over a column's end holds both rims
        top = 0 if whole.any() else int(first.min())
        bottom = height - 1 if whole.any() else int(last.max())
        return [left, top, right - left + 1, bottom - top + 1]

    def to_array(self) -> np.ndarray:
        """Pixels: bool [height, width]."""
        height, width = self.size
        flips = np.zeros(height * width + 1, np.int8)
        flips[self.starts] = 1
        flips[self.ends] = -1
        return np.cumsum(flips[:-1], dtype=np.int8, out=flips[:-1]).view(bool).reshape(width, height).T

    def to_counts(self) -> np.ndarray:
        """Lengths of alternating runs, int64, the first outside the mask: COCO's uncompressed counts."""
        pixels = self.size[0] * self.size[1]
        ends = [pixels] * int(not self.bounds.size or self.bounds[-1] < pixels)
        return np.diff(np.concatenate([np.zeros(1, np.int64), self.bounds, np.array(ends, np.int64)]))

    def to_rle(self) -> dict:
        """COCO RLE with compressed counts, equal to pycocotools' byte for byte."""
        return {"size": list(self.size), "counts": compress_counts(self.to_counts())}


def intersection(a: Mask, b: Mask) -> int:
    """Pixels that belong to both masks, which must have one size."""
    if not a.bounds.size or not b.bounds.size:
        return 0
    if a.bounds.size > b.bounds.size:
        a, b = b, a
    covered = _pixels_before(b, a.bounds)
    return int(covered[1::2].sum() - covered[0::2].sum())


def union(masks: Sequence[Mask]) -> Mask:
    """The pixels of any of the masks (at least one), which must have one size."""
    if len(masks) == 1:
        return masks[0]
    positions = np.concatenate([m.bounds for m in masks])
    steps = np.concatenate([np.resize([1, -1], m.bounds.size) for m in masks])
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    depth = np.cumsum(steps[order])
    last = np.append(positions[1:] != positions[:-1], True)[: positions.size]  # depth from a position on
    positions, inside = positions[last], depth[last] > 0
    flips = inside != np.concatenate([[False], inside[:-1]])
    return Mask(masks[0].size, positions[flips])


def _pixels_before(mask: Mask, positions: np.ndarray) -> np.ndarray:
    """How many of the mask's pixels lie before each position."""
    before = np.concatenate([[0], np.cumsum(mask.ends - mask.starts)])
    index = np.searchsorted(mask.bounds, positions, side="right")
    run = index // 2
    inside = index % 2 == 1
    return before[run] + np.where(inside, positions - mask.bounds[np.maximum(index - 1, 0)], 0)
