"""Outlines and points as radiologists draw them: the truth around a region, and a second reader's, who errs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from chextools.masks.mask import Mask

_LEAST = 20  # vertices of an outline, at least and at most
_MOST = 80
_SPECK = 0.1  # a piece of a region smaller than this part of its largest one is not outlined

Outline = list[list[float]]


@dataclass(frozen=True)
class Lesion:
    """One outlined lesion: its outlines [[x, y], ...] in pixels, and the pixel (x, y) that shows it best."""

    outlines: list[Outline]
    point: list[float]


def lesion_of(region: np.ndarray) -> Lesion | None:
    """The smooth outlines of a region, bool [h, w]; None where the picture shows nothing of it."""
    loops = [loop for loop in _loops(region) if _area(loop) > 0]
    if not loops:
        return None
    largest = max(map(_area, loops))
    limit = np.array(region.shape[::-1]) - 1
    outlines = [_listed(_smooth(loop, min(region.shape)), limit) for loop in loops if _area(loop) >= _SPECK * largest]
    return Lesion(outlines, _deepest(region, outlines))


def second_reading(
    lesions: list[Lesion], size: tuple[int, int], subtle: bool, rng: np.random.Generator
) -> tuple[list[Outline], list[list[float]]]:
    """(outlines, points) of a reader who shifts, swells and ripples outlines, and misses some subtle lesions."""
    outlines, points = [], []
    limit = np.array(size[::-1]) - 1
    for lesion in lesions:
        if rng.random() < (0.2 if subtle else 0.03):
            continue
        slip = rng.normal(0, 1, 2)
        swell = rng.normal(0.05, 0.17)
        for outline in lesion.outlines:
            vertices = np.array(outline)
            thick = max(2 * abs(_area(vertices)) / _perimeter(vertices), 1.0)
            around = np.arange(len(vertices)) / len(vertices) * 2 * np.pi
            waves = (rng.normal(0, 0.09) * np.cos(k * around + rng.uniform(0, 6.3)) for k in (2, 3, 5))
            ripple = sum(waves, np.zeros(len(vertices)))
            moved = vertices + 0.14 * thick * slip + (thick * (swell + ripple))[:, None] * _normals(vertices)
            outlines.append(_listed(moved, limit))
        beside = rng.random() < 0.06
        point = np.array(lesion.point) + (2.2 if beside else 0.32) * thick * rng.normal(0, 1, 2)
        points.append(np.clip(point, 0, limit).round(1).tolist())
    return outlines, points


def _loops(region: np.ndarray) -> list[np.ndarray]:
    """The closed lines between a region's pixels and the rest, [n, 2] (x, y); holes run the other way round."""
    padded = np.pad(region, 1)
    inner = padded[1:-1, 1:-1]
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for beside, (ax, ay), (bx, by) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inner & ~beside).tolist():
            following.setdefault((x + ax, y + ay), []).append((x + bx, y + by))
    loops = []
    while following:
        corner = start = next(iter(following))
        loop = []
        while corner in following:
            loop.append(corner)
            ways = following[corner]
            corner = ways.pop()
            if not ways:
                del following[loop[-1]]
            if corner == start:
                break
        loops.append(np.array(loop, float))
    return loops


def _smooth(loop: np.ndarray, unit: int) -> np.ndarray:
    """The loop without its pixels' corners, evenly spaced, 20 to 80 vertices."""
    reach = max(1, min(len(loop) // 16, round(0.012 * unit)))
    weights = np.hanning(2 * reach + 3)[1:-1]
    weights /= weights.sum()
    wrapped = np.concatenate([loop[-reach:], loop, loop[:reach]])
    smooth = np.stack([np.convolve(wrapped[:, k], weights, "valid") for k in (0, 1)], axis=1)
    count = int(np.clip(_perimeter(smooth) / (0.02 * unit), _LEAST, _MOST))
    closed = np.concatenate([smooth, smooth[:1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.arange(count) / count * length[-1]
    return np.stack([np.interp(at, length, closed[:, k]) for k in (0, 1)], axis=1)


def _listed(vertices: np.ndarray, limit: np.ndarray) -> Outline:
    return np.clip(vertices, 0, limit).round(1).tolist()


def _area(loop: np.ndarray) -> float:
    """Signed: positive for the outer side of a region."""
    x, y = loop[:, 0], loop[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _perimeter(loop: np.ndarray) -> float:
    return float(np.linalg.norm(np.roll(loop, -1, axis=0) - loop, axis=1).sum())


def _normals(loop: np.ndarray) -> np.ndarray:
    """Unit vectors outwards."""
    along = np.roll(loop, -1, axis=0) - np.roll(loop, 1, axis=0)
    across = np.stack([along[:, 1], -along[:, 0]], axis=1)
    return across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)


def _deepest(region: np.ndarray, outlines: list[Outline]) -> list[float]:
    """The pixel of the drawn outlines around which most of the region lies."""
    drawn = Mask.from_polygons(region.shape, outlines).to_array()
    thick = float(2 * drawn.sum() / sum(_perimeter(np.array(o)) for o in outlines))
    blurred = Image.fromarray(region.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(thick))
    y, x = np.unravel_index(np.argmax(np.where(drawn, np.asarray(blurred, np.int16), -1)), region.shape)
    return [float(x), float(y)]
