"""The metric shortcut of chex-eval: what is left of an AUROC among CXRs that are alike in the shortcut."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from chextools.errors import InputError
from chextools.evaluation.shortcuts import Shortcut, rows_of

TASK = "Edema"


def records(scores, labels, **keys) -> bytes:
    lines = [
        {"id": f"p{i}", "labels": {TASK: int(label)}, "scores": {TASK: float(score)}}
        | {key: values[i] for key, values in keys.items()}
        for i, (score, label) in enumerate(zip(scores, labels))
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def row(result, by: str) -> dict:
    assert result.code == 0, result.err
    (found,) = [r for r in map(json.loads, result.out.splitlines()) if r["metric"] == "shortcut" and r["by"] == by]
    return found


def concordance(scores, labels, parts) -> float:
    """By its definition: over all pairs of a positive and a negative of one part."""
    pairs = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i, j in itertools.product(np.flatnonzero(labels == 1), np.flatnonzero(labels == 0))
        if parts[i] == parts[j]
    ]
    return float(np.mean(pairs))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.4
    site = (rng.random(200) < np.where(labels, 0.8, 0.3)).astype(int)
    return labels.astype(int), site, np.round(rng.random(200) * 0.5 + labels * 0.1 + site * 0.3, 2)


def test_within_words_it_is_the_concordance_of_pairs_of_one_word(cli, data):
    labels, site, scores = data
    given = records(scores, labels, view=[["AP", "PA"][s] for s in site])
    found = row(cli("chex-eval", "--metric", "shortcut", "--shortcut", "view", stdin=given), "view")
    assert found["mean"] == pytest.approx(concordance(scores, labels, site), abs=1e-12)
    assert found["auroc"] == pytest.approx(concordance(scores, labels, np.zeros(200)), abs=1e-12)
    assert found["lower"] < found["mean"] < found["upper"] and found["strata"] == 2
    assert found["explained"] == pytest.approx(1 - (found["mean"] - 0.5) / (found["auroc"] - 0.5), abs=1e-12)
    assert found["explained"] > 0.3 and found["explained_lower"] > 0
    same = np.mean([site[i] == site[j] for i in np.flatnonzero(labels == 1) for j in np.flatnonzero(labels == 0)])
    assert found["pairs"] == pytest.approx(same, abs=1e-12)


def test_a_floor_of_numbers_is_cut_at_its_quintiles(cli, data, tmp_path):
    labels, site, scores = data
    floor = np.linspace(0, 1, 200)[np.argsort(np.argsort(site + np.random.default_rng(1).random(200)))]
    (tmp_path / "floor.jsonl").write_bytes(records(floor, labels))
    options = ["--metric", "shortcut", "--shortcut", tmp_path / "floor.jsonl"]
    found = row(cli("chex-eval", *options, stdin=records(scores, labels)), "floor")
    parts = np.minimum((np.argsort(np.argsort(floor)) * 5) // 200, 4)
    assert found["mean"] == pytest.approx(concordance(scores, labels, parts), abs=1e-12)
    assert found["strata"] == 5
    assert found["floor"] == pytest.approx(concordance(floor, labels, np.zeros(200)), abs=1e-12)
    assert found["spearman"] == pytest.approx(spearmanr(scores, floor).statistic, abs=1e-12)


def test_a_shortcut_that_is_the_label_leaves_nothing_to_compare(cli, data):
    labels, _, scores = data
    given = records(scores, labels, view=[["AP", "PA"][label] for label in labels])
    found = row(cli("chex-eval", "--metric", "shortcut", "--shortcut", "view", stdin=given), "view")
    assert found["mean"] is None and found["pairs"] == 0
    assert found["reason"] == "no stratum has both a positive and a negative CXR"


def test_what_says_no_more_than_the_shortcut_is_chance_within_it(cli, data):
    labels, site, _ = data
    given = records(0.2 + 0.5 * site, labels, view=[["AP", "PA"][s] for s in site])
    found = row(cli("chex-eval", "--metric", "shortcut", "--shortcut", "view", stdin=given), "view")
    assert (found["mean"], found["explained"]) == (0.5, 1.0)


def test_numbers_of_a_key_are_cut_at_their_quintiles(cli, data):
    labels, site, scores = data
    ages = 20 + np.argsort(np.argsort(site + np.random.default_rng(2).random(200)))
    given = records(scores, labels, age=ages.tolist())
    found = row(cli("chex-eval", "--metric", "shortcut", "--shortcut", "age", stdin=given), "age")
    assert found["strata"] == 5
    assert found["mean"] == pytest.approx(concordance(scores, labels, (ages - 20) * 5 // 200), abs=1e-12)
    assert found["spearman"] == pytest.approx(spearmanr(scores, ages).statistic, abs=1e-12)


def test_the_average_is_over_the_tasks_that_the_shortcut_knows(cli, tmp_path, data):
    """A floor that was fitted to two of three tasks leaves the third without a value, and with a reason."""
    labels, _, scores = data
    floor = np.random.default_rng(3).random(200)
    lines = [json.loads(line) for line in records(scores, labels).splitlines()]
    for line, other, noise in zip(lines, floor, np.random.default_rng(4).random(200)):
        line["labels"] |= {"Mass": line["labels"][TASK], "Nodule": int(other > 0.5)}
        line["scores"] |= {"Mass": round(noise, 3), "Nodule": round(other, 3)}
    floors = [{"id": line["id"], "scores": {TASK: f, "Mass": f}} for line, f in zip(lines, floor)]
    (tmp_path / "floor.jsonl").write_text("".join(json.dumps(line) + "\n" for line in floors))
    options = ["--metric", "shortcut", "--shortcut", tmp_path / "floor.jsonl"]
    options += ["--metric", "auroc"]
    result = cli("chex-eval", *options, stdin="".join(json.dumps(line) + "\n" for line in lines).encode())
    rows = list(map(json.loads, result.out.splitlines()))
    by_task = {found["task"]: found for found in rows if found["metric"] == "shortcut"}
    (alone,) = [found for found in rows if found["metric"] == "auroc" and found["task"] == TASK]
    assert [by_task[TASK][key] for key in ("auroc_lower", "auroc_upper")] == [alone["lower"], alone["upper"]]
    assert by_task["Nodule"]["mean"] is None and by_task["Nodule"]["n"] == 0
    assert by_task["Nodule"]["reason"] == "no CXR has a score, a label and a value"
    average = by_task["Average"]
    assert average["tasks"] == 2 and average["n"] == 400
    for key in ("mean", "auroc", "floor", "spearman"):
        assert average[key] == pytest.approx((by_task[TASK][key] + by_task["Mass"][key]) / 2, abs=1e-12)
    assert average["explained"] == pytest.approx(1 - (average["mean"] - 0.5) / (average["auroc"] - 0.5), abs=1e-12)
    assert average["lower"] < average["mean"] < average["upper"]


def test_what_is_neither_a_file_nor_a_key_is_named(cli, data):
    labels, _, scores = data
    result = cli("chex-eval", "--metric", "shortcut", "--shortcut", "scanner", stdin=records(scores, labels))
    assert result.code == 1
    assert result.err == "chex-eval: error: --shortcut scanner: neither a file nor a key of the records\n"
    assert cli("chex-eval", "--metric", "shortcut", stdin=records(scores, labels)).code == 2


def test_numbers_are_cut_at_their_quintiles_and_words_are_strata_themselves():
    ids = [f"p{k}" for k in range(10)]
    strata, numbers = Shortcut("age", {name: float(k) for k, name in enumerate(ids)}).of_task([*ids, "other"], TASK)
    assert strata.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, -1] and np.isnan(numbers[-1])
    strata, numbers = Shortcut.of_words("view", {"a": "PA", "b": "AP"}).of_task(["b", "none", "a"], TASK)
    assert strata.tolist() == [0, -1, 1] and numbers is None


def test_words_are_numbers_where_all_are_and_they_are_many():
    ages = {f"p{k}": str(20 + k) for k in range(6)}
    assert Shortcut.of_words("age", ages).values["p5"] == 25.0
    assert Shortcut.of_words("age", ages | {"p6": "unknown"}).values["p5"] == "25"
    assert Shortcut.of_words("site", {"a": "1", "b": "2"}).values["a"] == "1"  # a code, not a number


def test_a_shortcut_that_is_the_label_leaves_no_pair_to_compare():
    shortcut = Shortcut("site", {"a": "x", "b": "x", "c": "y", "d": "y"})
    labels = np.array([[1.0], [1.0], [0.0], [0.0]])
    scored = np.array([[0.9], [0.8], [0.1], [0.2]])
    (found,) = rows_of(shortcut, list("abcd"), [TASK], scored, labels, np.array([0]), [np.ones((3, 4))])
    assert found["auroc"] == 1 and np.isnan(found["mean"]) and found["pairs"] == 0
    assert found["reason"] == "no stratum has both a positive and a negative CXR"
    with pytest.raises(InputError, match="no CXR has a value"):
        rows_of(Shortcut("site", {}), list("abcd"), [TASK], scored, labels, np.array([0]), [])
