"""How well predictions overlap the truth: IoU, Dice, hits and pixel counts, from areas and points, never from pixels.

Areas are arrays of pixel counts that broadcast against each other; NaN marks what is not known. The definitions, and
where they are undefined, are the study's (Saporta et al. 2022, Methods).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.errors import InputError
from chextools.masks.mask import Mask


def is_defined(predicted: np.ndarray, truth: np.ndarray, slice_: str) -> np.ndarray:
    """Where IoU and Dice are defined: both masks not empty ("positive"), or not both empty ("full")."""
    if slice_ == "positive":
        return (predicted > 0) & (truth > 0)
    return predicted + truth > 0


def iou(both: np.ndarray, predicted: np.ndarray, truth: np.ndarray, slice_: str = "positive") -> np.ndarray:
    """Intersection over union (Jaccard's index), NaN where undefined."""
    return _ratio(both, predicted + truth - both, is_defined(predicted, truth, slice_))


def dice(both: np.ndarray, predicted: np.ndarray, truth: np.ndarray, slice_: str = "positive") -> np.ndarray:
    """Twice the intersection over the sum of the areas (Dice's coefficient, F1), NaN where undefined."""
    return _ratio(2 * both, predicted + truth, is_defined(predicted, truth, slice_))


def pixel_ratios(
    both: np.ndarray, predicted: np.ndarray, truth: np.ndarray, pixels: np.ndarray
) -> dict[str, np.ndarray]:
    """Precision, recall (sensitivity) and specificity of pixels, of the four areas; NaN where undefined."""
    outside = pixels - truth
    return {
        "precision": _ratio(both, predicted, predicted > 0),
        "recall": _ratio(both, truth, truth > 0),
        "specificity": _ratio(outside - (predicted - both), outside, outside > 0),
    }


def point_hit(points: Sequence[Sequence[float]], truth: Mask) -> bool:
    """Whether any point [x, y], truncated to a pixel, lies in the truth; no point is a miss.

    Raises InputError for a point that is not two numbers inside the image.
    """
    return any(truth.contains(y, x) for y, x in pixels_of(points, truth.size))


def pixels_of(points: Sequence[Sequence[float]], size: tuple[int, int]) -> list[tuple[int, int]]:
    """The pixels (y, x) of points [x, y], truncated. Raises InputError for one that is not two numbers inside."""
    height, width = size
    found = []
    if not isinstance(points, (list, tuple)):
        raise InputError(f"{str(points)[:40]!r} is not a list of points")
    for point in points:
        try:
            x, y = (int(v) for v in point if not isinstance(v, (str, bool)))
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{str(point)[:40]!r} is not a point [x, y]") from None
        if not (0 <= x < width and 0 <= y < height and min(point) >= 0):
            raise InputError(f"the point ({point[0]:g}, {point[1]:g}) lies outside the image of {height} x {width}")
        found.append((y, x))
    return found


def centred_disc(size: tuple[int, int], area: int) -> Mask:
    """A disc of about this area at the image's centre, cut at its edges: where one looks who does not look."""
    height, width = size
    columns = np.arange(width)
    inside = area / np.pi - (columns - (width - 1) / 2) ** 2
    half = np.sqrt(np.maximum(inside, 0))
    first = np.clip(np.ceil((height - 1) / 2 - half), 0, height).astype(np.int64)
    last = np.clip(np.floor((height - 1) / 2 + half), -1, height - 1).astype(np.int64)
    columns = columns[(inside > 0) & (last >= first)]
    flips = np.stack([columns * height + first[columns], columns * height + last[columns] + 1], axis=1).ravel()
    return Mask.from_flips(size, flips)


def _ratio(part: np.ndarray, whole: np.ndarray, defined: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, np.divide(part, whole), np.nan)
