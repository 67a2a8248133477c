"""Maps that are noise between pixels: grey levels, histograms, borders and counts against those of every pixel."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.heatmaps import raster
from chextools.heatmaps.levels import bin_starts, grey_levels, levels_above
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask


def maps(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    noise = rng.normal(size=shape)
    return {
        "noise": noise,
        "far from 0": 40 + noise,
        "tiny": 1e-20 * noise,
        "ReLU": np.maximum(noise, 0),
        "abs": np.abs(noise),
        "a spike": np.where(rng.random(shape) < 0.01, 100, 0) + 0.1 * noise,
        "few values": rng.integers(0, 4, shape) * (255 / 3),
        "black around": noise * (rng.random(shape) < 0.3),
    }


@pytest.mark.parametrize(
    "shape, size", [((40, 40), (151, 98)), ((64, 50), (97, 130)), ((3, 90), (260, 203)), ((33, 2), (70, 71))]
)
def test_equal_to_every_pixel(shape, size):
    rng = np.random.default_rng(sum(shape))
    used = 0
    for name, values in maps(rng, shape).items():
        surface = Surface(values.astype(np.float32), size)
        dense = surface.dense()
        low, high = dense.min(), dense.max()
        assert (surface.minimum, surface.maximum) == (low, high)
        expected = grey_levels(dense, low, high)
        grey = raster.grey_columns(surface)
        if grey is not None:
            used += 1
            np.testing.assert_array_equal(grey.T, expected, err_msg=name)
            np.testing.assert_array_equal(raster.histogram(grey), np.bincount(expected.ravel(), minlength=256))
        np.testing.assert_array_equal(surface.histogram(), np.bincount(expected.ravel(), minlength=256), err_msg=name)
        for cut in (0, 1, 100, 254):
            mask = Mask(size, surface.transitions_above(cut))
            assert mask == Mask.from_array(expected > cut), (name, cut)
        some = np.concatenate(
            [bin_starts(low, high)[[0, 77, 254]], rng.choice(dense.ravel(), 5), [low, high, 2 * high + 1]]
        )
        for level in some.astype(np.float32):
            found = raster.transitions(surface, level)
            if found is not None:
                assert Mask(size, found) == Mask.from_array(dense >= level), (name, level)
            assert Mask(size, surface.transitions(level)) == Mask.from_array(dense >= level), (name, level)
        for level in (
            levels_above([0.05, 0.3, 0.5, 0.9], low, high),
            np.sort(some).astype(np.float32),
            np.zeros(0, np.float32),
        ):
            expected_counts = [(dense >= at).sum() for at in level]
            found = raster.counts(surface, level)
            assert found is None or found.tolist() == expected_counts, name
            assert surface.counts(level).tolist() == expected_counts
    assert used >= 5  # of eight: not where a tenth of all pixels lies on a level


def test_an_odd_number_of_pixels_is_counted():
    grey = np.arange(15, dtype=np.uint8).reshape(5, 3)
    assert raster.histogram(grey)[:16].tolist() == [1] * 15 + [0]


@pytest.mark.parametrize("inside", [[0, 0], [1, 1, 1], [1, 0, 1], [0, 1, 1, 0], [1], [0]])
def test_flips(inside):
    expected = np.flatnonzero(np.diff(np.array([0, *inside, 0])))
    assert raster.flips(np.array(inside, bool)).tolist() == expected.tolist()


def test_a_level_that_many_pixels_have_is_left_to_the_recipe():
    """A tenth of a map's pixels are 0 and the threshold is, too: they would all be in doubt."""
    values = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    values[:, :20] = 0
    surface = Surface(values, (150, 150))
    assert raster.transitions(surface, np.float32(0)) is None
    assert Mask((150, 150), surface.transitions(np.float32(0))) == Mask.from_array(surface.dense() >= 0)
