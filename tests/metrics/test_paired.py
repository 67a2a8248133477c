"""Paired tests, by hand and by enumeration; their levels are in test_levels.py."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.metrics import paired
from chextools.metrics.paired import Clusters


def test_holm_by_hand():
    """The example of R's p.adjust: 0.01, 0.02, 0.03, 0.005 become 0.03, 0.04, 0.04, 0.02."""
    assert paired.holm([0.01, 0.02, None, 0.03, 0.005]) == pytest.approx([0.03, 0.04, None, 0.04, 0.02])
    assert paired.holm([0.6, 0.7]) == [1.0, 1.0]


def test_many_clusters_are_drawn_and_very_many_are_normal(monkeypatch):
    """The three ways agree where each can be used."""
    random = np.random.default_rng(0)
    contributions = random.normal(0.25, 1, (14, 1))
    exact = paired.sign_flip(contributions)[0]
    monkeypatch.setattr(paired, "MOST_EXACT", 10)
    drawn = paired.sign_flip(contributions)[0]
    assert drawn == pytest.approx(exact, abs=0.01) and drawn != exact
    assert paired.sign_flip(contributions)[0] == drawn != paired.sign_flip(contributions, seed=1)[0]
    monkeypatch.setattr(paired, "MOST_DRAWN", 12)
    assert paired.sign_flip(contributions)[0] == pytest.approx(exact, abs=0.05)


def test_ties_count_a_half_of_hits():
    """McNemar's test of five discordant pairs that all go one way: 2/32, and half of it."""
    contributions = np.array([[1.0]] * 5 + [[0.0]] * 5)
    assert paired.sign_flip(contributions)[0] == 2 / 32
    assert paired.sign_flip(contributions, is_binary=True)[0] == 1 / 32
    assert paired.sign_flip(np.zeros((4, 1)), is_binary=True)[0] == 1


def test_the_average_is_of_tasks_and_flips_whole_clusters():
    random = np.random.default_rng(1)
    pred, ref = random.random((9, 3)), random.random((9, 3))
    pred[2, 1] = ref[4, 0] = np.nan
    found = paired.differences(pred, ref, Clusters.of_rows(9))
    values = [np.nanmean(pred[:, k] - ref[:, k]) for k in range(3)]
    assert [each.value for each in found] == pytest.approx([*values, np.mean(values)])
    once = paired.differences(pred[:, :1], ref[:, :1], Clusters.of_rows(9))
    assert once[0].p == once[1].p == found[0].p


def test_patients_are_left_out_whole():
    """The jackknife over clusters, written out."""
    random = np.random.default_rng(2)
    pred, ref, number = random.random((12, 1)), random.random((12, 1)), np.repeat(np.arange(5), [1, 2, 3, 2, 4])
    (found, _) = paired.differences(pred, ref, Clusters(number, 5))
    d = (pred - ref)[:, 0]
    without = np.array([d[number != k].mean() for k in range(5)])
    assert found.error == pytest.approx(np.sqrt(4 / 5 * ((without - without.mean()) ** 2).sum()))
    assert found.clusters == 5 and found.freedom == 4
