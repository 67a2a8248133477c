"""chex-regress against the study's tables and scipy, and what it says where there is nothing to regress."""

from __future__ import annotations

import csv
import gzip
import json
import shutil

import numpy as np
import pytest

from chextools.metrics.catalogue import FEATURES


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def lines(records: list[dict]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


# Arguments of chex-regress, relative to the oracle, and the study's file that must come out.
CASES = {
    "pred_iou": ["expected/tp/iou_results_per_cxr.csv", "--features", "expected"],
    "pred_hitmiss": ["expected/tp/hitmiss_results_per_cxr.csv", "--features", "expected"],
    "iou_diff": [
        "expected/hb/iou_humanbenchmark_results_per_cxr.csv",
        "--minus",
        "expected/tp/iou_results_per_cxr.csv",
        "--features",
        "expected",
    ],
    "hitmiss_diff": [
        "expected/hb/hitmiss_humanbenchmark_results_per_cxr.csv",
        "--minus",
        "expected/tp/hitmiss_results_per_cxr.csv",
        "--features",
        "expected",
    ],
    "modelprob_iou": ["expected/full/iou_results_per_cxr.csv", "--scores", "maps"],
}


@pytest.mark.parametrize("case", CASES)
def test_tables_equal_the_study(cli, oracle, tmp_path, case):
    words = [word if word.startswith("--") else oracle / word for word in CASES[case]]
    result = cli("chex-regress", *words, "--csv", tmp_path)
    assert result.code == 0 and all("degrees of freedom" in line for line in result.err.splitlines())
    name = f"regression_{case}.csv" if case.startswith("model") else f"regression_features_{case}.csv"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    expected = (oracle / "expected" / name).read_text()
    # Once a slope is 0 but for rounding, whose sign is noise.
    assert (tmp_path / name).read_text() == expected.replace('"-0.0, ', '"0.0, ')


@pytest.mark.parametrize("metric, stem", [("iou", "iou"), ("hit", "hitmiss")])
def test_our_results_and_features_give_the_study_tables(cli, small, tmp_path, metric, stem):
    """From heatmaps and annotations to the regression with nothing of the study's but these."""
    truth, per_image = small / "expected/gt.json", tmp_path / "r.jsonl"
    masks = cli("chex-segment", small / "maps").out.encode()
    cli("chex-eval", "--truth", truth, "--metric", "iou", "--metric", "hit", "--per-image", per_image, stdin=masks)
    features = cli("chex-features", small / "gt_annotations.json", "--truth", truth).out.encode()
    arguments = ("--features", "-", "--metric", metric, "--csv", tmp_path / "csv")
    result = cli("chex-regress", per_image, *arguments, stdin=features)
    assert result.code == 0 and all("degrees of freedom" in line for line in result.err.splitlines())
    name = f"regression_features_pred_{stem}.csv"
    assert (tmp_path / "csv" / name).read_bytes() == (small / "expected" / name).read_bytes()


def test_both_metrics_of_one_file_and_scores_beside_them(cli, small, tmp_path):
    truth, per_image = small / "expected/gt.json", tmp_path / "r.jsonl"
    masks = cli("chex-segment", small / "maps").out.encode()
    options = ("--metric", "iou", "--metric", "hit", "--slice", "full")
    cli("chex-eval", "--truth", truth, *options, "--per-image", per_image, stdin=masks)
    found = rows(cli("chex-regress", per_image, "--features", small / "expected").out)
    assert {row["metric"] for row in found} == {"iou", "hit"}
    arguments = ("chex-regress", per_image, "--metric", "iou", "--scores")
    assert cli(*arguments, small / "maps").out == cli(*arguments, per_image).out
    arguments = ("--metric", "iou", "--scores", per_image, "--csv", tmp_path / "csv")
    cli("chex-regress", per_image, *arguments)
    name = "regression_modelprob_iou.csv"
    assert (tmp_path / "csv" / name).read_bytes() == (small / "expected" / name).read_bytes()


def test_names_of_the_files(cli, small, tmp_path):
    results = small / "expected/hb/iou_humanbenchmark_results_per_cxr.csv"
    cli("chex-regress", results, "--features", small / "expected", "--human", "--csv", tmp_path)
    cli("chex-regress", results, "--scores", small / "maps", "--human", "--csv", tmp_path)
    minus = ("--minus", small / "expected/tp/iou_results_per_cxr.csv")
    cli("chex-regress", results, *minus, "--scores", small / "maps", "--csv", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "regression_features_hb_iou.csv",
        "regression_modelprob_iou_diff.csv",
        "regression_modelprob_iou_hb.csv",
    ]


# The arithmetic


def test_few_patients_are_said(world):
    few = world(iou(np.linspace(0.1, 0.9, 9) ** 2), [feature_row(k) for k in range(9)])
    assert few["joint", "area_ratio"]["note"].startswith("errors by patient, of 9, have ")
    assert few["joint", "area_ratio"]["freedom"] < 8
    many = world(iou(np.linspace(0.1, 0.9, 30) ** 2), [feature_row(k) for k in range(30)])
    assert "note" not in many["joint", "area_ratio"] and "note" not in few["single", "area_ratio"]


# A world worked out by hand: n CXRs of patients of their own, one task.


def feature_row(k: int, task: str = "Edema", **changes: object) -> dict:
    values = {
        "num_instances": 1 + k % 3,
        "area_ratio": 0.1 + k * 0.05,
        "elongation": 1 + (k * k) % 7,
        "irrectangularity": 0.2 + (k * 5 % 11) / 20,
    }
    return {"id": f"patient{k}", "task": task} | values | changes


@pytest.fixture
def world(cli, tmp_path):
    def regression(results: list[dict], features: list[dict], *options: object, code: int = 0) -> dict:
        (tmp_path / "r.jsonl").write_bytes(lines(results))
        result = cli("chex-regress", tmp_path / "r.jsonl", "--features", "-", *options, stdin=lines(features))
        assert result.code == code, result.err
        return {(row["model"], row["feature"]): row for row in rows(result.out)} | {"err": result.err}

    return regression


def iou(values: list, task: str = "Edema") -> list[dict]:
    return [{"id": f"patient{k}", "iou": {task: value}} for k, value in enumerate(values)]


def test_a_line_by_hand(world):
    """IoU grows by 0.1 per CXR, and the area over its whole range: the slope per range is the growth in all."""
    row = world(iou([0.1 * k for k in range(6)]), [feature_row(k) for k in range(6)])["single", "area_ratio"]
    assert row["slope"] == pytest.approx(0.5) and row["upper"] == pytest.approx(0.5)
    assert row["p"] == pytest.approx(0, abs=1e-12) and (row["n"], row["task"], row["metric"]) == (6, "Overall", "iou")


def test_the_range_is_that_of_all_positive_pairs(world):
    """A pair whose metric is undefined counts for the range of the feature, as in the study, and for nothing else."""
    row = world(iou([0, 0.1, 0.2, 0.3, None]), [feature_row(k) for k in range(5)])["single", "area_ratio"]
    assert (row["n"], row["slope"]) == (4, pytest.approx(0.4))


def test_negative_pairs_do_not_count(world):
    negative = [
        feature_row(k, "Fracture", num_instances=0, area_ratio=0, elongation=None, irrectangularity=None)
        for k in range(5)
    ]
    with_them = world(iou([0, 0.3, 0.1, 0.3, 0.2]), [feature_row(k) for k in range(5)] + negative)
    assert with_them == world(iou([0, 0.3, 0.1, 0.3, 0.2]), [feature_row(k) for k in range(5)])


def test_bonferroni_multiplies_by_four(world):
    found = world(iou([0, 0.3, 0.1, 0.3, 0.25, 0.4]), [feature_row(k) for k in range(6)])
    for row in (found["single", feature] for feature in FEATURES):
        assert row["p_bonferroni"] == min(1, 4 * row["p"])


def test_too_few_pairs_are_null_with_the_reason(world):
    found = world(iou([0.1, 0.2, 0.4]), [feature_row(k) for k in range(3)])
    single, joint = found["single", "area_ratio"], found["joint", "area_ratio"]
    assert [single[key] for key in ("n", "slope", "lower", "upper", "p", "p_bonferroni")] == [3, *[None] * 5]
    assert (single["reason"], joint["reason"]) == ("n is 3; 4 are needed", "n is 3; 6 are needed")
    none = world(iou([0.1]), [feature_row(0, area_ratio=0)])
    assert none["single", "elongation"]["reason"] == "n is 0; 4 are needed"


def test_a_constant_feature_is_null_and_the_others_go_on(world):
    found = world(iou([k * 7 % 5 / 10 for k in range(12)]), [feature_row(k, num_instances=1) for k in range(12)])
    for model in ("single", "joint"):
        assert found[model, "num_instances"]["reason"] == "the feature is constant"
        assert found[model, "num_instances"]["slope"] is None and found[model, "elongation"]["p"] is not None


def test_a_constant_metric_has_the_slope_0(world):
    found = world(iou([0.3] * 9), [feature_row(k) for k in range(9)])
    row = found["single", "area_ratio"]
    assert [row[key] for key in ("slope", "lower", "upper", "p")] == [0, 0, 0, None]
    assert row["reason"] == found["joint", "area_ratio"]["reason"] == "the metric is constant"


def test_joint_needs_patients_and_features_that_differ(world):
    results = [{"id": f"patient1_study{k}", "iou": {"Edema": k * 7 % 5 / 10}} for k in range(12)]
    features = [feature_row(k, id=f"patient1_study{k}") for k in range(12)]
    row = world(results, features)["joint", "area_ratio"]
    assert (row["patients"], row["reason"]) == (1, "errors by patient need more than 5 patients, not 1")
    twins = [feature_row(k, elongation=1 + k) for k in range(12)]
    row = world(iou([k * 7 % 5 / 10 for k in range(12)]), twins)["joint", "area_ratio"]
    assert row["reason"] == "the features determine each other"


def test_difference_is_results_minus_the_other(world, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(lines(iou([0.5, 0.4, 0.3, 0.2, 0.1])))
    features = [feature_row(k) for k in range(5)]
    found = world(iou([0.5] * 5), features, "--minus", other)["single", "area_ratio"]
    assert (found["metric"], found["slope"]) == ("iou_diff", pytest.approx(0.4))
    other.write_bytes(lines([{"id": "patient1", "hit": {"Edema": 1}}]))
    error = world(iou([0.5] * 5), features, "--minus", other, code=1)["err"]
    assert error == "chex-regress: error: nothing to subtract: the results have iou, the others hit\n"


def test_ids_that_do_not_match_are_named(world):
    found = world(iou([0.1, 0.3, 0.2, 0.4, 0.3, 0.3]), [feature_row(k) for k in range(1, 8)])
    assert found["single", "area_ratio"]["n"] == 5
    assert "in the results but not in the features, left out: 1 CXR (patient0)" in found["err"]
    assert "in the features but not in the results, left out: 2 CXRs (patient6, patient7)" in found["err"]
    error = world(iou([0.1]), [feature_row(5)], code=1)["err"]
    assert error == (
        "chex-regress: error: no id is both in the results (patient0, ...) and in the features (patient5, ...)\n"
    )


def test_order_of_the_inputs_does_not_matter(cli, small, tmp_path):
    """Joined by id: where the study's scripts join by position, they give wrong numbers without a word."""
    expected = small / "expected"
    plain = cli("chex-regress", expected / "tp/iou_results_per_cxr.csv", "--features", expected).out
    header, *body = (expected / "tp/iou_results_per_cxr.csv").read_text().splitlines()
    turned = tmp_path / "iou_results_per_cxr.csv"
    turned.write_text("\n".join([header, *reversed(body)]) + "\n")
    assert cli("chex-regress", turned, "--features", expected).out == plain


def test_a_task_without_results(world):
    features = [feature_row(k) for k in range(5)] + [feature_row(k, "Fracture") for k in range(5)]
    found = world(iou([0.1, 0.3, 0.2, 0.4, 0.3]), features)
    assert "no result of Fracture" in found["err"] and found["single", "area_ratio"]["n"] == 5


def test_only_the_wanted_tasks(world):
    features = [feature_row(k) for k in range(5)] + [feature_row(k, "Atelectasis") for k in range(5)]
    results = [r | {"iou": r["iou"] | {"Atelectasis": 0.5}} for r in iou([0.1, 0.3, 0.2, 0.4, 0.3])]
    assert world(results, features)["single", "area_ratio"]["n"] == 10
    assert world(results, features, "--task", "Atelectasis")["single", "area_ratio"]["slope"] == 0
    assert "did you mean 'Edema'" in world(results, features, "--task", "Edma", code=1)["err"]


def test_what_failed_upstream_is_in_every_row(world):
    """A record that an earlier command could not read may have changed the number."""
    found = world(iou([0.1, 0.3, 0.2, 0.4]), [feature_row(k, failed=2) for k in range(4)])
    assert found["single", "area_ratio"]["failed"] == 2
    results = iou([0.1, 0.3, 0.2, 0.4]) + [{"id": "patient9", "iou": {"Edema": "x"}}, {"id": "patient1", "iou": {}}]
    found = world(results, [feature_row(k) for k in range(4)], code=1)
    assert found["single", "area_ratio"]["failed"] == 2
    assert "r.jsonl:5: \"iou\" must hold numbers or null, not 'x'; skipped" in found["err"]
    assert "r.jsonl:6: duplicate id 'patient1', first at" in found["err"]


# Scores


def scored(cli, tmp_path, results: list[dict], scores: list[dict], *options: object):
    (tmp_path / "r.jsonl").write_bytes(lines(results))
    return cli("chex-regress", tmp_path / "r.jsonl", "--scores", "-", *options, stdin=lines(scores))


def test_scores_by_hand(cli, tmp_path):
    scores = [{"id": f"patient{k}", "scores": {"Edema": 0.1 * k}} for k in range(6)]
    result = scored(cli, tmp_path, iou([0.2 * k for k in range(6)]), scores)
    task, overall = rows(result.out)
    assert task["slope"] == pytest.approx(2) and task["spearman"] == task["spearman_upper"] == 1
    assert task["p_bonferroni"] == task["p"]
    assert overall == task | {"task": "Overall"}


def test_maps_without_scores(cli, tmp_path):
    scores = [{"id": f"patient{k}"} for k in range(6)]
    result = scored(cli, tmp_path, iou([0.2 * k for k in range(6)]), scores)
    assert (result.code, result.out) == (1, "")
    assert result.err == "chex-regress: error: stdin: none of 6 records could be read (stdin:1: no scores)\n"
    result = scored(cli, tmp_path, iou([0.2, 0.1]), [{"id": "patient0", "scores": {"Edema": 0.1}}, {"id": "patient1"}])
    assert result.code == 1 and {row["failed"] for row in rows(result.out)} == {1}


def test_a_task_without_scores_or_results_is_null(cli, tmp_path):
    scores = [{"id": f"patient{k}", "scores": {"Fracture": 0.1 * k}} for k in range(6)]
    result = scored(cli, tmp_path, iou([0.2 * k for k in range(6)]), scores)
    edema, overall = rows(result.out)
    for row in (edema, overall):
        assert (row["n"], row["slope"], row["spearman"], row["reason"]) == (0, None, None, "n is 0; 4 are needed")
    assert "no score of Edema" in result.err and result.code == 0
    (fracture, _) = rows(scored(cli, tmp_path, iou([0.2] * 6), scores, "--task", "Fracture").out)
    assert (fracture["task"], fracture["n"]) == ("Fracture", 0)


def test_heatmaps_of_one_cxr(cli, small, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in sorted((small / "maps").iterdir())[:10]:
        shutil.copy(path, maps)
    results = small / "expected/full/iou_results_per_cxr.csv"
    result = cli("chex-regress", results, "--scores", maps, "--csv", tmp_path / "csv")
    *tasks, overall = rows(result.out)
    assert {row["reason"] for row in tasks} == {"n is 1; 4 are needed"}
    assert overall["n"] == sum(row["n"] for row in tasks) > 4 and overall["slope"] is not None
    with open(tmp_path / "csv/regression_modelprob_iou.csv") as stream:
        cells = next(csv.DictReader(stream))
    assert cells["Linear regression coefficients"] == cells["Spearman correlations"] == "nan, (nan, nan)"
    assert "in the results but not in the scores, left out: 7 CXRs" in result.err


# The study's CSV files as input


@pytest.fixture
def study(small, tmp_path):
    """A copy of the study's features and results that a test may spoil."""
    for name in ("area_ratio", "elongation", "num_instances", "rec_area_ratio"):
        shutil.copy(small / "expected" / f"{name}.csv", tmp_path)
    shutil.copy(small / "expected/tp/iou_results_per_cxr.csv", tmp_path)
    return tmp_path


def test_nan_and_infinity_in_the_study_files_are_undefined(cli, study):
    """Dots and lines divide by zero there."""
    path = study / "elongation.csv"
    before = rows(cli("chex-regress", study / "iou_results_per_cxr.csv", "--features", study).out)
    path.write_text(path.read_text().replace("1.4135723642756461", "inf").replace("1.1581878583780831", "nan"))
    after = rows(cli("chex-regress", study / "iou_results_per_cxr.csv", "--features", study).out)
    n = [{row["feature"]: row["n"] for row in found if row["model"] == "single"} for found in (before, after)]
    assert n[0]["elongation"] == 22 and n[1] == n[0] | {"elongation": 20}


def test_metric_is_the_prefix_or_said(cli, study, small):
    results = study / "iou_results_per_cxr.csv"
    expected = cli("chex-regress", results, "--features", study).out
    plain = results.rename(study / "mine.csv")
    unsaid = cli("chex-regress", plain, "--features", study)
    assert unsaid.code == 1
    assert unsaid.err.endswith("mine.csv: the name does not start with iou_ or hitmiss_; say --metric\n")
    assert cli("chex-regress", plain, "--features", study, "--metric", "iou").out == expected
    piped = cli("chex-regress", "--features", study, "--metric", "iou", stdin=gzip.compress(plain.read_bytes()))
    assert piped.out == expected
    other = small / "expected/tp/hitmiss_results_per_cxr.csv"
    refused = cli("chex-regress", other, "--features", study, "--metric", "iou")
    assert refused.code == 1 and refused.err.endswith("hitmiss_results_per_cxr.csv: holds hit by its name, not iou\n")


@pytest.mark.parametrize(
    "content, message",
    [
        ("a,b\n1,2\n", "no column img_id"),
        ("Edema,img_id\n1,2,3\n", "iou_x.csv:2: 3 cells, but the header has 2"),
        ("Edema,img_id\nabc,patient1\n", "iou_x.csv:2: 'abc' is not a number"),
        ("Edema,img_id\n1,a/b\n", 'id "a/b" is not a plain name'),
        ("Lung Opacity,Airspace Opacity,img_id\n", '"the columns" names one task twice'),
        ("Edema,img_id\n", "iou_x.csv: no records"),
        ('{"metric": "iou", "task": "Edema", "mean": 1}\n', "neither per-image results nor replicates"),
        ('{"id": "a"}\n', "not per-image results"),
        ("", "iou_x.csv: no records"),
    ],
)
def test_results_that_cannot_be_used(cli, study, content, message):
    path = study / "iou_x.csv"
    path.write_text(content)
    result = cli("chex-regress", path, "--features", study)
    assert (result.code, result.out) == (1, "") and message in result.err
    assert len(result.err.splitlines()) == 1


def test_a_folder_that_lacks_a_file_or_a_row(cli, study):
    results = study / "iou_results_per_cxr.csv"
    path = study / "elongation.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    result = cli("chex-regress", results, "--features", study)
    assert result.code == 1 and "patient64007_study1_view1_frontal: Atelectasis: not in elongation.csv" in result.err
    path.unlink()
    result = cli("chex-regress", results, "--features", study)
    assert result.code == 1 and result.err.endswith("elongation.csv: No such file or directory\n")


def test_a_damaged_gzip_is_said(cli, study):
    whole = gzip.compress((study / "iou_results_per_cxr.csv").read_bytes())
    for content in (whole[:3] + b"junk", whole[: len(whole) // 2]):
        (study / "iou_x.csv.gz").write_bytes(content)
        for words in (
            [study / "iou_x.csv.gz", "--features", study],
            [study / "iou_results_per_cxr.csv", "--features", study / "iou_x.csv.gz"],
        ):
            result = cli("chex-regress", *words)
            assert (result.code, result.out, result.err.count("\n")) == (1, "", 1) and "iou_x.csv.gz: " in result.err
            assert "no records" not in result.err


@pytest.mark.parametrize(
    "words", [[], ["--features", "x", "--scores", "y"], ["--features", "-"], ["r", "--minus", "-", "--scores", "-"]]
)
def test_command_lines_that_make_no_sense(cli, words):
    result = cli("chex-regress", *words)
    assert (result.code, result.out) == (2, "") and len(result.err.splitlines()) == 1


def test_empty_stdin_and_existing_output(cli, study, small):
    empty = cli("chex-regress", "--features", study)
    assert (empty.code, empty.err) == (1, "chex-regress: error: stdin: no records\n")
    results = study / "iou_results_per_cxr.csv"
    empty = cli("chex-regress", results, "--features", "-")
    assert (empty.code, empty.err) == (1, "chex-regress: error: stdin: no records\n")
    taken = study / "regression_features_pred_iou.csv"
    taken.write_text("mine")
    refused = cli("chex-regress", results, "--features", study, "--csv", study)
    assert refused.code == 1 and "exists; use --force" in refused.err and taken.read_text() == "mine"
    assert cli("chex-regress", results, "--features", study, "--csv", study, "--force").code == 0
    assert taken.read_bytes() == (small / "expected" / taken.name).read_bytes()


def test_table_shows_the_models(cli, study):
    shown = cli("chex-regress", study / "iou_results_per_cxr.csv", "--features", study, "--format", "table").out
    assert [line.split()[3] for line in shown.splitlines()] == ["model", *["single"] * 4, *["joint"] * 4]


def test_any_metric_by_cxr_is_regressed_and_only_the_studys_are_in_its_files(cli, tmp_path):
    results = [{"id": f"patient{k}", "energy": {"Edema": k / 10}, "iou": {"Edema": k / 20}} for k in range(9)]
    (tmp_path / "r.jsonl").write_bytes(lines(results))
    features = lines([feature_row(k) for k in range(9)])
    arguments = ("chex-regress", tmp_path / "r.jsonl", "--features", "-", "--csv", tmp_path / "csv")
    result = cli(*arguments, stdin=features)
    assert result.code == 0, result.err
    found = {(row["metric"], row["feature"]): row for row in rows(result.out) if row["model"] == "single"}
    assert found["energy", "area_ratio"]["slope"] == pytest.approx(2 * found["iou", "area_ratio"]["slope"])
    assert [path.name for path in (tmp_path / "csv").iterdir()] == ["regression_features_pred_iou.csv"]
