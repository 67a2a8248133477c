"""How a heatmap is sampled, its pixels and its patches: bilinear interpolation, spelled out in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.heatmaps import patches, pixels, sampling
from chextools.heatmaps.levels import bin_starts
from chextools.heatmaps.patches import Patches
from chextools.heatmaps.pixels import Pixels

F32 = np.float32


def interpolated(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres, in float64: numpy's own linear interpolation, along x and then along y."""
    height, width = values.shape
    at_y = (np.arange(size[0]) + 0.5) * height / size[0] - 0.5
    at_x = (np.arange(size[1]) + 0.5) * width / size[1] - 0.5
    across = np.array([np.interp(at_x, np.arange(width), row) for row in values.astype(float)])
    return np.array([np.interp(at_y, np.arange(height), column) for column in across.T]).T


def smooth(nodes=(20, 24), coarse=(4, 5)) -> np.ndarray:
    """A map as Grad-CAM gives it: a coarse one, rectified and upsampled."""
    return interpolated(np.maximum(np.random.default_rng(0).standard_normal(coarse), 0), nodes).astype(F32)


# Sampling


def test_axis_by_hand():
    """Two nodes, four pixels: their centres lie at -1/4, 1/4, 3/4 and 5/4."""
    axis = sampling.Axis(2, 4)
    assert axis.source.tolist() == [-0.25, 0.25, 0.75, 1.25]
    assert axis.lower.tolist() == [0, 0, 0, 1] and axis.upper.tolist() == [1, 1, 1, 1]
    assert axis.upper_weight.tolist() == [0, 0.25, 0.75, 0.25]
    assert (axis.lower_weight + axis.upper_weight == 1).all()
    assert axis.cells.first.tolist() == [0, 1, 3, 4] and axis.cells.count.tolist() == [1, 2, 1]


@pytest.mark.parametrize("nodes, size", [(1, 1), (1, 50), (7, 7), (7, 3), (10, 320), (320, 3056), (33, 100)])
def test_cells_hold_every_pixel_once_and_in_their_nodes(nodes, size):
    axis = sampling.Axis(nodes, size)
    assert axis.cells.count.sum() == size and len(axis.cells.count) == nodes + 1
    assert axis.cells.most == axis.cells.count.max()
    cell = np.repeat(np.arange(nodes + 1), axis.cells.count)  # cell k lies between the nodes k - 1 and k
    assert ((axis.source >= cell - 1) & (axis.source < cell))[(cell > 0) & (cell < nodes)].all()
    in_classes = np.sum(axis.cells.classes, axis=0)
    np.testing.assert_array_equal(in_classes, axis.cells.count > 0)


def test_fma_rounds_once():
    """a * a is 1 + 2^-11 + 2^-24: as float32 it is 1 + 2^-11, so that two roundings would lose what remains."""
    a = F32(1 + 2.0**-12)
    assert sampling.fma(a, a, F32(-(1 + 2.0**-11))) == F32(2.0**-24)
    assert a * a + F32(-(1 + 2.0**-11)) == 0


def test_maps_of_one_x_ray_share_their_axes():
    assert sampling.axis_of(31, 977) is sampling.axis_of(31, 977)


# Pixels


@pytest.mark.parametrize(
    "nodes, size", [((5, 6), (50, 70)), ((5, 6), (300, 411)), ((30, 20), (9, 7)), ((1, 4), (3, 90))]
)
def test_pixels_are_bilinear_but_for_rounding(nodes, size):
    values = np.random.default_rng(0).standard_normal(nodes).astype(F32)
    found = Pixels(values, size)
    dense = found.dense()
    np.testing.assert_allclose(dense, interpolated(values, size), atol=2e-6)
    rng = np.random.default_rng(1)
    y, x = rng.integers(0, size[0], 40), rng.integers(0, size[1], 40)
    np.testing.assert_array_equal(found.pixels(y, x), dense[y, x])
    assert (found.minimum, found.maximum) == (dense.min(), dense.max())
    assert found.argmax() == divmod(int(dense.argmax()), size[1])


def test_rows_come_in_blocks_from_top_to_bottom(monkeypatch):
    found = Pixels(smooth(), (200, 100))
    whole = found.dense()
    monkeypatch.setattr(pixels, "AT_ONCE", 1000)
    blocks = list(found.rows())
    assert [y for y, _ in blocks] == list(range(0, 200, 20))
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in blocks]), whole)


def test_a_map_of_one_value_is_flat_and_of_two_is_not():
    flat = Pixels(np.full((3, 3), 0.1, F32), (90, 91))
    assert flat.is_flat  # though its pixels are not all alike, by rounding
    assert len(np.unique(flat.dense())) > 1
    assert not Pixels(np.array([[0, 1]], F32), (90, 91)).is_flat


@pytest.mark.parametrize("shape, size", [((0, 3), (4, 4)), ((3,), (4, 4)), ((3, 3), (0, 4))])
def test_what_cannot_be_upsampled(shape, size):
    with pytest.raises(ValueError, match="cannot upsample a map of shape"):
        Pixels(np.zeros(shape, F32), size)


def test_counts_of_levels_and_corners_of_cells():
    assert pixels.at_least(np.array([5, 3, 0, 2])).tolist() == [5, 2, 2]  # of levels 1, 2, 3: 3 + 0 + 2, 0 + 2, 2
    assert pixels.over_cells(np.maximum, np.array([[1, 2, 0], [0, 5, 7]])).tolist() == [5, 7]
    assert pixels.over_cells(np.minimum, np.array([[1, 2, 0], [0, 5, 7]])).tolist() == [0, 0]


# Patches


def test_a_smooth_map_is_counted_and_cut_without_pixels_as_its_pixels_are():
    found = Pixels(smooth(), (1500, 1700))
    dense, cut = found.dense(), Patches(found)
    low, high = dense.min(), dense.max()
    levels = np.array([low, 0.1, 0.5, high, high + 1], F32)
    assert cut.counts(levels).tolist() == [int((dense >= level).sum()) for level in levels]
    below = np.searchsorted(bin_starts(low, high), dense.ravel(), side="right")
    np.testing.assert_array_equal(cut.histogram(), np.bincount(below, minlength=256))
    inside = np.concatenate([[False], (dense >= F32(0.5)).T.ravel(), [False]])
    np.testing.assert_array_equal(cut.transitions(F32(0.5)), np.flatnonzero(inside[1:] != inside[:-1]))


def test_what_patches_cannot_tell_cheaply_is_left_to_the_pixels():
    """Noise crosses levels in every cell: making its pixels is cheaper."""
    noise = np.random.default_rng(0).standard_normal((60, 70)).astype(F32)
    cut = Patches(Pixels(noise, (300, 350)))
    assert cut.histogram() is None and cut.transitions(F32(0)) is None


def test_a_map_that_was_upsampled_is_few_patches():
    """From 4 x 5 nodes: kinks at few lines, however fine the grid in which it comes."""
    knots = patches._knots(np.array([[0.0], [0.5], [0.0]]), F32(0.1), 5)
    assert knots.tolist() == [0, 2, 4]
    lines = np.array([[0.0], [4.0], [2.0]], F32)
    assert patches._between(lines, knots).ravel().tolist() == [0, 2, 4, 3, 2]
