"""Kappa equal to scikit-learn's and to Fleiss's formula; the middle of a region."""

import itertools

import numpy as np
import pytest
from conftest import need_module

from chextools.masks.mask import Mask
from chextools.metrics import agreement

EMPTY, DRAWN = Mask.empty((3, 3)), Mask.from_array(np.eye(3, dtype=bool))


def counts_of(labels: np.ndarray) -> np.ndarray:
    """Sums of `presence` over images and pairs of readers: [4, 1]. labels: bool [images, readers]."""
    masks = [[DRAWN if label else EMPTY for label in row] for row in labels]
    pairs = [pair for row in masks for pair in itertools.combinations(row, 2)]
    return np.sum([agreement.presence(*pair) for pair in pairs], axis=0)[:, None]


def test_two_readers_have_cohens_kappa():
    metrics = need_module("sklearn.metrics")
    labels = np.random.default_rng(0).random((40, 2)) < [0.3, 0.6]
    expected = metrics.cohen_kappa_score(*labels.T)
    assert agreement.cohen_kappa(counts_of(labels))[0] == pytest.approx(expected, abs=1e-12)


def test_more_have_fleisss():
    labels = np.random.default_rng(1).random((40, 3)) < 0.4
    drawn = labels.sum(axis=1)
    observed = np.mean((drawn * (drawn - 1) + (3 - drawn) * (2 - drawn)) / 6)
    share = labels.mean()
    chance = share**2 + (1 - share) ** 2
    assert agreement.fleiss_kappa(counts_of(labels))[0] == pytest.approx((observed - chance) / (1 - chance), abs=1e-12)


def test_always_the_same_word_is_no_agreement():
    assert np.isnan(agreement.cohen_kappa(counts_of(np.ones((5, 2), bool)))[0])


def test_the_middle_of_a_ring_lies_on_it():
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    mask = Mask.from_array(ring)
    assert mask.contains(*agreement.middle(mask))
    assert agreement.middle(Mask.from_array(np.ones((5, 5), bool))) == (2, 2)
