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
