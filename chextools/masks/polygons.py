"""Outlines to masks, filled as the study fills them: coordinates truncated to integers, drawn by Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.errors import InputError
from chextools.records.sizes import shortened


def outlines_to_flips(size: tuple[int, int], outlines: Sequence[object]) -> np.ndarray:
    """Where the union of filled outlines begins and ends: sorted positions x * height + y, int64 [2n].

    outlines: each a list of [x, y] vertices in pixels. Pillow fills each polygon with its outline.
    Raises InputError for fewer than three vertices, or one more than a pixel outside the image.
    """
    height, width = size
    if not isinstance(outlines, (list, tuple)):
        raise InputError(f"outlines must be a list of polygons, not {shortened(outlines)}")
    vertices = [_vertices(outline, size, number) for number, outline in enumerate(outlines, 1)]
    if not vertices:
        return np.empty(0, np.int64)
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
        return np.empty(0, np.int64)
    left, upper, right, lower = box
    pixels = np.asarray(canvas.crop(box), bool)
    return pixels_to_flips(pixels, left, top + upper, height)


def pixels_to_flips(pixels: np.ndarray, left: int, top: int, height: int) -> np.ndarray:
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
