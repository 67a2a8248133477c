"""COCO's compressed counts: pycocotools' own strings, a string worked out by hand, and texts that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as cocomask

from chextools.errors import InputError
from chextools.masks import rle

lengths = st.lists(st.integers(1, 2**24), min_size=1, max_size=30)


@pytest.mark.parametrize(
    "counts, text",
    [
        ([0], "0"),  # chr(48 + digit)
        ([15], "?"),
        ([16], "`0"),  # 16 alone would be a sign: a second digit says that it is none
        ([6, 1, 40, 4], "61X13"),  # 40 is 8 + 32 (there is more), then 1; the fourth count is 4 - 1
        ([5, 9, 2, 3], "592J"),  # 3 - 9 = -6: its sign is the digit's fifth bit, 26
    ],
)
def test_counts_by_hand(counts, text):
    assert rle.compress_counts(np.array(counts)) == text
    assert rle.decompress_counts([text])[0].tolist() == counts


@given(lengths)
def test_strings_are_those_of_pycocotools(counts):
    size = [1, sum(counts)]
    theirs = cocomask.frPyObjects({"size": size, "counts": counts}, *size)["counts"].decode()
    assert rle.compress_counts(np.array(counts)) == theirs


@given(st.lists(lengths, max_size=5))
def test_several_texts_decode_as_each_alone(many):
    """The differences of one text do not run on into the next."""
    texts = [rle.compress_counts(np.array(counts)) for counts in many]
    assert [found.tolist() for found in rle.decompress_counts(texts)] == many
    assert [found.tolist() for found in rle.decompress_counts([text.encode() for text in texts])] == many


def test_more_counts_than_are_compressed_at_once(monkeypatch):
    counts = np.random.default_rng(0).integers(0, 5000, 50)
    whole = rle.compress_counts(counts)
    for at_once in (1, 2, 3, 7):
        monkeypatch.setattr(rle, "_AT_ONCE", at_once)
        assert rle.compress_counts(counts) == whole


@pytest.mark.parametrize(
    "text, reason",
    [("", "empty"), ("5 9", "alphabet"), ("5ü", "alphabet"), ("5X", "truncated"), ("P" * 7 + "0", "too large")],
)
def test_one_text_that_is_none_among_good_ones(text, reason):
    with pytest.raises(InputError, match=reason):
        rle.decompress_counts(["61X13", text, "592J"])
