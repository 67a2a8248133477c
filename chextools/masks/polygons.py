"""Outlines to masks, filled as the study fills them, by Pillow, or as COCO's own library does.

The study truncates coordinates to integers. Time and memory are bounded whatever the outlines are: an image is drawn in
bands, and outlines whose edges cross more rows than anybody draws are refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.errors import InputError, LimitError
from chextools.records.sizes import shortened

MAX_CROSSINGS = 2**22  # rows or columns that the edges of a mask's outlines cross, summed over edges: real ones 10^4
MAX_POINTS = 2**18  # of a mask's outlines: Pillow compares each with each
MAX_LENGTH = 2**20  # pixels along a COCO polygon: its library takes 100 bytes for each
_BAND = 2**25  # pixels drawn at once
_STRIP = 2**20  # pixels of which flips are sought at once


def outlines_to_flips(size: tuple[int, int], outlines: Sequence[object]) -> np.ndarray:
    """Where the union of filled outlines begins and ends: positions x * height + y, int64, ascending.

    Two at one position cancel. outlines: each a list of [x, y] vertices in pixels. Pillow fills each polygon with its
    outline. Raises InputError for fewer than three vertices, or one more than a pixel outside the image.
    """
    height, width = size
    if not isinstance(outlines, (list, tuple)):
        raise InputError(f"outlines must be a list of polygons, not {shortened(outlines)}")
    vertices = [_vertices(outline, size, number) for number, outline in enumerate(outlines, 1)]
    if not vertices:
        return np.empty(0, np.int64)
    _refuse_endless(vertices, size)
    top = max(0, min(int(v[:, 1].min()) for v in vertices))
    bottom = min(height, max(int(v[:, 1].max()) for v in vertices) + 1)
    step = max(1, _BAND // width)
    bands = [_band(vertices, size, row, min(row + step, bottom)) for row in range(top, bottom, step)]
    if len(bands) < 2:
        return bands[0] if bands else np.empty(0, np.int64)
    return np.sort(np.concatenate(bands))  # what goes on in the next band ends and begins at one position


def _band(vertices: Sequence[np.ndarray], size: tuple[int, int], top: int, bottom: int) -> np.ndarray:
    """The flips of the rows from `top` to before `bottom`."""
    from PIL import Image, ImageDraw  # here, as most runs draw nothing and it costs start-up

    # Pillow's rounding depends on x but not on a whole-pixel shift in y: only rows may be cropped.
    canvas = Image.new("L", (size[1], bottom - top))
    draw = ImageDraw.Draw(canvas)
    for v in vertices:
        draw.polygon((v - [0, top]).ravel().tolist(), outline=1, fill=1)
    box = canvas.getbbox()
    if box is None:
        return np.empty(0, np.int64)
    left, upper, right, lower = box
    return pixels_to_flips(np.asarray(canvas)[upper:lower, left:right], left, top + upper, size[0])


def coco_outline_to_rle(size: tuple[int, int], points: Sequence[tuple[float, float]]) -> dict:
    """An outline filled as COCO's own library fills it, as its RLE. Raises LimitError for an endless one."""
    from pycocotools import mask as cocomask

    vertices = np.array(points, np.float64)
    length = np.abs(vertices - np.roll(vertices, 1, axis=0)).max(axis=1).sum()
    if not length <= MAX_LENGTH:
        raise LimitError(f"an outline of {length:.0f} pixels; nobody draws more than {MAX_LENGTH}")
    return cocomask.frPyObjects([vertices.ravel().tolist()], *size)[0] | {"size": list(size)}


def pixels_to_flips(pixels: np.ndarray, left: int, top: int, height: int) -> np.ndarray:
    """Where the value flips along the columns of `pixels`, 0 or not, whose corner lies at (left, top) of the image."""
    rows, columns = pixels.shape
    step = max(1, _STRIP // (rows + 2))
    found = []
    for start in range(0, columns, step):
        strip = pixels[:, start : start + step]
        padded = np.zeros((strip.shape[1], rows + 2), bool)
        padded[:, 1:-1] = strip.T
        column, row = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), rows + 1)
        found.append((column + (left + start)) * height + (row + top))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _vertices(polygon: object, size: tuple[int, int], number: int) -> np.ndarray:
    """A polygon's vertices as int64 [n, 2] (x, y), truncated as the study does."""
    try:
        points = np.array(polygon)
        if points.dtype.kind not in "iuf":  # NumPy would take strings for numbers
            points = np.empty(0)
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


def _refuse_endless(vertices: Sequence[np.ndarray], size: tuple[int, int]) -> None:
    points = sum(map(len, vertices))
    if points > MAX_POINTS:
        raise LimitError(f"outlines of {points} points; nobody draws more than {MAX_POINTS}")
    steps = sum(np.abs(v - np.roll(v, 1, axis=0)).sum(axis=0) for v in vertices)
    columns, rows = (int(n) for n in steps)  # that edges cross: Pillow's time, and twice the flips
    for crossed, what in ((rows, "rows"), (min(columns, size[0] * size[1]), "columns")):
        if crossed > MAX_CROSSINGS:
            raise LimitError(
                f"outlines whose edges cross {crossed} {what} of an image of {size[0]} x {size[1]}; nobody draws more "
                f"than {MAX_CROSSINGS}"
            )
