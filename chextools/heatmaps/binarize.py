"""Heatmap to mask, pixel for pixel as the study does it (Saporta et al. 2022, Methods), without making the pixels.

The heatmap is upsampled to the X-ray's size, its minimum subtracted and the rest divided by its maximum. Then either
Otsu's threshold over 256 grey levels separates it, and contours longer than one point are filled; or a given
threshold cuts it, without filling.
"""

from __future__ import annotations

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.levels import level_above, levels, otsu
from chextools.heatmaps.upsample import Surface, bilinear
from chextools.masks.masks import Mask

SIGNS = ("positive", "abs", "raw")

_ROWS_AT_ONCE = 256


def binarize(
    values: np.ndarray,
    size: tuple[int, int],
    threshold: float | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    smooth: int = 1,
    sign: str = "raw",
) -> Mask:
    """The mask of a heatmap.

    values: float32 [h, w], finite.
    size: (height, width) of the X-ray in pixels.
    threshold: of the normalised map in [0, 1]; None for Otsu's.
    input_size: the network's input, to which a map at a layer's resolution is upsampled first.
    smooth: side in pixels of a box filter over the upsampled map. (The study filters a colour rendering instead.)
    sign: which evidence counts in a signed map: positive (negatives are 0), abs, or raw (least to greatest).

    A flat map gives an empty mask, as 0/0 does in the study. (Where it is not 0, the study divides two roundings.)
    """
    surface = surface_of(values, size, input_size=input_size, smooth=smooth, sign=sign)
    if surface.is_flat:
        return Mask.empty(size)
    if threshold is not None:
        return Mask(size, surface.transitions(level_above(threshold, surface.minimum, surface.maximum)))
    cut = otsu(surface.histogram())
    if cut >= 255:
        return Mask.empty(size)
    mask = Mask(size, surface.transitions(levels(surface.minimum, surface.maximum)[cut]))
    return without_islands(filled(mask))


def surface_of(
    values: np.ndarray,
    size: tuple[int, int],
    *,
    input_size: tuple[int, int] | None = None,
    smooth: int = 1,
    sign: str = "raw",
) -> Surface:
    """The heatmap upsampled to `size`; parameters as in `binarize`."""
    if sign == "positive":
        values = np.maximum(values, np.float32(0))
    elif sign == "abs":
        values = np.abs(values)
    if input_size is not None and values.shape != tuple(input_size):
        values = bilinear(values, input_size)
    surface = Surface(values, size)
    if smooth > 1:
        surface = Surface(box_filter(surface.dense(), smooth), size)
    return surface


def box_filter(values: np.ndarray, side: int) -> np.ndarray:
    """Mean over a box of `side` x `side` pixels around each pixel, borders mirrored about the edge pixel; float32."""
    if side > min(values.shape):
        raise InputError(f"a box of {side} pixels is larger than the image of {values.shape[0]} x {values.shape[1]}")
    return _row_means(_row_means(values, side).T, side).T


def _row_means(values: np.ndarray, side: int) -> np.ndarray:
    """Means of `side` neighbours along each row, in blocks of rows that bound the memory of the running sums."""
    means = np.empty_like(values)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        padded = np.pad(values[rows], ((0, 0), (side // 2, side - 1 - side // 2)), mode="reflect")
        sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
        means[rows] = (sums[:, side:] - sums[:, :-side]) / side
    return means


def filled(mask: Mask) -> Mask:
    """The mask without holes: background that no path of edge-sharing pixels joins to the border becomes mask."""
    height, width = mask.size
    starts, ends = column_runs(mask)
    column = starts // height
    if not (column[1:] == column[:-1]).any():
        return mask  # no column holds a gap between two runs
    # Gaps: background runs between two runs of one column; the only background that can be enclosed.
    inner = np.flatnonzero(column[1:] == column[:-1])
    gap_start, gap_end = ends[inner], starts[inner + 1]
    # A gap is open if, in a column next to it, it touches background that reaches that column's top or bottom.
    first = np.full(width, height, np.int64)  # rows of each column's first mask pixel and past its last
    last = np.zeros(width, np.int64)
    np.minimum.at(first, column, starts - column * height)
    np.maximum.at(last, column, ends - column * height)
    gap_column = gap_start // height
    top, bottom = gap_start - gap_column * height, gap_end - gap_column * height
    is_open = (gap_column == 0) | (gap_column == width - 1)
    for step in (-1, 1):
        beside = np.clip(gap_column + step, 0, width - 1)
        is_open |= (top < first[beside]) | (bottom > last[beside])
    # Gaps of neighbouring columns that share rows are one background: openness spreads along them.
    a, b = overlapping(gap_start + height, gap_end + height, gap_start, gap_end)
    is_open = _spread(is_open, a, b)
    if is_open.all():
        return mask
    closed = ~is_open
    flips = np.sort(np.concatenate([starts, ends, gap_start[closed], gap_end[closed]]))
    return Mask.from_flips(mask.size, flips)


def without_islands(mask: Mask) -> Mask:
    """The mask without its pixels that touch no other, not even at a corner."""
    height, width = mask.size
    starts, ends = column_runs(mask)
    single = np.flatnonzero(ends - starts == 1)
    if not single.size:
        return mask
    column = starts[single] // height
    row = starts[single] - column * height
    alone = np.ones(single.size, bool)
    for step in (-1, 1):
        beside = column + step
        low = beside * height + np.maximum(row - 1, 0)
        high = beside * height + np.minimum(row + 2, height)
        # A run reaches into [low, high) when it starts before high and ends after low.
        touches = np.searchsorted(starts, high, "left") > np.searchsorted(ends, low, "right")
        alone &= ~touches | (beside < 0) | (beside >= width)
    keep = np.ones(starts.size, bool)
    keep[single[alone]] = False
    flips = np.stack([starts[keep], ends[keep]], axis=1).ravel()
    return Mask.from_flips(mask.size, flips)


def column_runs(mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the runs, cut where one goes on in the next column."""
    height = mask.size[0]
    crosses = mask.starts // height != (mask.ends - 1) // height
    if not crosses.any():
        return mask.starts, mask.ends
    cuts = [
        np.arange(start // height + 1, (end - 1) // height + 1) * height
        for start, end in zip(mask.starts[crosses], mask.ends[crosses])
    ]
    cuts = np.concatenate(cuts)
    return np.sort(np.concatenate([mask.starts, cuts])), np.sort(np.concatenate([mask.ends, cuts]))


def overlapping(
    a_start: np.ndarray, a_end: np.ndarray, b_start: np.ndarray, b_end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j) for which run i of a and run j of b share a position; both sorted and disjoint."""
    low = np.searchsorted(b_end, a_start, "right")
    high = np.searchsorted(b_start, a_end, "left")
    count = np.maximum(high - low, 0)
    i = np.repeat(np.arange(a_start.size), count)
    j = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    return i, j


def _spread(marked: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mark everything that pairs (a[k], b[k]) join, directly or through others, to what is marked."""
    root = components(marked.size, a, b)
    return np.bincount(root, marked, marked.size)[root] > 0


def components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The least member of each item's connected component, int64 [n], for edges (a[k], b[k])."""
    root = np.arange(n)
    while True:
        # Hook the greater root under the lesser, then shorten all paths (Shiloach and Vishkin 1982).
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        join = low != high
        if not join.any():
            return root
        np.minimum.at(root, high[join], low[join])
        while True:
            parent = root[root]
            if np.array_equal(parent, root):
                break
            root = parent
