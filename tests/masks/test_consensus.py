"""One mask of several readers: votes equal to those on pixels, STAPLE equal to ITK's."""

import numpy as np
import pytest
from conftest import need_module
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chextools.errors import InputError
from chextools.masks import consensus
from chextools.masks.consensus import RULES, agreed, staple
from chextools.masks.mask import Mask
from chextools.metrics import catalogue


@given(st.lists(arrays(bool, (5, 4)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_votes_are_those_of_pixels(pixels):
    votes = np.sum(pixels, axis=0)
    expected = {"union": votes > 0, "intersection": votes == len(pixels), "majority": votes > len(pixels) / 2}
    for rule, mask in expected.items():
        assert agreed([Mask.from_array(p) for p in pixels], rule) == Mask.from_array(mask)


def readers(seed: int, count: int) -> list[np.ndarray]:
    """Readers who see one region, moved a little, with a few pixels wrong."""
    rng = np.random.default_rng(seed)
    region = np.zeros((60, 50), bool)
    region[10:30, 8:30] = True
    moved = [np.roll(region, rng.integers(-4, 5, 2), (0, 1)) for _ in range(count)]
    return [mask ^ (rng.random(mask.shape) < 0.02 * k) for k, mask in enumerate(moved)]


@pytest.mark.parametrize("seed, count", [(0, 3), (1, 4), (2, 5), (3, 2)])
def test_staple_is_that_of_itk(seed, count):
    sitk = need_module("SimpleITK")
    pixels = readers(seed, count)
    theirs = sitk.STAPLEImageFilter()
    theirs.SetForegroundValue(1)
    found = theirs.Execute([sitk.GetImageFromArray(each.astype(np.uint8)) for each in pixels])
    masks = [Mask.from_array(each) for each in pixels]
    assert (agreed(masks, "staple").to_array() == (sitk.GetArrayFromImage(found) > 0.5)).all()
    sensitivity, specificity = staple(masks)
    np.testing.assert_allclose(sensitivity, theirs.GetSensitivity(), atol=1e-9)
    np.testing.assert_allclose(specificity, theirs.GetSpecificity(), atol=1e-9)


def test_staple_goes_on_until_it_rests(monkeypatch):
    """Of readers who hardly agree ITK makes 35,565 rounds, and this mask."""
    counts = (
        "01Q1000000000000000000000000000000000000000[O",
        "0342311ML2311ML2302L01M4e0OELK4GO7O12G17N01I36NL1O33LN0043J00N5<KD3?KC3g0NX1NnM4>O@O2369KG0=0BM61O2JN610",
        "033N10O0O022N00O3OL02053I37OJK0<4DL2O01<0BO1040M11131NM30I03010L10O:0N0J00060I00020O10Ob02"
        "^ON0080L1KO113OL1OO0060J12ON0b00^O52K0020M125MK>2C9OD4031I<1C000041M:NE505:IINN4ON81N1J=5_"
        "OK300065GK216ON4LLM1",
    )
    masks = [Mask.from_rle({"size": [33, 21], "counts": each}) for each in counts] + [Mask.empty((33, 21))]
    assert agreed(masks, "staple").area == 288
    monkeypatch.setattr(consensus, "_ITERATIONS", 1000)
    with pytest.raises(InputError, match="STAPLE finds no rest in 1000 rounds"):
        agreed(masks, "staple")


@pytest.mark.parametrize("rule", RULES)
def test_nobody_drew_anything(rule):
    assert not agreed([Mask.empty((4, 5))] * 3, rule).area


def test_one_reader_is_the_consensus():
    mask = Mask.from_array(readers(0, 1)[0])
    assert all(agreed([mask], rule) == mask for rule in RULES)


def test_readers_of_images_of_two_sizes_are_refused():
    with pytest.raises(InputError, match="sizes 4 x 5, 5 x 4"):
        agreed([Mask.empty((4, 5)), Mask.empty((5, 4))], "union")


def test_the_option_names_the_same_rules():
    assert catalogue.CONSENSUS == RULES
