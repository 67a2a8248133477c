"""Binary masks as runs of pixels: COCO run-length encoding, polygons, arrays, and the arithmetic on runs.

A mask is never held as pixels. Its runs follow COCO's order: column by column from the left, each column from the
top, so that the pixel in row y and column x of an h by w image has the position x * h + y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError, LimitError

MAX_PIXELS = 2**29  # 23,170 x 23,170: no X-ray detector comes near, and a stranger's header cannot ask for more
MAX_SIDE = 2**16 - 1  # JPEG's limit; memory grows with a side times the heatmap's

_DIGIT_BITS = 5  # COCO's compressed counts: base 32, a sign bit in the last digit, ASCII from '0'
_MAX_DIGITS = 7


def check_size(size: Sequence[int], what: str = "size") -> tuple[int, int]:
    """`size` as (height, width), refused unless it is two positive integers of at most `MAX_PIXELS` in all."""
    try:
        height, width = size
        valid = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v > 0 for v in (height, width))
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(f"{what} must be [height, width] in pixels, not {_short(size)}")
    if int(height) * int(width) > MAX_PIXELS:
        raise LimitError(f"{what} {height} x {width} is more than {MAX_PIXELS} pixels")
    if max(height, width) > MAX_SIDE:
        raise LimitError(f"{what} {height} x {width} has a side of more than {MAX_SIDE} pixels")
    return int(height), int(width)


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
        if flips.size > 1 and (flips[1:] == flips[:-1]).any():
            flips, times = np.unique(flips, return_counts=True)
            flips = flips[times % 2 == 1]
        return cls(size, flips)

    @classmethod
    def from_array(cls, array: np.ndarray) -> Mask:
        """From an array [height, width]; what is not zero belongs to the mask."""
        height, width = array.shape
        return cls.from_flips((height, width), _flips(np.asarray(array, bool), 0, 0, height))

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
        for number, values in zip(strings, _decompress(list(strings.values()))):
            counts[number] = values
        return [cls.from_counts(size, np.asarray(values, np.int64)) for size, values in zip(sizes, counts)]

    @classmethod
    def from_counts(cls, size: tuple[int, int], counts: np.ndarray) -> Mask:
        """From the lengths of alternating runs, the first outside the mask; they must add up to the size."""
        pixels = size[0] * size[1]
        if counts.size == 0 or counts.min() < 0:
            raise InputError("RLE counts are empty or negative")
        ends = np.cumsum(counts)
        if ends[-1] != pixels:
            raise InputError(f"RLE counts add up to {ends[-1]}, but {size[0]} x {size[1]} is {pixels} pixels")
        return cls.from_flips(size, ends[: ends.size - ends.size % 2])

    @classmethod
    def from_polygons(cls, size: tuple[int, int], polygons: Sequence[object]) -> Mask:
        """The union of filled outlines, each a list of [x, y] vertices in pixels, drawn as the study draws them.

        The study truncates coordinates to integers and lets Pillow fill each polygon with its outline.
        Raises InputError for fewer than three vertices, or one more than a pixel outside the image.
        """
        height, width = size
        if not isinstance(polygons, (list, tuple)):
            raise InputError(f"outlines must be a list of polygons, not {_short(polygons)}")
        vertices = [_vertices(polygon, size, number) for number, polygon in enumerate(polygons, 1)]
        if not vertices:
            return cls.empty(size)
        from PIL import Image, ImageDraw  # here, as most runs draw nothing and it costs start-up

        top = max(0, min(int(v[:, 1].min()) for v in vertices))
        bottom = min(height, max(int(v[:, 1].max()) for v in vertices) + 1)
        # Pillow's rounding depends on x but not on a whole-pixel shift in y: only rows may be cropped.
        canvas = Image.new("L", (width, max(bottom - top, 1)))
        draw = ImageDraw.Draw(canvas)
        for v in vertices:
            draw.polygon([(x, y - top) for x, y in v.tolist()], outline=1, fill=1)
        box = canvas.getbbox()
        if box is None:
            return cls.empty(size)
        left, upper, right, lower = box
        pixels = np.asarray(canvas.crop(box), bool)
        return cls.from_flips(size, _flips(pixels, left, top + upper, height))

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
        return np.cumsum(flips[:-1], dtype=np.int8).astype(bool).reshape(width, height).T

    def to_counts(self) -> np.ndarray:
        """Lengths of alternating runs, int64, the first outside the mask: COCO's uncompressed counts."""
        pixels = self.size[0] * self.size[1]
        edges = [[0], self.bounds]
        if not self.bounds.size or self.bounds[-1] < pixels:
            edges.append([pixels])
        return np.diff(np.concatenate(edges).astype(np.int64))

    def to_rle(self) -> dict:
        """COCO RLE with compressed counts, equal to pycocotools' byte for byte."""
        return {"size": list(self.size), "counts": _compress(self.to_counts())}


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


