"""Pictures of X-rays with what a model or a person said about them: heatmap, outlines, points, captions, a legend.

Everything is drawn at the picture's size: an outline is followed along its mask's runs and only then scaled, so that a
mask of millions of pixels is never made. What matters is told by more than colour: the truth's outline is solid and the
prediction's dashed, a hit is a ringed dot and a miss a cross, and every line has a dark rim, to be seen on any grey.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chextools.errors import InputError
from chextools.masks.loops import loops_around
from chextools.masks.mask import Mask

MAX_PIXELS = 2**27  # of one picture

PAPER, INK, FAINT = (18, 20, 24), (236, 238, 240), (164, 172, 182)
TRUTH, PREDICTED, RIM = (255, 255, 255), (64, 224, 255), (0, 0, 0)
_GREY = 96  # behind the legend's bar: an X-ray's middle

_FINE = 3  # lines are drawn this much larger and reduced, which makes them smooth
_LEGIBLE = "·…–—°×"
_LONGEST = 400  # characters of a text that are looked at


# Colours

# A cubic Bezier curve in Oklab (Ottosson 2020): lightness rises all the way from a dark violet over red to a light
# yellow, so that the order of colours survives any colour blindness and a grey print; no part of it is grey.
_CURVE = ((0.22, 0.11, 285), (0.40, 0.28, 330), (0.66, 0.21, 35), (0.94, 0.17, 105))  # lightness, chroma, hue
_LAB_TO_LMS = ((1, 0.3963377774, 0.2158037573), (1, -0.1055613458, -0.0638541728), (1, -0.0894841775, -1.2914855480))
_LMS_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


@cache
def colour_map() -> np.ndarray:
    """uint8 [256, 3], sRGB from least to greatest, at equal steps of Oklab: perceptually uniform."""
    lightness, chroma, hue = np.array(_CURVE).T
    points = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    t = np.linspace(0, 1, 4001)[:, None]
    shares = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    even = _evenly(shares @ points, 256)
    linear = np.clip((even @ np.array(_LAB_TO_LMS).T) ** 3 @ np.array(_LMS_TO_RGB).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


@cache
def _opacity() -> np.ndarray:
    """float32 [256]: little is seen of low values, so that the X-ray stays readable."""
    return (0.68 * np.linspace(0, 1, 256) ** 0.75).astype(np.float32)


def heated(pixels: np.ndarray, heat: np.ndarray | None) -> np.ndarray:
    """An X-ray, uint8 [h, w], under a heatmap of values in [0, 1], float [h, w]: uint8 [h, w, 3]."""
    if heat is None:
        return np.repeat(pixels[..., None], 3, axis=2)
    level = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    opacity = _opacity()
    colour = colour_map() * opacity[:, None] + np.float32(0.5)
    below = pixels * (1 - opacity)[level]
    return (colour[level] + below[..., None]).astype(np.uint8)


# Lines


def _evenly(line: np.ndarray, count: int) -> np.ndarray:
    """`count` points at equal distances along a line [n, d]."""
    line = line[np.append(True, (line[1:] != line[:-1]).any(axis=1))]
    along = np.append(0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1)))
    return np.stack([np.interp(np.linspace(0, along[-1], count), along, axis) for axis in line.T], axis=1)


# One X-ray


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
    def markers(self) -> list[tuple[float, float, str]]:
        """(x, y, sign) of all points: "hit" or "miss" of predicted ones where the truth has an area, else "point"."""
        found = [(x, y, "truth point") for x, y in self.truth_points]
        for x, y in self.predicted_points:
            known = self.truth is not None and self.truth.area
            found.append((x, y, ("hit" if self.truth.contains(int(y), int(x)) else "miss") if known else "point"))
        return found


def draw_panel(panel: Panel) -> Image.Image:
    """The X-ray with its heatmap, outlines and points: RGB, as large as its pixels."""
    image = Image.fromarray(heated(panel.pixels, panel.heat))
    height, width = panel.pixels.shape
    unit = max(1.2, max(height, width) / 450)  # a thin line, in pixels
    scale = np.array([width / panel.size[1], height / panel.size[0]]) * _FINE
    canvas = [Image.new("L", (width * _FINE, height * _FINE)) for _ in range(3)]
    rim, *inks = map(ImageDraw.Draw, canvas)
    for ink, mask, dashed in zip(inks, (panel.truth, panel.predicted), (False, True)):
        lines = [np.concatenate([loop, loop[:1]]) * scale for loop in loops_around(mask)] if mask is not None else []
        _draw_lines((rim, ink), lines, unit * _FINE, dashed)
    for x, y, sign in panel.markers:
        ink = inks[sign != "truth point"]
        _draw_marker((rim, ink), (x + 0.5) * scale[0], (y + 0.5) * scale[1], unit * _FINE, sign)
    for colour, layer in zip((RIM, TRUTH, PREDICTED), canvas):
        if layer.getbbox():
            image.paste(colour, mask=layer.reduce(_FINE))
    return image


def _draw_lines(pens: tuple, lines: Sequence[np.ndarray], unit: float, dashed: bool) -> None:
    """Lines [n, 2] with both pens, on the rim and on the ink; `unit` as the pens see it."""
    rim, ink = pens
    inside = np.array([rim.im.size[0] - 1, rim.im.size[1] - 1]) - unit  # the frame would cut a line along it in half
    for line in lines:
        line = np.clip(line, unit, inside)
        length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
        smooth = _evenly(line, max(8, int(2 * length / unit)))
        pieces = [smooth]
        if dashed:
            whole = max(2, round(length / (11 * unit)))  # dashes on this line
            at = np.arange(len(smooth)) * (whole / len(smooth))
            drawn = at % 1 < 0.6
            cuts = np.flatnonzero(np.diff(at.astype(int)) | np.diff(drawn)) + 1
            pieces = [piece for piece, on in zip(np.split(smooth, cuts), np.split(drawn, cuts)) if on[0]]
        for piece in pieces:
            points = piece.ravel().tolist()
            rim.line(points, 255, round(3.1 * unit), joint="curve")
            ink.line(points, 255, round(1.3 * unit), joint="curve")


def _draw_marker(pens: tuple, x: float, y: float, unit: float, kind: str) -> None:
    """hit: a ringed dot; miss: a cross; point: a ring; truth point: a diamond. None of it is lost beyond the frame."""
    x, y = (min(max(at, 4 * unit), side - 4 * unit) for at, side in zip((x, y), pens[0].im.size))
    for pen, width in zip(pens, (3.4 * unit, 1.5 * unit)):
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


# Text


@lru_cache(64)
def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(pixels)


def legible(text: str) -> str:
    """The text in what Pillow's own font has: no accents, and escapes for other scripts and control characters."""
    plain = unicodedata.normalize("NFKD", text[:_LONGEST])
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in _LEGIBLE else c.encode("unicode_escape").decode() for c in plain)


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text if it is not wider than `width` pixels, else both its ends around three dots."""
    text = legible(text)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = f"{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip() if kept > 1 else ''}"
        if font.getlength(short) <= width:
            return short
    return ""


def wrapped(text: str, size: float, width: float) -> list[str]:
    """The text on one line of `width` pixels or on two, cut between words."""
    words = legible(text).split(" ")
    font = _font(round(size))
    fits = [cut for cut in range(1, len(words) + 1) if font.getlength(" ".join(words[:cut])) <= width] or [1]
    return list(filter(None, [" ".join(words[: fits[-1]]), " ".join(words[fits[-1] :])]))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text. large: a heading. badges: (text, filled) at its right end, which come before the text."""

    text: str
    large: bool = False
    badges: Sequence[tuple[str, bool]] = ()


