"""What people draw with annotation tools, and how it becomes masks: boxes, polygons, ellipses, brushes, coded runs.

Coordinates are pixels, x to the right and y down, the image's corner at (0, 0). A shape knows no image: it is drawn
into one of a given size, after its coordinates are scaled where they are of another. What reaches a little outside the
image is clipped, what reaches far outside is refused, as its coordinates are then of another image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError, LimitError
from chextools.masks.mask import Mask
from chextools.masks.polygons import coco_outline_to_rle
from chextools.records.sizes import shortened

Size = tuple[int, int]

_SLACK = 0.05  # of the longer side may lie outside
_LEAST_SLACK = 8.0  # pixels
_MOST = 2.0**31
_MOST_PIXELS = 2**26  # 8192 x 8192, where every pixel has to be looked at: a few bytes of runs may claim more
_ELLIPSE_POINTS = 180


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle from (x, y), its pixels those whose centres lie inside: width x height of them for whole numbers."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, x: object, y: object, width: object, height: object) -> Box:
        """Checked. Raises InputError for what are no numbers, or no area."""
        left, top, wide, high = (finite(v) for v in (x, y, width, height))
        if wide <= 0 or high <= 0:
            raise InputError(f"a box of {wide:g} x {high:g} pixels has no area")
        return cls(left, top, wide, high)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.x + self.width, self.y + self.height

    def scaled(self, down: float, across: float) -> Box:
        return Box(self.x * across, self.y * down, self.width * across, self.height * down)

    def mask(self, size: Size) -> Mask:
        """A box is at least one pixel, where it lies in the image at all."""
        height, width = size
        left, right = _pixels(self.x, self.x + self.width, width)
        top, bottom = _pixels(self.y, self.y + self.height, height)
        if left >= right or top >= bottom:
            return Mask.empty(size)
        columns = np.arange(left, right, dtype=np.int64) * height
        return Mask.from_flips(size, np.stack([columns + top, columns + bottom], axis=1).ravel())


@dataclass(frozen=True, slots=True)
class Polygon:
    """The inside of an outline: drawn as the study draws them, or, `as_coco`, as COCO's own library does."""

    points: tuple[tuple[float, float], ...]
    as_coco: bool = False

    @classmethod
    def of(cls, points: object, as_coco: bool = False) -> Polygon:
        """Checked, from pairs [x, y]. Raises InputError for fewer than three, or what are no numbers."""
        if not isinstance(points, (list, tuple)) or len(points) < 3:
            raise InputError(f"an outline must be a list of at least three points [x, y], not {shortened(points)}")
        if not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in points):
            raise InputError("an outline must be a list of points [x, y]")
        return cls(tuple((finite(x), finite(y)) for x, y in points), as_coco)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        xs, ys = zip(*self.points)
        return min(xs), min(ys), max(xs), max(ys)

    def scaled(self, down: float, across: float) -> Polygon:
        return Polygon(tuple((x * across, y * down) for x, y in self.points), self.as_coco)

    def mask(self, size: Size) -> Mask:
        """What lies outside the image is drawn, too, and then cut off: clipping the outline itself would bend it."""
        left, top, right, bottom = self.bounds
        before_x, before_y = (math.ceil(max(0.0, -v)) for v in (left, top))
        after_x, after_y = (math.ceil(max(0.0, far - side)) for far, side in zip((right, bottom), size[::-1]))
        whole = (size[0] + before_y + after_y, size[1] + before_x + after_x)
        points = [(x + before_x, y + before_y) for x, y in self.points]
        mask = (
            Mask.from_rle(coco_outline_to_rle(whole, points)) if self.as_coco else Mask.from_polygons(whole, [points])
        )
        return mask if whole == size else _cropped(mask, before_y, before_x, size)


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse around (x, y) with two radii, turned clockwise."""

    x: float
    y: float
    across: float
    down: float
    degrees: float = 0.0

    @classmethod
    def of(cls, x: object, y: object, across: object, down: object, degrees: object = 0.0) -> Ellipse:
        """Checked. Raises InputError for what are no numbers, or no area."""
        found = cls(*(finite(v) for v in (x, y, across, down, degrees)))
        if found.across <= 0 or found.down <= 0:
            raise InputError("an ellipse without area")
        return found

    @property
    def polygon(self) -> Polygon:
        angle = np.arange(_ELLIPSE_POINTS) * (2 * np.pi / _ELLIPSE_POINTS)
        turn = math.radians(self.degrees)
        u, v = self.across * np.cos(angle), self.down * np.sin(angle)
        xs = self.x + u * math.cos(turn) - v * math.sin(turn)
        ys = self.y + u * math.sin(turn) + v * math.cos(turn)
        return Polygon(tuple(zip(xs.tolist(), ys.tolist())), as_coco=True)  # the study's drawing would widen it

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return self.polygon.bounds

    def scaled(self, down: float, across: float) -> Polygon:
        return self.polygon.scaled(down, across)

    def mask(self, size: Size) -> Mask:
        return self.polygon.mask(size)


@dataclass(frozen=True, slots=True)
class Painted:
    """Pixels, as a brush or another program left them: a mask whose corner lies at (x, y) of the image."""

    mask_: Mask
    x: int = 0
    y: int = 0
    image: Size | None = None  # the image's size; None for the mask's own

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        height, width = self.mask_.size
        return self.x, self.y, self.x + width, self.y + height

    def in_image(self, size: Size) -> Mask:
        """The mask in an image of this size, without scaling."""
        if self.mask_.size == size and not (self.x or self.y):
            return self.mask_
        if self.image is None:
            raise InputError(f"a mask of {_said(self.mask_.size)} in an image of {_said(size)}")
        check_pixels(size)
        canvas = np.zeros(size, bool)
        top, left = max(0, self.y), max(0, self.x)
        pixels = self.mask_.to_array()[top - self.y :, left - self.x :]
        rows, columns = min(len(pixels), size[0] - top), min(pixels.shape[1], size[1] - left)
        if rows > 0 and columns > 0:
            canvas[top : top + rows, left : left + columns] = pixels[:rows, :columns]
        return Mask.from_array(canvas)

    def mask(self, size: Size) -> Mask:
        """Scaled, where the image's size is another, to the nearest pixel."""
        own = self.image or self.mask_.size
        mask = self.in_image(own)
        if own == size:
            return mask
        check_pixels(own)
        check_pixels(size)
        rows, columns = (((np.arange(n) + 0.5) * (m / n)).astype(np.int64) for n, m in zip(size, own))
        return Mask.from_array(mask.to_array()[rows][:, columns])


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of pixels as text, as in Kaggle's CSV files: decoded when asked for, as files hold many.

    form: "relative" (each start counted from the last run's end, columns first: SIIM-ACR), "absolute" (start and length
    from 1, columns first: Kaggle's other contests), or "rows" (start and length from 1, rows first: CheXmask).
    """

    text: str
    form: str
    image: Size | None = None

    bounds = None

    def mask(self, size: Size) -> Mask:
        own = self.image or size
        mask = mask_of_runs(self.text, own, self.form)
        return mask if own == size else Painted(mask).mask(size)


Shape = Box | Polygon | Ellipse | Painted | Runs


def draw(shapes: Sequence[Shape], size: Size, frame: Size | None = None) -> list[Mask]:
    """The mask of each shape in an image of `size`. frame: of which size the coordinates are, where it is another.

    Raises InputError for a shape that reaches far outside.
    """
    frame = frame or size
    found = []
    for shape in shapes:
        if isinstance(shape, (Painted, Runs)):
            found.append(shape.mask(size))
            continue
        refuse_outside(shape, frame)
        if frame != size:
            shape = shape.scaled(size[0] / frame[0], size[1] / frame[1])
        found.append(shape.mask(size))
    return found


def outside(shape: Shape, size: Size) -> float:
    """How far a shape reaches outside an image, in pixels."""
    if shape.bounds is None:
        return 0.0
    left, top, right, bottom = shape.bounds
    return max(0.0, -left, -top, right - size[1], bottom - size[0])


def refuse_outside(shape: Shape, size: Size) -> None:
    """Raise InputError for a shape that reaches further outside than a slip of the hand."""
    far = outside(shape, size)
    if far > max(_LEAST_SLACK, _SLACK * max(size)):
        raise InputError(
            f"a {type(shape).__name__.lower()} reaches {far:.5g} pixels outside the image of {_said(size)}: "
            "are its coordinates of another size?"
        )


def mask_of_runs(text: str, size: Size, form: str) -> Mask:
    """The mask of runs as text (`Runs`). Raises InputError for runs that overlap or leave the image."""
    starts, lengths = runs_of(text, form)
    height, width = size
    if starts.size and starts[-1] + lengths[-1] > height * width:
        raise InputError(f"runs end at {starts[-1] + lengths[-1]}, but {_said(size)} is {height * width} pixels")
    if form == "rows":
        return rows_mask(starts, starts + lengths, size)
    return Mask.from_flips(size, np.stack([starts, starts + lengths], axis=1).ravel())


def rows_mask(starts: np.ndarray, ends: np.ndarray, size: Size) -> Mask:
    """The mask of runs that go row by row from the top, apart: int64 [n], y * width + x."""
    check_pixels(size)
    steps = np.zeros(size[0] * size[1] + 1, np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return Mask.from_array(np.cumsum(steps[:-1], dtype=np.int8).reshape(size))


def runs_of(text: str, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Starts, from 0, and lengths of runs as text, int64 [n] each, ascending and apart. Raises InputError."""
    words = text.split()
    if len(words) % 2:
        raise InputError(f"runs are pairs of numbers, but there are {len(words)} numbers")
    if not all(word.isascii() and word.isdigit() and len(word) < 11 for word in words):
        odd = next(word for word in words if not (word.isascii() and word.isdigit() and len(word) < 11))
        raise InputError(f"{shortened(odd)} is no run of pixels")
    starts, lengths = np.array(words, np.int64).reshape(-1, 2).T
    if form == "relative":
        starts = np.cumsum(starts) + np.cumsum(lengths) - lengths
    else:
        starts = starts - 1
        if starts.size and starts.min() < 0:
            raise InputError("a run starts at 0, but the first pixel is 1: not the absolute form")
    if (starts[1:] < starts[:-1] + lengths[:-1]).any():
        covered = lengths.sum()
        raise InputError(f"runs of {covered} pixels overlap or go back, so that their area is another")
    kept = lengths > 0
    return starts[kept], lengths[kept]


def check_pixels(size: Size) -> None:
    """Raise LimitError for an image with more pixels than any X-ray has, before each is held in memory."""
    if size[0] * size[1] > _MOST_PIXELS:
        raise LimitError(f"{_said(size)} is more than {_MOST_PIXELS} pixels")


def text_of_runs(mask: Mask) -> str:
    """Kaggle's absolute form: start and length of each run from 1, columns first; "" for an empty mask."""
    pairs = np.stack([mask.starts + 1, mask.ends - mask.starts], axis=1)
    return " ".join(map(str, pairs.ravel().tolist()))


def finite(value: object) -> float:
    """A coordinate, also as text. Raises InputError for anything but a number of a size that pixels may have."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < _MOST:
        raise InputError(f"{shortened(value)} is no coordinate")
    return number


def _pixels(low: float, high: float, side: int) -> tuple[int, int]:
    """The pixels along one side whose centres lie between two coordinates, at least one of them."""
    first, last = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if first == last:
        first = math.floor((low + high) / 2)
        last = first + 1
    return max(0, first), min(side, last)


def _cropped(mask: Mask, top: int, left: int, size: Size) -> Mask:
    check_pixels(mask.size)
    return Mask.from_array(mask.to_array()[top : top + size[0], left : left + size[1]])


def _said(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
