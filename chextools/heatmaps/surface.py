"""Bilinear upsampling of heatmaps, bit for bit as the reference's torch does it, without making the pixels.

A heatmap of 320 x 320 nodes becomes an X-ray's millions of pixels only to be normalised, counted into 256 bins and cut
at a threshold. Between four neighbouring nodes (a *cell*, some 7 x 9 pixels) the upsampled map is bilinear but for
rounding, so counts and borders are solved per cell and per column of a cell. A solution is trusted only where it is
further from its threshold than all rounding together; every other pixel is evaluated by the reference's own recipe
(`Surface.pixels`). The results are therefore exact, not close.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from chextools.heatmaps import raster
from chextools.heatmaps.levels import bin_starts, grey_levels
from chextools.heatmaps.patches import Patches
from chextools.heatmaps.pixels import AT_ONCE, Pixels, at_least
from chextools.heatmaps.smoothing import box_filter


class Surface(Pixels):
    """A heatmap as the reference upsamples it: its pixels, counted into bins and cut at thresholds."""

    def histogram(self) -> np.ndarray:
        """How many pixels fall into each of 256 bins, uint8(255 m) with m = (v - minimum) / max(v - minimum).

        int64 [256]. In a flat map, where m is 0/0, all are in bin 0.
        """
        pixels = self.size[0] * self.size[1]
        if self.minimum == self.maximum:
            return np.bincount([0], [pixels], 256).astype(np.int64)
        counts = self._patches.histogram() if self.is_solvable else None
        if counts is None and self._grey is not None:
            counts = raster.histogram(self._grey)
        if counts is None:
            counts = np.zeros(256, np.int64)
            for _, rows in self.rows():
                counts += np.bincount(grey_levels(rows, self.minimum, self.maximum).ravel(), minlength=256)
        return counts

    def counts(self, level: np.ndarray) -> np.ndarray:
        """How many pixels are >= each level: int64 [K], of finite float32 [K] in ascending order."""
        counts = self._patches.counts(level) if self.is_solvable else None
        if counts is None and self.is_solvable and self.minimum < self.maximum:
            counts = raster.counts(self, level)
        if counts is None:
            counts = np.zeros(len(level) + 1, np.int64)
            for _, rows in self.rows():
                counts += np.bincount(np.searchsorted(level, rows.ravel(), side="right"), minlength=len(counts))
            counts = at_least(counts)
        return counts

    def transitions_above(self, level: int) -> np.ndarray:
        """`transitions` of the pixels in bins above `level` of the histogram, 0 to 254."""
        if "_grey" in self.__dict__ and self._grey is not None:
            return raster.flips(self._grey.ravel(), level)
        return self.transitions(bin_starts(self.minimum, self.maximum)[level])

    @cached_property
    def _grey(self) -> np.ndarray | None:
        """Every pixel's grey level, where making them is cheaper than solving."""
        return raster.grey_columns(self) if self.is_solvable else None

    def transitions(self, threshold: np.float32) -> np.ndarray:
        """Where v >= threshold begins and ends, column by column: int64 [2 n], ascending, in positions x * H + y.

        The mask is [t0, t1), [t2, t3), ...; runs that touch across a column's end are one, as in COCO's RLE.
        """
        threshold = np.float32(threshold)
        ends = self._patches.transitions(threshold) if self.is_solvable else None
        if ends is None and self.is_solvable:
            ends = raster.transitions(self, threshold)
        if ends is None:
            columns = np.zeros(self.size[1] * self.size[0] + 2, bool)  # outside on either side
            mask = columns[1:-1].reshape(self.size[1], self.size[0]).T
            for y, rows in self.rows():
                mask[y : y + len(rows)] = rows >= threshold
            ends = np.flatnonzero(columns[1:] != columns[:-1])
        return ends

    @cached_property
    def _patches(self) -> Patches:
        return Patches(weakref.proxy(self))  # no circle: a map of an X-ray's size is freed when it is left


class _Flat(Surface):
    """A map of one value, which all its pixels have: what interpolation would round them to tells nothing."""

    def __init__(self, value: np.ndarray, size: tuple[int, int]):
        super().__init__(value, size)
        self._is_bounded = self.is_solvable = False

    def pixels(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast_shapes(y.shape, x.shape), self.values[0, 0])

    def rows(self) -> Iterator[tuple[int, np.ndarray]]:
        step = max(1, AT_ONCE // self.size[1])
        for y in range(0, self.size[0], step):
            yield y, np.full((min(step, self.size[0] - y), self.size[1]), self.values[0, 0])


def bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map upsampled (or sampled down) to size (H, W): float32 [H, W]."""
    return Surface(values, size).dense()


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
    if values.min() == values.max():
        return _Flat(values[:1, :1], size)
    if input_size is not None and values.shape != tuple(input_size):
        values = bilinear(values, input_size)
    surface = Surface(values, size)
    if smooth > 1:
        surface = Surface(box_filter(surface.dense(), smooth), size)
    return surface