def text_block(lines: Sequence[Line], width: int, unit: float) -> Image.Image:
    """Lines of text below each other on an image as wide as asked; `unit` is the size of normal text in pixels."""
    heights = [round(unit * (2.0 if line.large else 1.45)) for line in lines]
    image = Image.new("RGB", (width, max(1, sum(heights))), PAPER)
    draw = ImageDraw.Draw(image)
    top = 0
    for line, height in zip(lines, heights):
        size = round(unit * 1.4) if line.large else round(unit)
        right = width
        for text, filled in reversed(line.badges):
            right = _draw_badge(draw, right, top, height, text, filled, round(unit))
        font = _font(size)
        shown = fitted(line.text, font, right)
        draw.text((0, top + height / 2), shown, INK if line.large else FAINT, font, anchor="lm")
        top += height
    return image


def _draw_badge(draw: ImageDraw.ImageDraw, right: float, top: int, height: int, text: str, filled: bool, size: int):
    """Draws it and returns where what stands before it must end."""
    font = _font(size)
    text = fitted(text, font, max(0, right - size))
    left = right - font.getlength(text) - size
    middle, reach = top + height / 2, min(0.72 * size, height / 2 - 1)
    box = [left, middle - reach, right - 1, middle + reach]
    draw.rounded_rectangle(box, size * 0.35, INK if filled else None, INK, max(1, size // 12))
    draw.text(((left + right - 1) / 2, middle), text, PAPER if filled else INK, font, anchor="mm")
    return left - 0.5 * size


# Legend


@dataclass(frozen=True, slots=True)
class Legend:
    """What a picture's signs mean: a heatmap's name and the values at the bar's ends, and (sign, name) of the others.

    Signs are "truth" and "predicted" for outlines, and those of markers: "truth point", "hit", "miss", "point".
    """

    heat: str | None = None
    ends: tuple[str, str] = ("", "")
    signs: Sequence[tuple[str, str]] = field(default_factory=tuple)


def draw_legend(legend: Legend, width: int, unit: float) -> Image.Image:
    """The legend on as many lines as it needs at this width; `unit` is the size of its text in pixels."""
    size = round(unit)
    font = _font(size)
    entries = [_sign(sign, name, font, width, unit) for sign, name in legend.signs]
    if legend.heat is not None:
        entries.insert(0, _bar(legend, font, width, unit))
    rows: list[list[Image.Image]] = []
    gap, left = round(1.4 * unit), 0
    for entry in entries:
        if not rows or left + entry.width > width:
            rows.append([])
            left = 0
        rows[-1].append(entry)
        left += entry.width + gap
    height = round(1.7 * unit)
    image = Image.new("RGB", (width, max(1, height * len(rows))), PAPER)
    for number, row in enumerate(rows):
        left = 0
        for entry in row:
            image.paste(entry, (left, number * height + (height - entry.height) // 2))
            left += entry.width + gap
    return image


def _bar(legend: Legend, font: ImageFont.FreeTypeFont, width: int, unit: float) -> Image.Image:
    """least [colours] greatest  name"""
    low, high = (fitted(end, font, width / 6) for end in legend.ends)
    bar = round(max(3 * unit, min(9 * unit, width / 4)))
    pad = round(0.5 * unit)
    fixed = font.getlength(low) + font.getlength(high) + bar + 3 * pad
    name = fitted(legend.heat or "", font, width - fixed)
    image = Image.new("RGB", (min(width, int(fixed + font.getlength(name)) + 1), round(1.5 * unit)), PAPER)
    draw = ImageDraw.Draw(image)
    middle = image.height / 2
    draw.text((0, middle), low, FAINT, font, anchor="lm")
    left = round(font.getlength(low)) + pad
    thick = round(0.9 * unit)
    ramp = heated(np.full((thick, bar), _GREY, np.uint8), np.broadcast_to(np.linspace(0, 1, bar), (thick, bar)))
    image.paste(Image.fromarray(ramp), (left, round(middle - thick / 2)))
    draw.text((left + bar + pad, middle), high, FAINT, font, anchor="lm")
    draw.text((left + bar + 2 * pad + font.getlength(high), middle), name, INK, font, anchor="lm")
    return image


def _sign(sign: str, name: str, font: ImageFont.FreeTypeFont, width: int, unit: float) -> Image.Image:
    """A sign as it is on the X-ray, on grey, and its name."""
    swatch = round((3.4 if sign in ("truth", "predicted") else 1.5) * unit)
    name = fitted(name, font, width - swatch - 0.5 * unit)
    image = Image.new("RGB", (int(swatch + 0.5 * unit + font.getlength(name)) + 1, round(1.5 * unit)), PAPER)
    pixels = np.full((round(1.4 * unit), swatch), _GREY, np.uint8)
    size = swatch * _FINE, pixels.shape[0] * _FINE
    rim, ink = Image.new("L", size), Image.new("L", size)
    pens = ImageDraw.Draw(rim), ImageDraw.Draw(ink)
    x, y = size[0] / 2, size[1] / 2
    line = unit / 11 * _FINE
    if sign in ("truth", "predicted"):
        ends = np.array([[-4 * line, y], [size[0] + 4 * line, y]])
        _draw_lines(pens, [ends], line, sign == "predicted")
    else:
        _draw_marker(pens, x, y, line * (0.8 if sign != "truth point" else 1), sign)
    patch = Image.fromarray(heated(pixels, None))
    patch.paste(RIM, mask=rim.reduce(_FINE))
    patch.paste(TRUTH if sign.startswith("truth") else PREDICTED, mask=ink.reduce(_FINE))
    image.paste(patch, (0, (image.height - patch.height) // 2))
    ImageDraw.Draw(image).text((swatch + 0.5 * unit, image.height / 2), name, INK, font, anchor="lm")
    return image


# Whole pictures


def stacked(parts: Sequence[Image.Image], gap: int, margin: int) -> Image.Image:
    """Images below each other, with a margin around all."""
    width = max(part.width for part in parts) + 2 * margin
    height = sum(part.height for part in parts) + gap * (len(parts) - 1) + 2 * margin
    image, top = _canvas(width, height), margin
    for part in parts:
        image.paste(part, ((width - part.width) // 2, top))
        top += part.height + gap
    return image


def side_by_side(parts: Sequence[Image.Image | None], width: int, gap: int) -> Image.Image:
    """Images beside each other, each in a column of `width` pixels, at the top and in the middle; None stays empty."""
    image = _canvas(len(parts) * (width + gap) - gap, max((part.height for part in parts if part), default=1))
    for number, part in enumerate(parts):
        if part:
            image.paste(part, (number * (width + gap) + (width - part.width) // 2, 0))
    return image


def check_pixels(width: int, height: int) -> None:
    """Raise InputError for a picture that would be too large."""
    if width * height > MAX_PIXELS or max(width, height) >= 2**16:
        raise InputError(f"a picture of {width} x {height} pixels is too large; use a smaller --size or less --task")


def _canvas(width: int, height: int) -> Image.Image:
    check_pixels(width, height)
    return Image.new("RGB", (width, height), PAPER)
