"""Heatmap to mask: flat maps, signs, thresholds, and sizes on the way."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.heatmaps.binarization import binarize
from chextools.heatmaps.surface import surface_of


def test_flat_map_is_an_empty_mask():
    for value in (0, 1, -3):
        assert binarize(np.full((4, 4), value, np.float32), (40, 50)).area == 0
        assert binarize(np.full((4, 4), value, np.float32), (40, 50), 0.5).area == 0


@pytest.mark.parametrize(("input_size", "smooth"), [(None, 1), ((299, 299), 1), ((300, 300), 1), (None, 3)])
def test_a_map_of_one_value_has_it_at_every_pixel(input_size, smooth):
    """What interpolation rounds its pixels to is no evidence, however often they are rounded."""
    for value in np.random.default_rng(0).uniform(-3, 3, 20).astype(np.float32):
        given = np.full((10, 8), value)
        surface = surface_of(given, (400, 500), input_size=input_size, smooth=smooth)
        assert surface.is_flat and (surface.dense() == value).all() and surface.argmax() == (0, 0)
        assert surface.minimum == surface.maximum == value
        assert surface.counts(np.array([value, value + 1], np.float32)).tolist() == [200_000, 0]
        assert surface.transitions(value).tolist() == [0, 200_000]
        assert surface.pixels(np.array([[3], [7]]), np.array([1, 2, 5])).tolist() == np.full((2, 3), value).tolist()
        assert surface.histogram()[0] == 200_000
        for threshold in (None, 0.5):
            assert not binarize(given, (400, 500), threshold, input_size=input_size, smooth=smooth).area


@pytest.mark.parametrize("shape", [(64, 1), (1, 64), (1, 2), (2, 1)])
def test_maps_one_node_wide(shape):
    values = np.linspace(0, 1, 64, dtype=np.float32)[: max(shape)].reshape(shape)
    surface = surface_of(values, (500, 400))
    mask = binarize(values, (500, 400), 0.5)
    assert (mask.to_array() == (surface.dense() > 0.5 * surface.maximum)).all() and mask.area
    assert surface.histogram().sum() == 200_000


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
