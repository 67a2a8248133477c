"""The closed lines around a mask."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.masks.loops import loops_around
from chextools.masks.mask import Mask


@pytest.mark.parametrize("seed", range(4))
def test_loops_enclose_the_pixels_of_the_mask_and_no_others(seed):
    """A pixel's centre is in the mask if a ray from it crosses the loops an odd number of times."""
    rng = np.random.default_rng(seed)
    array = rng.random((13, 11)) < (0.2, 0.5, 0.8, 0.95)[seed]
    ends = [(loop, np.roll(loop, -1, axis=0)) for loop in loops_around(Mask.from_array(array))]
    a, b = (np.concatenate(part) for part in zip(*ends))
    for y in range(13):
        for x in range(11):
            cy, cx = y + 0.5 + 1e-7, x + 0.5
            crosses = (a[:, 1] > cy) != (b[:, 1] > cy)
            at = a[crosses, 0] + (cy - a[crosses, 1]) / (b - a)[crosses, 1] * (b - a)[crosses, 0]
            assert (at > cx).sum() % 2 == array[y, x]


def test_a_loop_of_a_full_size_mask_has_its_corners():
    pixels = np.zeros((2320, 2828), bool)
    pixels[500:1500, 700:1900] = True
    (loop,) = loops_around(Mask.from_array(pixels))
    assert (loop.min(axis=0).tolist(), loop.max(axis=0).tolist()) == ([700, 500], [1900, 1500])
    assert loops_around(Mask.empty((5, 5))) == []
