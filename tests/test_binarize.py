"""Binarising: what the study does to a map after Otsu, as properties against scipy's image operations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from chextools.heatmaps.binarization import binarize
from chextools.heatmaps.surface import surface_of
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


def test_flat_map_is_an_empty_mask():
    for value in (0, 1, -3):
        assert binarize(np.full((4, 4), value, np.float32), (40, 50)).area == 0
        assert binarize(np.full((4, 4), value, np.float32), (40, 50), 0.5).area == 0


def test_masks_with_holes_are_filled_only_by_otsu():
    ring = np.zeros((9, 9), np.float32)
    ring[2:7, 2:7] = 1
    ring[4, 4] = 0
    size = (90, 90)
    assert binarize(ring, size).contains(45, 45)
    assert not binarize(ring, size, 0.5).contains(45, 45)


def test_threshold_is_compared_in_double_precision():
    """m = float32(0.1) lies above 0.1: as float32 numbers the two would be equal."""
    values = np.array([[0, 0.1, 1]], np.float32)
    assert binarize(values, (1, 3), 0.1).to_array().tolist() == [[False, True, True]]
    assert binarize(values, (1, 3), float(np.float32(0.1))).to_array().tolist() == [[False, False, True]]


def test_signs():
    values = np.array([[-2, -1, 0, 1]], np.float32)
    size = (1, 4)
    assert surface_of(values, size, sign="positive").dense().tolist() == [[0, 0, 0, 1]]
    assert surface_of(values, size, sign="abs").dense().tolist() == [[2, 1, 0, 1]]
    assert surface_of(values, size).dense().tolist() == values.tolist()


def test_layer_maps_are_first_upsampled_to_the_network_input():
    from chextools.heatmaps.surface import bilinear

    rng = np.random.default_rng(0)
    layer = rng.random((7, 7), np.float32)
    direct = binarize(bilinear(layer, (224, 224)), (500, 400))
    assert binarize(layer, (500, 400), input_size=(224, 224)) == direct
    assert direct != binarize(layer, (500, 400))
