"""Paired tests, by hand and by enumeration; their levels are in test_levels.py."""

from __future__ import annotations

import math

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

    def p(seed: int = 0) -> float:
        found, tests = paired.sign_flip(contributions, seed)
        assert tests == [paired.EXACT]
        return found[0]

    exact = p()
    monkeypatch.setattr(paired, "MOST_EXACT", 10)
    drawn = p()
    assert drawn == pytest.approx(exact, abs=0.01) and drawn != exact
    assert p() == drawn != p(seed=1)
    monkeypatch.setattr(paired, "MOST_DRAWN", 12)
    assert p() == pytest.approx(exact, abs=0.05)


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_where_all_differ_p_is_exact():
    """Of five that all go one way, 2 of 32; so, too, of hits, though ways tie: of seven with one against, 16 of 128."""
    assert paired.sign_flip(column(0.1, 0.2, 0.3, 0.4, 0.5)) == ([2 / 32], [paired.EXACT])
    assert paired.sign_flip(column(*[1.0] * 6, -1), is_binary=True) == ([16 / 128], [paired.EXACT])
    assert paired.sign_flip(column(0.1, 0.2, 0.3, 0.4, 0.5, np.nan)) == ([2 / 32], [paired.EXACT])  # no value: no tie


def test_where_some_agree_ties_count_a_half():
    """Five that go one way, and one that does not differ: half of 2 of 32."""
    assert paired.sign_flip(column(0.1, 0.2, 0.3, 0.4, 0.5, 0)) == ([1 / 32], [paired.MID_P])
    assert paired.sign_flip(column(1.0, 1, 1, 1, 1, 0), is_binary=True) == ([1 / 32], [paired.MID_P])
    (p,), _ = paired.sign_flip(column(1.0, 1, 1, -1, 0, 0), is_binary=True)
    assert p == (2 + 8 / 2) / 16  # of 16 ways 2 are further, 8 as far


def test_hits_are_mcnemars(monkeypatch):
    """Its statistic is (b - c) / root of b + c: by hand, of 4 and 0 of 8 CXRs, and 9 and 2 of 30."""
    for b, c, n in ((4, 0, 8), (9, 2, 30)):
        found = paired.sign_flip(column(*[1 / n] * b, *[-1 / n] * c, *[0] * (n - b - c)), is_binary=True)
        assert found == ([pytest.approx(math.erfc((b - c) / math.sqrt(b + c) / math.sqrt(2)))], [paired.MCNEMAR])
    assert paired.sign_flip(np.zeros((9, 1)), is_binary=True)[0] == 1
    unequal = column(2.0, 1, 1, -1, 1, 1, 0, 0)  # a patient with two CXRs
    assert paired.sign_flip(unequal, is_binary=True)[1] == [paired.MID_P]


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
