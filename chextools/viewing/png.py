"""A sketch as pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from chextools.plumbing.lettering import font_of
from chextools.viewing.colours import GREY, PREDICTED, RIM, TRUTH, Theme, heated
from chextools.viewing.overlay import FINE, draw_lines, draw_marker, draw_panel
from chextools.viewing.sketch import Box, Ramp, Shown, Sketch, Swatch, Written


def image_of(sketch: Sketch, theme: Theme) -> Image.Image:
    """The picture, RGB."""
    image = Image.new("RGB", (sketch.width, sketch.height), theme.paper)
    pen = ImageDraw.Draw(image)
    for shape in sketch.shapes:
        if isinstance(shape, Written):
            anchor = "mm" if shape.centred else "lm"
            pen.text((shape.x, shape.y), shape.text, getattr(theme, shape.ink), font_of(shape.size), anchor=anchor)
        elif isinstance(shape, Box):
            box = [shape.x, shape.y, shape.x + shape.width, shape.y + shape.height]
            pen.rounded_rectangle(box, shape.radius, theme.ink if shape.filled else None, theme.ink, shape.line)
        else:
            image.paste(_raster(shape), (round(shape.x), round(shape.y)))
    return image


def _raster(shape: Shown | Ramp | Swatch) -> Image.Image:
    if isinstance(shape, Shown):
        return draw_panel(shape.panel)
    return Image.fromarray(shape.pixels) if isinstance(shape, Ramp) else _swatch(shape)


def _swatch(shape: Swatch) -> Image.Image:
    size = shape.width * FINE, shape.height * FINE
    rim, ink = Image.new("L", size), Image.new("L", size)
    pens = ImageDraw.Draw(rim), ImageDraw.Draw(ink)
    line, x, y = shape.line * FINE, size[0] / 2, size[1] / 2
    if shape.sign in ("truth", "predicted"):
        draw_lines(pens, [np.array([[-4 * line, y], [size[0] + 4 * line, y]])], line, shape.sign == "predicted")
    else:
        draw_marker(pens, x, y, line * (0.8 if shape.sign != "truth point" else 1), shape.sign)
    patch = Image.fromarray(heated(np.full((shape.height, shape.width), GREY, np.uint8), None))
    patch.paste(RIM, mask=rim.reduce(FINE))
    patch.paste(TRUTH if shape.sign.startswith("truth") else PREDICTED, mask=ink.reduce(FINE))
    return patch
