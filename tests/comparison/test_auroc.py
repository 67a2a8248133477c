"""chex-compare --metric auroc: DeLong's test of two models on the same CXRs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from chextools.metrics import scores
from chextools.metrics.delong import auroc_components, auroc_error
from chextools.metrics.paired import Clusters


def some(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' scores, with ties, and labels."""
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.4
    shared = random.normal(size=n)
    one, other = (positive * gain + shared + random.normal(size=n) for gain in (1.5, 0.8))
    return *(np.round(1 / (1 + np.exp(-s)), 1) for s in (one, other)), positive


def delong_by_definition(one: np.ndarray, other: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """The difference and its error, by the kernel of all pairs (DeLong et al. 1988, equations 5 to 8)."""
    kernels = []
    for score in (one, other):
        above, below = score[positive][:, None], score[~positive][None]
        kernels.append((above > below) + (above == below) / 2)
    areas = [kernel.mean() for kernel in kernels]
    of_positive = np.cov([kernel.mean(axis=1) for kernel in kernels])
    of_negative = np.cov([kernel.mean(axis=0) for kernel in kernels])
    covariance = of_positive / positive.sum() + of_negative / (~positive).sum()
    contrast = np.array([1, -1])
    return areas[0] - areas[1], np.sqrt(contrast @ covariance @ contrast)


def test_components_are_delongs():
    for seed in range(5):
        one, other, positive = some(seed=seed)
        parts = [auroc_components(score, positive) for score in (one, other)]
        assert parts[0][0] == pytest.approx(scores.value("auroc", one, positive))
        difference, error = delong_by_definition(one, other, positive)
        assert parts[0][0] - parts[1][0] == pytest.approx(difference)
        assert auroc_error(parts[0][1] - parts[1][1], Clusters.of_rows(40)) == pytest.approx(error)


def test_seeing_a_patient_twice_is_no_news():
    one, other, positive = some()
    added = [
        np.subtract(*(auroc_components(np.tile(s, t), np.tile(positive, t))[1] for s in (one, other))) for t in (1, 2)
    ]
    once = auroc_error(added[0], Clusters.of_rows(40))
    assert auroc_error(added[1], Clusters.of_rows(80)) == pytest.approx(once / 2**0.5, rel=0.05)
    assert auroc_error(added[1], Clusters(np.tile(np.arange(40), 2), 40)) == pytest.approx(once, rel=0.05)


def test_the_level_is_held():
    """Of 400 data sets of 60 CXRs without a difference about a twentieth has p < 0.05."""
    random = np.random.default_rng(1)
    rejected = 0
    for _ in range(400):
        positive = random.random(60) < 0.4
        shared = random.normal(size=60) + positive
        one, other = (shared + random.normal(size=60) for _ in range(2))
        parts = [auroc_components(score, positive) for score in (one, other)]
        error = auroc_error(parts[0][1] - parts[1][1], Clusters.of_rows(60))
        rejected += abs(parts[0][0] - parts[1][0]) / error > 1.96
    assert 0.03 < rejected / 400 < 0.08


@pytest.fixture
def files(tmp_path):
    one, other, positive = some()
    for name, score in (("pred", one), ("ref", other)):
        with (tmp_path / name).open("w") as stream:
            for k, (s, p) in enumerate(zip(score.tolist(), positive.tolist())):
                record = {"id": f"patient{k}_study1", "labels": {"Edema": int(p)}, "scores": {"Edema": s}}
                stream.write(json.dumps(record) + "\n")
    return tmp_path / "pred", tmp_path / "ref"


def test_rows(cli, files):
    one, other, positive = some()
    result = cli("chex-compare", *files, "--metric", "auroc", "--margin", 0.05)
    assert result.code == 0, result.err
    row, average = map(json.loads, result.out.splitlines())
    difference, error = delong_by_definition(one, other, positive)
    assert (row["metric"], row["task"], row["n"], row["positives"]) == ("auroc", "Edema", 40, int(positive.sum()))
    assert row["difference"] == pytest.approx(difference) == row["pred"] - row["ref"]
    assert row["p"] == row["p_holm"] == pytest.approx(2 * stats.norm.sf(abs(difference) / error))
    assert row["difference_lower"] == pytest.approx(difference - stats.norm.ppf(0.975) * error)
    assert row["p_noninferior"] == pytest.approx(stats.norm.sf((difference + 0.05) / error))
    assert (row["paired"], row["test"]) == ("cxr", "delong")
    assert {k: average[k] for k in ("difference", "p")} == pytest.approx({k: row[k] for k in ("difference", "p")})
    piped = cli("chex-compare", "-", files[1], "--metric", "auroc", "--margin", 0.05, stdin=files[0].read_bytes())
    assert piped.out == result.out


def test_a_model_against_itself(cli, files):
    row = json.loads(cli("chex-compare", files[0], files[0], "--metric", "auroc").out.splitlines()[0])
    assert (row["difference"], row["p"], row["difference_lower"]) == (0, 1, None) and "no interval" in row["reason"]


def test_options_of_scores_mean_nothing_for_results(cli, files):
    result = cli("chex-compare", *files, "--truth", "x")
    assert result.code == 2 and "--truth is for --metric auroc" in result.err
