"""Shapes to masks: boxes by the centres of pixels, runs both ways, what lies outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chextools.errors import InputError
from chextools.masks.mask import Mask
from chextools.masks.shapes import Box, Ellipse, Painted, Polygon, draw, mask_of_runs, text_of_runs

side = st.floats(-3, 12, allow_nan=False)


@given(side, side, st.floats(1, 12), st.floats(1, 12))
@settings(max_examples=100, deadline=None)
def test_a_box_is_the_pixels_whose_centres_lie_in_it(x, y, width, height):
    rows, columns = np.mgrid[:9, :10] + 0.5
    expected = (columns >= x) & (columns < x + width) & (rows >= y) & (rows < y + height)
    assert (Box(x, y, width, height).mask((9, 10)).to_array() == expected).all()


@pytest.mark.parametrize("box", [(2, 2, 0.1, 0.1), (2.6, 2.6, 0.2, 0.2)])
def test_a_box_is_at_least_one_pixel(box):
    assert np.argwhere(Box(*box).mask((9, 9)).to_array()).tolist() == [[2, 2]]


@given(arrays(bool, (7, 6)))
@settings(max_examples=50, deadline=None)
def test_absolute_runs_there_and_back(pixels):
    mask = Mask.from_array(pixels)
    assert mask_of_runs(text_of_runs(mask), (7, 6), "absolute") == mask


@given(arrays(bool, (7, 6)))
@settings(max_examples=50, deadline=None)
def test_scaling_up_and_down_again_is_the_same(pixels):
    mask = Mask.from_array(pixels)
    large = Painted(mask).mask((21, 18))
    assert large.area == 9 * mask.area
    assert Painted(large).mask((7, 6)) == mask


def test_a_shape_far_outside_is_refused_and_one_a_little_outside_cut():
    (cut,) = draw([Box(-2, -2, 4, 4)], (20, 30))
    assert cut.area == 4
    with pytest.raises(InputError, match="a box reaches 30 pixels outside the image of 20 x 30"):
        draw([Box(40, 0, 20, 4)], (20, 30))


def test_a_circle_has_its_area():
    assert abs(Ellipse(50, 50, 30, 30).mask((100, 100)).area - np.pi * 900) < 10


def test_turning_by_90_degrees_swaps_the_radii():
    assert Ellipse(50, 50, 30, 10, 90).mask((100, 100)) == Ellipse(50, 50, 10, 30).mask((100, 100))


@pytest.mark.parametrize(
    "points", [[[1, 2], [3, 4]], [[1, 2], [3, "x"], [4, 5]], "abc", [[1, 2, 3]] * 3, [[1, None]] * 3]
)
def test_an_outline_that_is_none(points):
    with pytest.raises(InputError):
        Polygon.of(points)
