"""The recipe by which the reference's torch upsamples bilinearly: which nodes a pixel lies between, and their weights.

All values are float32. The recipe, from torch's CPU kernel with fma: along x first, then along y,
fma(node[i0], w0, round(node[i1] * w1)), with half-pixel centres and coordinates clipped at the first node. Where height
and width add up to 128 or less torch takes another kernel, which adds the four corners one after the other.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


class Axis:
    """One direction of the resampling: for each of `size` pixels the nodes below and above it, and their weights."""

    def __init__(self, nodes: int, size: int):
        self.nodes, self.size = nodes, size
        self.step = np.float32(nodes) / np.float32(size)
        self.source = (np.float64(self.step) * (np.arange(size) + 0.5) - 0.5).astype(np.float32)  # one rounding: an fma
        clipped = np.maximum(self.source, np.float32(0))
        self.lower = clipped.astype(np.intp)
        self.upper = np.minimum(self.lower + 1, nodes - 1)
        self.upper_weight = clipped - self.lower.astype(np.float32)
        self.lower_weight = np.float32(1) - self.upper_weight
        self.cells = Cells(self, range(nodes))


class Cells:
    """An axis cut at some of its nodes, its first and last among them: the pixels of each of the knots' + 1 cells.

    The first and the last cell lie outside the nodes, where the map is flat.
    """

    def __init__(self, axis, knots):
        knots = np.array(knots)
        cell = np.searchsorted(knots, np.floor(axis.source), side="right")
        self.first = np.searchsorted(cell, np.arange(len(knots) + 2))  # first pixel of each cell, `size` at the end
        self.count = np.diff(self.first)
        self.most = int(self.count.max())
        begin = axis.source[np.minimum(self.first[:-1], axis.size - 1)]
        span = np.diff(knots, prepend=-1, append=axis.nodes)
        # In its cell the first pixel lies at `offset`, the others each a `step` on, but for rounding by `uneven`.
        self.offset = ((begin - knots[np.arange(-1, len(knots))]) / span).astype(np.float32)
        self.offset[[0, -1]] = 0
        self.step = (axis.step / span).astype(np.float32)
        even = begin[cell] + np.float64(axis.step) * (np.arange(axis.size) - self.first[cell])
        self.uneven = (np.abs(axis.source - even).max() / span).astype(np.float32)
        # Cells of about one width are solved together.
        self.classes, widths = [], sorted(set(self.count.tolist()) - {0})
        while widths:
            alike = [width for width in widths if 5 * width >= 4 * widths[-1]]
            self.classes.append((self.count >= alike[0]) & (self.count <= alike[-1]))
            widths = widths[: -len(alike)]


axis_of = lru_cache(16)(Axis)  # the maps of one X-ray share theirs
cells_of = lru_cache(64)(Cells)


def fma(a, b, c):
    """a * b + c in float32: the float64 product of two float32 is exact."""
    total = np.multiply(a, b, dtype=np.float64)
    total += c
    return total.astype(np.float32)


def lerp(low, high, low_weight, high_weight):
    return fma(low, low_weight, high * high_weight)
