"""Holes, islands and components on runs, as properties against scipy's image operations and union-find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from chextools.masks.mask import Mask
from chextools.masks.morphology import filled, without_islands
from chextools.masks.runs import components

EIGHT = np.ones((3, 3), int)


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """Noise, its dilations, frames within frames and single rows: holes and islands of every kind."""
    height, width = rng.integers(1, 24, 2)
    array = rng.random((height, width)) < rng.choice([0.02, 0.3, 0.5, 0.7, 0.98])
    if rng.random() < 0.3:
        array = ndimage.binary_dilation(array)
    if rng.random() < 0.3:
        y, x = np.mgrid[:height, :width]
        array ^= np.maximum(abs(y - height // 2), abs(x - width // 2)) % rng.integers(2, 5) == 0
    return array


def without_single_pixels(array: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(array, EIGHT)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    return array & (sizes[labels] > 1)


@pytest.mark.parametrize("seed", range(5))
def test_holes_and_islands_equal_scipy(seed):
    rng = np.random.default_rng(seed)
    for array in (random_mask(rng) for _ in range(400)):
        holes = ndimage.binary_fill_holes(array)  # background connected by edges, mask by corners too
        np.testing.assert_array_equal(filled(Mask.from_array(array)).to_array(), holes)
        islands = without_islands(Mask.from_array(array)).to_array()
        np.testing.assert_array_equal(islands, without_single_pixels(array))
        both = without_islands(filled(Mask.from_array(array))).to_array()
        np.testing.assert_array_equal(both, without_single_pixels(holes))


def test_a_spiral_is_open_and_its_closing_fills_it():
    """Openness reaches the centre of a long winding corridor, and one pixel shuts it."""
    spiral = np.zeros((21, 21), bool)
    y, x, dy, dx = 0, 0, 0, 1
    spiral[0, 0] = True
    for length in [20, 20, 20, 18, 18, 16, 16, 14, 14, 12, 12, 10, 10, 8, 8, 6, 6, 4, 4]:
        for _ in range(length):
            y, x = y + dy, x + dx
            spiral[y, x] = True
        dy, dx = dx, -dy
    assert filled(Mask.from_array(spiral)) == Mask.from_array(spiral)
    spiral[1, 0] = True
    assert filled(Mask.from_array(spiral)).area == ndimage.binary_fill_holes(spiral).sum() > 300


@pytest.mark.parametrize("seed", range(20))
def test_components_are_those_of_union_find(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    edges = rng.integers(0, n, (int(rng.integers(0, 60)), 2))
    root = list(range(n))

    def find(i):
        while root[i] != i:
            i = root[i]
        return i

    for a, b in edges:
        a, b = find(a), find(b)
        root[max(a, b)] = min(a, b)
    assert components(n, edges[:, 0], edges[:, 1]).tolist() == [find(i) for i in range(n)]
