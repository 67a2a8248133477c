"""A picture before it is drawn: X-rays, text, bars and signs at their places, to be written as PNG or as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from chextools.errors import InputError
from chextools.plumbing.lettering import width_of
from chextools.viewing.overlay import Panel
from chextools.viewing.text import fitted, wrapped

MAX_PIXELS = 2**27  # of one picture


@dataclass(frozen=True, slots=True)
class Shown:
    """An X-ray with what is drawn on it."""

    x: float
    y: float
    panel: Panel


@dataclass(frozen=True, slots=True)
class Written:
    """A line of text, `size` pixels high, in the theme's ink, faint or paper, its middle at y; centred: at x, too."""

    x: float
    y: float
    text: str
    size: int
    ink: str = "ink"
    centred: bool = False

    @property
    def width(self) -> float:
        return width_of(self.text, self.size)


@dataclass(frozen=True, slots=True)
class Box:
    """A box with round corners, filled or not."""

    x: float
    y: float
    width: float
    height: float
    radius: float
    line: int
    filled: bool


@dataclass(frozen=True, slots=True)
class Ramp:
    """Pixels of a colour bar, uint8 [h, w, 3]."""

    x: float
    y: float
    pixels: np.ndarray


@dataclass(frozen=True, slots=True)
class Swatch:
    """A sign as it is on the X-ray, on grey."""

    x: float
    y: float
    width: int
    height: int
    sign: str
    line: float


Shape = Shown | Written | Box | Ramp | Swatch


@dataclass
class Sketch:
    """Shapes on paper of so many pixels."""

    width: int
    height: int
    shapes: list[Shape] = field(default_factory=list)

    def place(self, part: Sketch, x: float, y: float) -> None:
        """Add another sketch's shapes, moved."""
        self.shapes += [replace(shape, x=shape.x + x, y=shape.y + y) for shape in part.shapes]


def of_panel(panel: Panel) -> Sketch:
    height, width = panel.pixels.shape
    return Sketch(width, height, [Shown(0, 0, panel)])


def check_pixels(width: int, height: int) -> None:
    """Raise InputError for a picture that would be too large."""
    if width * height > MAX_PIXELS or max(width, height) >= 2**16:
        raise InputError(f"a picture of {width} x {height} pixels is too large; use a smaller --size or less --task")


def stacked(parts: Sequence[Sketch], gap: int, margin: int) -> Sketch:
    """Sketches below each other, with a margin around all."""
    width = max(part.width for part in parts) + 2 * margin
    whole = Sketch(width, sum(part.height for part in parts) + gap * (len(parts) - 1) + 2 * margin)
    check_pixels(whole.width, whole.height)
    top = margin
    for part in parts:
        whole.place(part, (width - part.width) // 2, top)
        top += part.height + gap
    return whole


def side_by_side(parts: Sequence[Sketch | None], width: int, gap: int) -> Sketch:
    """Sketches beside each other, each in a column of `width` pixels, at the top and in the middle; None is empty."""
    whole = Sketch(len(parts) * (width + gap) - gap, max((part.height for part in parts if part), default=1))
    for number, part in enumerate(parts):
        if part:
            whole.place(part, number * (width + gap) + (width - part.width) // 2, 0)
    return whole


# Text


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, which takes a second one where it is long. large: a heading. badges: (text, filled) at its right
    end, which come before the text."""

    text: str
    large: bool = False
    badges: Sequence[tuple[str, bool]] = ()


def text_block(lines: Sequence[Line], width: int, unit: float) -> Sketch:
    """Lines of text below each other on a sketch as wide as asked; `unit` is the size of normal text in pixels."""
    block = Sketch(width, 0)
    for line in lines:
        height = round(unit * (2.0 if line.large else 1.45))
        size = round(unit * 1.4) if line.large else round(unit)
        right = float(width)
        for text, filled in reversed(line.badges):
            right = _badge(block, right, block.height, height, text, filled, round(unit))
        ink = "ink" if line.large else "faint"
        parts = wrapped(line.text, size, right)
        whole = len(parts) < 2 or all(width_of(part, size) <= right for part in parts)
        for part in parts if whole and not line.large else [line.text]:
            block.shapes.append(Written(0, block.height + height / 2, fitted(part, size, right), size, ink))
            block.height += height
    block.height = max(1, block.height)
    return block


def _badge(block: Sketch, right: float, top: int, height: int, text: str, filled: bool, size: int) -> float:
    """Adds it and returns where what stands before it must end."""
    text = fitted(text, size, max(0, right - size))
    left = right - width_of(text, size) - size
    middle, reach = top + height / 2, min(0.72 * size, height / 2 - 1)
    block.shapes.append(Box(left, middle - reach, right - 1 - left, 2 * reach, size * 0.35, max(1, size // 12), filled))
    ink = "paper" if filled else "ink"
    block.shapes.append(Written((left + right - 1) / 2, middle, text, size, ink, centred=True))
    return left - 0.5 * size
