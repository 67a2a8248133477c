"""Masks as runs: equal to pycocotools byte for byte, arithmetic equal to that on pixels, bad input refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as cocomask

from chextools.errors import InputError
from chextools.masks.mask import Mask, intersection, union
from chextools.records.sizes import MAX_PIXELS

pixels = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))
pairs = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@given(pixels)
def test_rle_equals_pycocotools(array):
    theirs = cocomask.encode(np.asfortranarray(array, np.uint8))
    mask = Mask.from_array(array)
    assert mask.to_rle() == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    assert Mask.from_rle(mask.to_rle()) == mask
    assert Mask.from_rle({"size": list(array.shape), "counts": mask.to_counts().tolist()}) == mask
    np.testing.assert_array_equal(mask.to_array(), array)
    assert mask.area == array.sum()
    assert not array.any() or mask.box() == cocomask.toBbox(theirs).astype(int).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_large_masks_equal_pycocotools(seed):
    """Long runs take counts of several digits, and differences of either sign."""
    rng = np.random.default_rng(seed)
    array = np.zeros((3056, 2544), bool)
    for _ in range(20):
        y, x = rng.integers(0, 2500, 2)
        array[y : y + rng.integers(1, 2000), x : x + rng.integers(1, 900)] ^= True
    assert Mask.from_array(array).to_rle()["counts"] == cocomask.encode(np.asfortranarray(array))["counts"].decode()


@given(pairs)
def test_arithmetic_equals_that_on_pixels(pair):
    a, b = pair
    masks = [Mask.from_array(a), Mask.from_array(b)]
    assert intersection(*masks) == (a & b).sum()
    assert union(masks) == Mask.from_array(a | b)


@given(pixels, st.data())
def test_contains(array, data):
    y, x = (data.draw(st.integers(0, n - 1)) for n in array.shape)
    assert Mask.from_array(array).contains(y, x) == array[y, x]


def test_runs_of_no_length_vanish():
    """Some tools write counts of 0 in the middle; they are no runs."""
    split, joined = ({"size": [1, 6], "counts": counts} for counts in ([1, 2, 0, 2, 1], [1, 4, 1]))
    assert Mask.from_rle(split) == Mask.from_rle(joined)


@pytest.mark.parametrize(
    "rle, reason",
    [
        ({"size": [2, 3], "counts": [5]}, "add up to 5, but 2 x 3 is 6 pixels"),
        ({"size": [2, 3], "counts": [7, -1]}, "list of integers"),
        ({"size": [2, 3], "counts": []}, "empty"),
        ({"size": [2, 3], "counts": ""}, "empty"),
        ({"size": [2, 3], "counts": "\x7f"}, "alphabet"),
        ({"size": [2, 3], "counts": "é"}, "alphabet"),
        ({"size": [2, 3], "counts": "o"}, "truncated"),
        ({"size": [2, 3], "counts": "o" * 8 + "0"}, "too large"),
        ({"size": [2, 3], "counts": [10**12]}, "list of integers"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, f"more than {MAX_PIXELS} pixels"),
        ({"size": [2, -3], "counts": [6]}, "must be [height, width]"),
        ({"size": [2, 3.5], "counts": [6]}, "must be [height, width]"),
        ({"size": "ab", "counts": [6]}, "must be [height, width]"),
        ({"size": [2, 3]}, '"counts"'),
        ([1], '"counts"'),
        (None, '"counts"'),
    ],
)
def test_bad_rle_is_refused(rle, reason):
    with pytest.raises(InputError) as error:
        Mask.from_rle(rle)
    assert reason in str(error.value)


@settings(max_examples=2000)
@given(st.lists(st.integers(1, 2000), min_size=2, max_size=2), st.text(st.characters(codec="ascii"), max_size=40))
def test_fuzzed_counts_give_a_mask_or_one_line(size, counts):
    try:
        mask = Mask.from_rle({"size": size, "counts": counts})
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= mask.area <= size[0] * size[1] and (np.diff(mask.bounds) > 0).all()


def test_polygons_are_filled_with_their_outline():
    square = Mask.from_polygons((10, 12), [[[2, 3], [5, 3], [5, 6], [2, 6]]])
    expected = np.zeros((10, 12), bool)
    expected[3:7, 2:6] = True
    np.testing.assert_array_equal(square.to_array(), expected)
    truncated = Mask.from_polygons((10, 12), [[[2.9, 3.9], [5.9, 3.9], [5.9, 6.9], [2.9, 6.9]]])
    assert truncated == square


@pytest.mark.parametrize("seed", range(30))
def test_polygons_equal_pillow_on_the_whole_canvas(seed):
    """Cropping rows, which we do, changes no pixel; outlines may touch or leave the image by a pixel."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(5, 60, 2))
    polygons = [
        np.stack([rng.uniform(-0.9, width + 0.9, k), rng.uniform(-0.9, height + 0.9, k)], axis=1).tolist()
        for k in rng.integers(3, 9, 2)
    ]
    canvas = Image.new("1", (width, height))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
    np.testing.assert_array_equal(Mask.from_polygons((height, width), polygons).to_array(), np.array(canvas, bool))


@pytest.mark.parametrize(
    "polygon, reason",
    [
        ([[1, 1], [2, 2]], "has 2 points"),
        ([], "must be a list of [x, y] numbers"),
        ([[1, 1], [5, 1], [50, 5]], "the point (50, 5) outside the image of 10 x 12"),
        ([[1, 1], [5, 1], [5, -3]], "outside"),
        ([[1, 1], [5, 1], [5, float("inf")]], "numbers"),
        ([[1, 1], [5, 1], [5]], "numbers"),
        ("polygon", "numbers"),
        ([[1, 1], [5, 1], [1e300, 5]], "outside"),
    ],
)
def test_bad_polygons_are_refused(polygon, reason):
    with pytest.raises(InputError, match=r"^outline 2 ") as error:
        Mask.from_polygons((10, 12), [[[1, 1], [5, 1], [5, 5]], polygon])
    assert reason in str(error.value)