def _flips(pixels: np.ndarray, left: int, top: int, height: int) -> np.ndarray:
    """Where the value flips along the columns of `pixels`, whose corner lies at (left, top) of the whole image."""
    rows, columns = pixels.shape
    padded = np.zeros((columns, rows + 2), bool)
    padded[:, 1:-1] = pixels.T
    column, row = np.nonzero(padded[:, 1:] != padded[:, :-1])
    return (column + left) * height + row + top


def _vertices(polygon: object, size: tuple[int, int], number: int) -> np.ndarray:
    """A polygon's vertices as int64 [n, 2] (x, y), truncated as the study does."""
    try:
        points = np.array(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(f"outline {number} must be a list of [x, y] numbers")
    if len(points) < 3:
        raise InputError(f"outline {number} has {len(points)} points; an area needs at least three")
    height, width = size
    outside = (points <= -1) | (points >= np.array([width + 1, height + 1]))
    if outside.any():
        x, y = points[outside.any(axis=1)][0]
        raise InputError(f"outline {number} has the point ({x:g}, {y:g}) outside the image of {height} x {width}")
    return points.astype(np.int64)  # truncates towards zero, like int()


def _decompress(texts: Sequence[str | bytes]) -> list[np.ndarray]:
    """COCO's compressed counts, int64. Each count is written in base 32 as the difference to the last but one."""
    if not texts:
        return []
    try:
        texts = [text.encode("ascii") if isinstance(text, str) else text for text in texts]
    except UnicodeEncodeError:
        raise InputError("RLE counts hold a character outside COCO's alphabet") from None
    if not all(texts):
        raise InputError("RLE counts are empty")
    digits = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(48)  # what lies below wraps around
    if digits.max() > 63:
        raise InputError("RLE counts hold a character outside COCO's alphabet")
    last = np.flatnonzero(digits < 32)
    ends = np.cumsum([len(text) for text in texts])
    stops = np.searchsorted(last, ends)  # numbers up to the end of each text
    if not last.size or not np.array_equal(last[stops - 1], ends - 1):
        raise InputError("RLE counts are truncated")
    length = np.diff(last, prepend=-1)
    if length.max() > _MAX_DIGITS:
        raise InputError("RLE counts hold a number too large for any image")
    values = (digits[last] & 31).astype(np.int64)
    values -= (values & 16) << 1  # the last digit holds the sign
    for back in range(1, length.max()):
        longer = np.flatnonzero(length > back)
        values[longer] = (values[longer] << _DIGIT_BITS) + (digits[last[longer] - back] & 31)
    counts = np.split(values, stops[:-1])
    for part in counts:
        np.cumsum(part[1::2], out=part[1::2])
        np.cumsum(part[2::2], out=part[2::2])  # the first count stands alone
    return counts


def _compress(counts: np.ndarray) -> str:
    """The inverse of `_decompress`."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    columns = []
    more = np.ones(values.size, bool)
    while more.any():
        digit = values & 31
        values >>= _DIGIT_BITS
        following = more & np.where(digit & 16, values != -1, values != 0)
        columns.append(np.where(more, digit + 48 + 32 * following, 0))
        more = following
    characters = np.stack(columns, axis=1).astype(np.uint8).ravel()
    return characters[characters != 0].tobytes().decode("ascii")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
