"""An X-ray and what is drawn on it: heatmap, outlines, points.

An outline is followed along its mask's runs and only then scaled, so that a mask of millions of pixels is never made.
What matters is told by more than colour: the truth's outline is solid and the prediction's dashed, a hit is a ringed
dot and a miss a cross, and every line has a dark rim, to be seen on any grey. A line's width is a share of the
picture's longer side, but never less than what can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from chextools.masks.loops import loops_around
from chextools.masks.mask import Mask
from chextools.viewing.colours import PREDICTED, RIM, TRUTH, evenly, heated

FINE = 3  # lines are drawn this much larger and reduced, which makes them smooth
UNITS = 450  # along the picture's longer side
THINNEST = 1.0  # pixels of the thinnest outline, which is seen even where it falls between two
RIM_WIDTH, LINE_WIDTH = 3.1, 1.3  # of outlines, in units
MARKER_WIDTHS = (3.4, 1.5)  # of rim and line of a marker
DASH, DASHED = 11, 0.6  # length of a dash and its gap, in units, and the dash's share


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """An X-ray and what is drawn on it.

    pixels: uint8 [h, w], at the size at which it is shown. size: (height, width) of the original in pixels.
    heat: [h, w] in [0, 1]. truth, predicted: masks at the original's size. Points are (x, y) in its pixels.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    heat: np.ndarray | None = None
    truth: Mask | None = None
    predicted: Mask | None = None
    truth_points: Sequence[Sequence[float]] = ()
    predicted_points: Sequence[Sequence[float]] = ()

    @property
    def unit(self) -> float:
        """What lines are measured in, in pixels: a share of the longer side, so that any size looks alike."""
        return max(THINNEST / LINE_WIDTH, max(self.pixels.shape) / UNITS)

    @property
    def scale(self) -> np.ndarray:
        """From pixels of the original (x, y) to those of the picture."""
        return np.array([self.pixels.shape[1] / self.size[1], self.pixels.shape[0] / self.size[0]])

    @property
    def outlines(self) -> list[tuple[np.ndarray, bool]]:
        """Closed lines [n, 2] (x, y) in pixels of the picture, each with whether it is the prediction's."""
        return [
            (np.concatenate([loop, loop[:1]]) * self.scale, predicted)
            for mask, predicted in ((self.truth, False), (self.predicted, True))
            if mask is not None
            for loop in loops_around(mask)
        ]

    @property
    def markers(self) -> list[tuple[float, float, str]]:
        """(x, y, sign) of all points: "hit" or "miss" of predicted ones where the truth has an area, else "point"."""
        found = [(x, y, "truth point") for x, y in self.truth_points]
        for x, y in self.predicted_points:
            sign = "point"
            if self.truth is not None and self.truth.area:
                sign = "hit" if self.truth.contains(int(y), int(x)) else "miss"
            found.append((x, y, sign))
        return found


def draw_panel(panel: Panel) -> Image.Image:
    """The X-ray with its heatmap, outlines and points: RGB, as large as its pixels."""
    image = Image.fromarray(heated(panel.pixels, panel.heat))
    height, width = panel.pixels.shape
    unit = panel.unit
    canvas = [Image.new("L", (width * FINE, height * FINE)) for _ in range(3)]
    rim, *inks = map(ImageDraw.Draw, canvas)
    for line, predicted in panel.outlines:
        draw_lines((rim, inks[predicted]), [line * FINE], unit * FINE, predicted)
    scale = panel.scale * FINE
    for x, y, sign in panel.markers:
        ink = inks[sign != "truth point"]
        draw_marker((rim, ink), (x + 0.5) * scale[0], (y + 0.5) * scale[1], unit * FINE, sign)
    for colour, layer in zip((RIM, TRUTH, PREDICTED), canvas):
        if layer.getbbox():
            image.paste(colour, mask=layer.reduce(FINE))
    return image


def draw_lines(pens: tuple, lines: Sequence[np.ndarray], unit: float, dashed: bool) -> None:
    """Lines [n, 2] with both pens, on the rim and on the ink; `unit` as the pens see it."""
    rim, ink = pens
    inside = np.array([rim.im.size[0] - 1, rim.im.size[1] - 1]) - unit  # the frame would cut a line along it in half
    for line in lines:
        line = np.clip(line, unit, inside)
        length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
        smooth = evenly(line, max(8, int(2 * length / unit)))
        pieces = [smooth]
        if dashed:
            whole = max(2, round(length / (DASH * unit)))  # dashes on this line
            at = np.arange(len(smooth)) * (whole / len(smooth))
            drawn = at % 1 < DASHED
            cuts = np.flatnonzero(np.diff(at.astype(int)) | np.diff(drawn)) + 1
            pieces = [piece for piece, on in zip(np.split(smooth, cuts), np.split(drawn, cuts)) if on[0]]
        for piece in pieces:
            points = piece.ravel().tolist()
            rim.line(points, 255, round(RIM_WIDTH * unit), joint="curve")
            ink.line(points, 255, round(LINE_WIDTH * unit), joint="curve")


def draw_marker(pens: tuple, x: float, y: float, unit: float, kind: str) -> None:
    """hit: a ringed dot; miss: a cross; point: a ring; truth point: a diamond. None of it is lost beyond the frame."""
    x, y = (min(max(at, 4 * unit), side - 4 * unit) for at, side in zip((x, y), pens[0].im.size))
    for pen, width in zip(pens, (width * unit for width in MARKER_WIDTHS)):
        if kind == "miss":
            for turn in (-1, 1):
                reach = 5.5 * unit + (width - 1.5 * unit) / 3
                pen.line([x - reach, y - reach * turn, x + reach, y + reach * turn], 255, round(width))
        elif kind == "truth point":
            reach = 3.4 * unit + width / 2
            pen.polygon([x - reach, y, x, y - reach, x + reach, y, x, y + reach], 255)
        else:
            radius = 6 * unit + width / 2
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], None, 255, round(width))
            if kind == "hit":
                radius = 1.2 * unit + width / 2
                pen.ellipse([x - radius, y - radius, x + radius, y + radius], 255)
