"""chex-compare --metric auroc: DeLong's test of two models on the same CXRs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from chextools.metrics import scores
from chextools.metrics.delong import auroc_components, auroc_error, auroc_freedom
from chextools.metrics.paired import Clusters


def some(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' scores, with ties, and labels."""
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.4
    shared = random.normal(size=n)
    one, other = (positive * gain + shared + random.normal(size=n) for gain in (1.5, 0.8))
    return *(np.round(1 / (1 + np.exp(-s)), 1) for s in (one, other)), positive


def delong_by_definition(one: np.ndarray, other: np.ndarray, positive: np.ndarray) -> tuple[float, float, float]:
    """The difference and its error, by the kernel of all pairs (DeLong et al. 1988, equations 5 to 8).

    And its degrees of freedom: those that scipy's Welch test has of what each CXR of either class wins more often.
    """
    kernels = []
    for score in (one, other):
        above, below = score[positive][:, None], score[~positive][None]
        kernels.append((above > below) + (above == below) / 2)
    areas = [kernel.mean() for kernel in kernels]
    of_positive = np.cov([kernel.mean(axis=1) for kernel in kernels])
    of_negative = np.cov([kernel.mean(axis=0) for kernel in kernels])
    covariance = of_positive / positive.sum() + of_negative / (~positive).sum()
    contrast = np.array([1, -1])
    won = [np.subtract(*(kernel.mean(axis=axis) for kernel in kernels)) for axis in (1, 0)]
    freedom = stats.ttest_ind(*won, equal_var=False).df
    return areas[0] - areas[1], np.sqrt(contrast @ covariance @ contrast), freedom


def test_components_are_delongs():
    for seed in range(5):
        one, other, positive = some(seed=seed)
        parts = [auroc_components(score, positive) for score in (one, other)]
        assert parts[0][0] == pytest.approx(scores.value("auroc", one, positive))
        difference, error, freedom = delong_by_definition(one, other, positive)
        assert parts[0][0] - parts[1][0] == pytest.approx(difference)
        added = parts[0][1] - parts[1][1]
        assert auroc_error(added, Clusters.of_rows(40)) == pytest.approx(error)
        assert auroc_freedom(added[:, None], positive[:, None], Clusters.of_rows(40)) == pytest.approx(freedom)


def test_seeing_a_patient_twice_is_no_news():
    one, other, positive = some()
    added = [
        np.subtract(*(auroc_components(np.tile(s, t), np.tile(positive, t))[1] for s in (one, other))) for t in (1, 2)
    ]
    once = auroc_error(added[0], Clusters.of_rows(40))
    assert auroc_error(added[1], Clusters.of_rows(80)) == pytest.approx(once / 2**0.5, rel=0.05)
    assert auroc_error(added[1], Clusters(np.tile(np.arange(40), 2), 40)) == pytest.approx(once, rel=0.05)


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
    difference, error, freedom = delong_by_definition(one, other, positive)
    assert (row["metric"], row["task"], row["n"], row["positives"]) == ("auroc", "Edema", 40, int(positive.sum()))
    assert row["difference"] == pytest.approx(difference) == row["pred"] - row["ref"]
    assert row["p"] == row["p_holm"] == pytest.approx(2 * stats.t.sf(abs(difference) / error, freedom))
    assert row["difference_lower"] == pytest.approx(difference - stats.t.ppf(0.975, freedom) * error)
    assert row["p_noninferior"] == pytest.approx(stats.t.sf((difference + 0.05) / error, freedom))
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


def rows(cli, tmp_path, pred: list[dict], ref: list[dict], *more) -> tuple[list[dict], str]:
    """The rows of two lists of records without ids, and what is said."""
    for name, records in (("pred", pred), ("ref", ref)):
        lines = (json.dumps({"id": f"c{k}"} | record) + "\n" for k, record in enumerate(records))
        (tmp_path / name).write_text("".join(lines))
    result = cli("chex-compare", tmp_path / "pred", tmp_path / "ref", "--metric", "auroc", *more)
    assert result.code == 0, result.err
    return list(map(json.loads, result.out.splitlines())), result.err


def scored(scores, labels=(), patients=()) -> list[dict]:
    """Records of scores, with labels and patients where given."""
    found = [{"scores": {"Edema": float(score)}} for score in scores]
    for key, values in (("labels", labels), ("patient", patients)):
        for record, value in zip(found, values):
            record[key] = {"Edema": int(value)} if key == "labels" else value
    return found


NULL = {"difference_lower": None, "difference_upper": None, "p": None}


def test_one_of_a_class_has_no_interval(cli, tmp_path):
    """Of nine to one all doubt is in the one, of which no spread is known; so it is of one patient's CXRs."""
    one, other = np.arange(10) / 10, np.roll(np.arange(10), 4) / 10
    lone = np.arange(10) == 9
    found, said = rows(cli, tmp_path, scored(one, lone), scored(other))
    for row in found:
        assert row["difference"] == pytest.approx(1 - 5 / 9)
        assert NULL.items() <= row.items() and "one CXR of a class: no interval" in row["reason"]
    assert "Edema: one CXR of a class" in said
    other = np.roll(one, 3)
    half, whose = np.arange(10) % 2, ["A" if k % 2 else f"B{k}" for k in range(10)]
    found, _ = rows(cli, tmp_path, scored(one, half, whose), scored(other), "--resample", "patient")
    assert NULL.items() <= found[0].items() and found[0]["reason"] == "one patient of a class: no interval"


def test_patients_are_those_of_either_side(cli, tmp_path):
    one, other, positive = some()
    whose = [f"P{k // 2}" for k in range(40)]
    of_pred, _ = rows(cli, tmp_path, scored(one, positive, whose), scored(other), "--resample", "patient")
    of_ref, said = rows(cli, tmp_path, scored(one, positive), scored(other, (), whose), "--resample", "patient")
    assert of_pred == of_ref and not said
    by_cxr, said = rows(cli, tmp_path, scored(one, positive), scored(other), "--resample", "patient")
    assert by_cxr[0]["p"] != of_ref[0]["p"] and "no patient is known, each counts as one of its own: 40 CXRs" in said


def test_other_labels_are_told(cli, tmp_path):
    one, other, positive = some()
    turned = positive.copy()
    turned[:2] ^= True
    found, said = rows(cli, tmp_path, scored(one, positive), scored(other, turned))
    assert "ref labels otherwise, PRED's labels are taken: 2 CXRs (c0, c1)" in said
    assert found[0]["difference"] == pytest.approx(delong_by_definition(one, other, positive)[0])


def test_without_labels_or_a_class_it_is_said(cli, tmp_path):
    one, other, _ = some()
    found, _ = rows(cli, tmp_path, scored(one), scored(other))
    assert [row["reason"] for row in found] == [
        "no CXR with a label and a score on both sides",
        "no task with both classes",
    ]
    found, _ = rows(cli, tmp_path, scored(one, np.ones(40)), scored(other))
    assert [row["reason"] for row in found] == ["one class is missing", "no task with both classes"]
