"""How far the boundaries of two masks are apart: hd95, assd and nsd (definitions: Maier-Hein, Reinke et al. 2024).

A mask's boundary is its pixels with one of the four neighbours outside the mask; beyond the image is outside. A
distance is from the centre of one boundary pixel to that of the nearest of the other mask. This is what MONAI measures;
the package surface-distance weighs boundary pixels by the length of the outline through them, and puts them half a
pixel elsewhere.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs

NSD_TOLERANCE = 2.0


def hd95(mask: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The 95th percentile of the distances from either boundary to the other, the greater of the two.

    spacing: height and width of a pixel, such as in mm. NaN where a mask is empty.
    """
    there, back = _distances(mask, truth, spacing)
    if not there.size:
        return float("nan")
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def assd(mask: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The mean distance of all pixels of both boundaries to the other boundary. NaN where a mask is empty."""
    there, back = _distances(mask, truth, spacing)
    if not there.size:
        return float("nan")
    return float((there.sum() + back.sum()) / (there.size + back.size))


def nsd(
    mask: Mask, truth: Mask, nsd_tolerance: float = NSD_TOLERANCE, spacing: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Normalised surface distance: the share of both boundaries that lies within a tolerance of the other.

    nsd_tolerance: in pixels, or in the unit of `spacing`. 0 where one mask is empty, NaN where both are.
    """
    if not (mask.area and truth.area):
        return float("nan") if not (mask.area or truth.area) else 0.0
    there, back = _distances(mask, truth, spacing)
    close = np.count_nonzero(there <= nsd_tolerance) + np.count_nonzero(back <= nsd_tolerance)
    return close / (there.size + back.size)


def boundary(mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    """The mask's pixels with a neighbour above, below, left or right that is outside: (y, x), int64."""
    starts, ends = column_runs(mask)
    height = mask.size[0]
    # In positions with two empty rows under each column and one empty column on each side, no run touches an edge.
    stride = height + 2
    column = starts // height
    shift = (column + 1) * stride - column * height + 1
    starts, ends = starts + shift, ends + shift
    middle = np.stack([starts + 1, np.maximum(ends - 1, starts + 1)])
    inner = _common(_common(middle, np.stack([starts + stride, ends + stride])), np.stack([starts, ends]) - stride)
    flips = np.sort(np.concatenate([starts, ends, *inner]))  # what is no inner pixel is boundary
    low, high = flips[0::2], flips[1::2]
    length = high - low
    position = np.arange(length.sum()) + np.repeat(low - np.cumsum(length) + length, length)
    x, y = np.divmod(position, stride)
    return y - 1, x - 1


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The runs [2, n] that two sets of sorted runs have in common."""
    from chextools.masks.runs import overlapping

    i, j = overlapping(*a, *b)
    low, high = np.maximum(a[0, i], b[0, j]), np.minimum(a[1, i], b[1, j])
    return np.stack([low, high])[:, high > low]


_known: deque[tuple[Mask, Mask, tuple[float, float], tuple[np.ndarray, np.ndarray]]] = deque(maxlen=2)


def _distances(mask: Mask, truth: Mask, spacing: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each pixel of the mask's boundary to the truth's, and back; found once for all metrics.

    Both are empty where a mask is.
    """
    for a, b, unit, found in _known:
        if a is mask and b is truth and unit == spacing:
            return found
    found = _measured(mask, truth, spacing)
    _known.append((mask, truth, spacing, found))
    return found


def _measured(mask: Mask, truth: Mask, spacing: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    if not (mask.area and truth.area):
        return np.empty(0), np.empty(0)
    from scipy.spatial import cKDTree

    a, b = (np.stack(boundary(each), axis=1) * np.asarray(spacing, float) for each in (mask, truth))
    trees = (cKDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False) for points in (b, a))
    there, back = (tree.query(points)[0] for tree, points in zip(trees, (a, b)))
    return there, back
