"""Calibration curves, beside the error that sums them up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from chextools.metrics import scores
from chextools.metrics.calibration import calibration_curve


def test_a_curve_by_hand():
    curve = calibration_curve(np.array([0.01, 0.05, 0.5, 0.98, 1.0]), np.array([False, True, True, True, True]))
    assert curve.n.tolist() == [2] + [0] * 6 + [1] + [0] * 6 + [2]
    assert curve.score[[0, 7, 14]].tolist() == pytest.approx([0.03, 0.5, 0.99])
    assert curve.share[[0, 7, 14]].tolist() == [0.5, 1, 1] and np.isnan(curve.share[1])
    assert (curve.low[0], curve.high[-1]) == (0, 1)


def test_intervals_are_wilsons():
    random = np.random.default_rng(0)
    score, positive = random.random(200), random.random(200) < 0.4
    curve = calibration_curve(score, positive)
    for k in range(15):
        inside = (score * 15).astype(int) == k
        expected = stats.binomtest(int(positive[inside].sum()), int(inside.sum())).proportion_ci(method="wilson")
        assert (curve.lower[k], curve.upper[k]) == pytest.approx((expected.low, expected.high))


def test_its_error_is_ece():
    random = np.random.default_rng(1)
    score, positive = random.random(50), random.random(50) < 0.5
    assert calibration_curve(score, positive).error == pytest.approx(scores.value("ece", score, positive))
    assert np.isnan(calibration_curve(score[:0], positive[:0]).error)


def test_the_command_writes_it(cli, tmp_path):
    lines = [
        json.dumps({"id": f"i{k}", "scores": {"Edema": k / 10}, "labels": {"Edema": int(k > 6)}}) + "\n"
        for k in range(10)
    ]
    arguments = ("chex-eval", "--metric", "ece", "--calibration", tmp_path / "curve")
    result = cli(*arguments, stdin="".join(lines).encode())
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in (tmp_path / "curve").read_text().splitlines()]
    assert len(rows) == 15 and sum(row["n"] for row in rows) == 10
    assert rows[0] | {"lower": 0, "upper": 0} == rows[0] | {
        "lower": 0,
        "upper": 0,
        "from": 0,
        "n": 1,
        "score": 0,
        "share": 0,
    }
    assert rows[2] == rows[2] | {"n": 0, "score": None, "share": None}
    refused = cli("chex-eval", "--metric", "auroc", "--calibration", tmp_path / "x", stdin="".join(lines).encode())
    assert refused.code == 2 and "--calibration needs --metric ece" in refused.err
