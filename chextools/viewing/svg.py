"""A sketch as SVG: X-rays and heatmaps are pixels in it, outlines, points and text stay vectors."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from chextools.errors import printable
from chextools.viewing.colours import GREY, PREDICTED, RIM, TRUTH, Theme, evenly, heated
from chextools.viewing.overlay import DASH, DASHED, LINE_WIDTH, MARKER_WIDTHS, RIM_WIDTH, Panel
from chextools.viewing.sketch import Box, Ramp, Shape, Shown, Sketch, Swatch, Written

# Older readers, and Office, know no other name than xlink:href for where an image's pixels are.
_NAMES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def text_of(sketch: Sketch, theme: Theme, metadata: str = "") -> str:
    """The document. metadata: what it says of itself, unseen."""
    size = f'width="{sketch.width}" height="{sketch.height}" viewBox="0 0 {sketch.width} {sketch.height}"'
    return "\n".join(
        [
            f'<svg {_NAMES} {size} font-family="Helvetica, Arial, sans-serif">',
            f"<metadata>{html.escape(metadata, quote=False)}</metadata>",
            f'<rect width="100%" height="100%" fill="{_hex(theme.paper)}"/>',
            *(_drawn(shape, theme) for shape in sketch.shapes),
            "</svg>\n",
        ]
    )


def _drawn(shape: Shape, theme: Theme) -> str:
    if isinstance(shape, Written):
        return _text(shape, theme)
    if isinstance(shape, Box):
        fill = _hex(theme.ink) if shape.filled else "none"
        about = f'rx="{_n(shape.radius)}" fill="{fill}" stroke="{_hex(theme.ink)}" stroke-width="{shape.line}"'
        place = f'x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" height="{_n(shape.height)}"'
        return f"<rect {place} {about}/>"
    if isinstance(shape, Ramp):
        return _image(shape.pixels, shape.x, shape.y)
    inside = _panel(shape.panel) if isinstance(shape, Shown) else _swatch(shape)
    return f'<g transform="translate({_n(shape.x)} {_n(shape.y)})">{inside}</g>'


def _text(shape: Written, theme: Theme) -> str:
    """As wide as it was measured, whatever font a viewer has."""
    if not shape.text:
        return ""
    anchor = ' text-anchor="middle"' if shape.centred else ""
    fit = f'textLength="{_n(shape.width)}" lengthAdjust="spacingAndGlyphs"'
    place = f'x="{_n(shape.x)}" y="{_n(shape.y + 0.35 * shape.size)}" font-size="{shape.size}"'
    return f'<text {place}{anchor} {fit} fill="{_hex(getattr(theme, shape.ink))}">{_escaped(shape.text)}</text>'


def _panel(panel: Panel) -> str:
    height, width = panel.pixels.shape
    unit = panel.unit
    lines = [_line(line, unit, predicted, width, height) for line, predicted in panel.outlines]
    marks = [
        _marker((x + 0.5) * panel.scale[0], (y + 0.5) * panel.scale[1], unit, sign, width, height)
        for x, y, sign in panel.markers
    ]
    return _image(heated(panel.pixels, panel.heat), 0, 0) + "".join([*lines, *marks])


def _swatch(shape: Swatch) -> str:
    grey = heated(np.full((shape.height, shape.width), GREY, np.uint8), None)
    back = f'<rect width="{shape.width}" height="{shape.height}" fill="{_hex(grey[0, 0].tolist())}"/>'
    if shape.sign in ("truth", "predicted"):
        ends = np.array([[0, shape.height / 2], [shape.width, shape.height / 2]])
        return back + _line(ends, shape.line, shape.sign == "predicted", shape.width, shape.height)
    unit = shape.line * (0.8 if shape.sign != "truth point" else 1)
    return back + _marker(shape.width / 2, shape.height / 2, unit, shape.sign, shape.width, shape.height)


def _line(line: np.ndarray, unit: float, predicted: bool, width: int, height: int) -> str:
    """A line and its rim; the prediction's dashed, with whole dashes along it."""
    line = np.clip(line, 0, [width, height])
    length = float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
    line = evenly(line, max(8, int(2 * length / unit))) if length else line
    path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in line)
    dash = ""
    if predicted:
        period = length / max(2, round(length / (DASH * unit))) or 1.0
        dash = f' stroke-dasharray="{_n(DASHED * period)} {_n((1 - DASHED) * period)}"'
    ink = PREDICTED if predicted else TRUTH
    return "".join(
        f'<path d="{path}" fill="none" stroke="{_hex(colour)}" stroke-width="{_n(thick * unit)}" '
        f'stroke-linejoin="round"{dash}/>'
        for colour, thick in ((RIM, RIM_WIDTH), (ink, LINE_WIDTH))
    )


def _marker(x: float, y: float, unit: float, sign: str, width: int, height: int) -> str:
    """hit: a ringed dot; miss: a cross; point: a ring; truth point: a diamond."""
    x, y = (min(max(at, 4 * unit), side - 4 * unit) for at, side in ((x, width), (y, height)))
    ink = TRUTH if sign == "truth point" else PREDICTED
    made = []
    for colour, thick in zip((RIM, ink), (thick * unit for thick in MARKER_WIDTHS)):
        stroke = f'fill="none" stroke="{_hex(colour)}" stroke-width="{_n(thick)}"'
        if sign == "miss":
            r = 5.5 * unit
            path = f"M{_n(x - r)} {_n(y - r)}L{_n(x + r)} {_n(y + r)}M{_n(x - r)} {_n(y + r)}L{_n(x + r)} {_n(y - r)}"
            made.append(f'<path d="{path}" {stroke} stroke-linecap="square"/>')
        elif sign == "truth point":
            r = 3.4 * unit + thick / 2
            path = f"M{_n(x - r)} {_n(y)}L{_n(x)} {_n(y - r)}L{_n(x + r)} {_n(y)}L{_n(x)} {_n(y + r)}z"
            made.append(f'<path d="{path}" fill="{_hex(colour)}"/>')
        else:
            made.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(6 * unit)}" {stroke}/>')
            if sign == "hit":
                dot = 1.2 * unit + thick / 2
                made.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(dot)}" fill="{_hex(colour)}"/>')
    return "".join(made)


def _image(pixels: np.ndarray, x: float, y: float) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=6)
    height, width = pixels.shape[:2]
    data = base64.b64encode(out.getvalue()).decode("ascii")
    place = f'x="{_n(x)}" y="{_n(y)}" width="{width}" height="{height}"'
    return f'<image {place} xlink:href="data:image/png;base64,{data}"/>'


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)


def _n(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").removesuffix(".")
