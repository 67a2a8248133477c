"""chex-eval of scores: each metric by hand or by its definition, and what is undefined."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from chextools.evaluation import classification
from chextools.evaluation.settings import EvaluationSettings
from chextools.metrics import bootstrap, scores


def record(number: int, score: float | None, label: int | None, task: str = "Edema", **more) -> dict:
    labels = {} if label is None else {task: label}
    return {"id": f"patient{number}_study1", "scores": {task: score}, "labels": labels} | more


def lines(records: list[dict]) -> bytes:
    return "".join(json.dumps(r) + "\n" for r in records).encode()


@pytest.fixture
def evaluate(cli):
    """Rows by (metric, task), and stderr."""

    def call(records: list[dict], *options: object):
        result = cli("chex-eval", *options, stdin=lines(records))
        assert result.code == 0, result.err
        return {(row["metric"], row["task"]): row for row in map(json.loads, result.out.splitlines())}, result.err

    return call


def some(n: int = 60, levels: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.4
    return np.round(np.clip(random.normal(0.4 + 0.2 * positive, 0.2), 0, 1) * levels) / levels, positive


def test_auroc_is_how_often_a_positive_outscores_a_negative():
    score, positive = some()
    above, below = score[positive][:, None], score[~positive]
    assert scores.value("auroc", score, positive) == pytest.approx(((above > below) + (above == below) / 2).mean())


def test_auprc_is_the_precision_at_which_positives_are_found():
    assert scores.value("auprc", np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])) == (1 + 2 / 3) / 2
    assert scores.value("auprc", np.full(5, 0.5), np.array([1, 0, 0, 0, 0])) == 0.2  # ties are taken together


def test_brier_and_ece_by_hand():
    score, positive = np.array([0.9, 0.8, 0.3, 0.31]), np.array([1, 0, 0, 1])
    assert scores.value("brier", score, positive) == pytest.approx((0.01 + 0.64 + 0.09 + 0.69**2) / 4)
    bins = abs(0.9 - 1) + abs(0.8 - 0) + abs(0.3 + 0.31 - 1)  # of width 1/15: the last two share one
    assert scores.value("ece", score, positive) == pytest.approx(bins / 4)


@pytest.mark.parametrize("metric", ["auroc", "auprc", "brier", "ece"])
def test_a_replicate_is_the_metric_of_the_cxrs_drawn(metric):
    score, positive = some(30)
    draw = np.concatenate(list(bootstrap.draws(30, 20, 7)))
    times = np.stack([np.bincount(row, minlength=30) for row in draw]).astype(float)
    expected = [scores.value(metric, score[row], positive[row]) for row in draw]
    np.testing.assert_allclose(scores.METRICS[metric](score, positive, times), expected, rtol=1e-12)


def test_the_interval_is_that_of_the_replicates(evaluate):
    score, positive = some(40)
    records = [record(i, s, int(p)) for i, (s, p) in enumerate(zip(score, positive), 10)]
    found, _ = evaluate(records, "--metric", "auroc")
    draw = np.concatenate(list(bootstrap.draws(40, 1000, 0)))
    lower, upper, count = bootstrap.interval(np.array([scores.value("auroc", score[r], positive[r]) for r in draw]))
    row = found["auroc", "Edema"]
    assert (row["mean"], row["n"], row["positives"]) == (scores.value("auroc", score, positive), 40, positive.sum())
    assert (row["lower"], row["upper"], row["replicates"]) == pytest.approx((lower, upper, count), rel=1e-12)


def test_a_task_without_both_classes_is_null_with_a_reason(evaluate):
    found, err = evaluate([record(1, 0.2, 1), record(2, 0.4, 1)], "--metric", "auroc", "--metric", "brier")
    row = found["auroc", "Edema"]
    assert (row["mean"], row["lower"], row["replicates"], row["reason"]) == (None, None, 0, "no CXR is negative")
    assert "auroc of Edema is undefined: no CXR is negative" in err
    assert found["brier", "Edema"]["mean"] == pytest.approx((0.64 + 0.36) / 2)


def test_uncertain_labels_are_left_out_unless_asked(evaluate):
    records = [record(1, 0.9, 1), record(2, 0.1, 0), record(3, 0.5, -1), {"id": "patient4", "scores": {"Edema": 0.2}}]
    n = {
        policy: evaluate(records, "--metric", "brier", "--uncertain", policy)[0]["brier", "Edema"]
        for policy in ("ignore", "zeros", "ones")
    }
    assert {policy: (row["n"], row["positives"]) for policy, row in n.items()} == {
        "ignore": (2, 1),
        "zeros": (3, 1),
        "ones": (3, 2),
    }


def test_blank_labels_count_as_in_training(evaluate):
    """Of CheXpert's tasks they are negative, of others nothing; of an image without labels, or a task that nobody
    labelled, nothing either.
    """
    for task, default in (("Edema", 3), ("Nodule", 2)):
        records = [record(1, 0.9, 1, task), record(2, 0.1, 0, task), record(3, 0.5, None, task)]
        records.append({"id": "patient4", "scores": {task: 0.2}})
        for options, n in (((), default), (("--missing", "negative"), 3), (("--missing", "ignore"), 2)):
            found, _ = evaluate(records, "--metric", "auroc", *options)
            assert (found["auroc", task]["n"], found["auroc", task]["mean"]) == (n, 1)
    unlabelled = [r | {"scores": r["scores"] | {"Fracture": 0.5}} for r in records]
    assert evaluate(unlabelled, "--metric", "auroc")[0]["auroc", "Fracture"]["n"] == 0


def test_training_and_evaluation_have_one_rule():
    """chex-train's AUROC and chex-eval's are of the same CXRs and labels."""
    from chextools.training import labels

    random = np.random.default_rng(5)
    given = [{1: 1, 2: 0, 3: -1}.get(int(code)) for code in random.integers(0, 4, 50)]
    known = [{} if label is None else {"Edema": label} for label in given]
    score = random.random(50)
    labelling = labels.choose_labelling([{"labels": each} for each in known], ["Edema"], (), (), "x")
    positive, usable = labels.certain(labels.table([{"labels": each} for each in known], ["Edema"]), labelling)
    expected = scores.value("auroc", score[usable[:, 0]], positive[usable[:, 0], 0])
    rows = [
        classification.Scored(f"p{i:02}", f"p{i:02}", {"Edema": s}, each, {})
        for i, (s, each) in enumerate(zip(score, known))
    ]
    result = classification.evaluation_of(rows, EvaluationSettings(metrics=["auroc"]))
    assert result.summary[0]["mean"] == pytest.approx(expected, rel=1e-12)


def test_the_five_of_the_competition_stand_beside_the_mean_over_all(evaluate):
    def both(number: int, edema: float, fracture: float, label: int) -> dict:
        first, second = record(number, edema, label), record(number, fracture, label, "Fracture")
        return first | {key: first[key] | second[key] for key in ("scores", "labels")}

    found, _ = evaluate([both(1, 0.9, 0.1, 1), both(2, 0.1, 0.9, 0)], "--metric", "auroc")
    means = {task: row["mean"] for (_, task), row in found.items()}
    assert means == {"Edema": 1, "Fracture": 0, "Average": 0.5, "Competition": 1}
    assert found["auroc", "Competition"]["tasks"] == 1


def test_patients_are_drawn_whole(evaluate):
    """Two patients with both classes each: every replicate has both; drawn by CXR some have one class only."""
    scored = enumerate((0.1, 0.9, 0.2, 0.3))
    records = [record(0, s, i % 2) | {"id": f"patient{i // 2}_study{i}"} for i, s in scored]
    assert evaluate(records, "--metric", "auroc", "--resample", "patient")[0]["auroc", "Edema"]["replicates"] == 1000
    assert evaluate(records, "--metric", "auroc")[0]["auroc", "Edema"]["replicates"] < 1000


def test_a_task_of_one_patient_has_no_interval_though_others_have_cxrs(evaluate):
    """Every replicate that has this patient's two CXRs says the same of them."""
    own = [record(1, 0.9, 1, "Mass") | {"id": "a"}, record(1, 0.1, 0, "Mass") | {"id": "b"}]
    others = [record(k, k / 10, k % 2) for k in range(2, 8)]
    records = [r | {"patient": "p"} for r in own] + others
    found, _ = evaluate(records, "--metric", "auroc", "--resample", "patient")
    mass, edema = found["auroc", "Mass"], found["auroc", "Edema"]
    assert (mass["mean"], mass["n"], mass["lower"], mass["upper"]) == (1.0, 2, None, None)
    assert edema["lower"] < edema["upper"]


def test_operating_points_come_from_another_set(cli, evaluate, tmp_path):
    """chex-tune chooses on one set; the other is scored at that threshold, where a score equal to it is positive."""
    chosen_on = [record(1, 0.8, 1), record(2, 0.6, 1), record(3, 0.3, 0)]
    tuned = cli("chex-tune", "--for", "score", stdin=lines(chosen_on))
    assert json.loads(tuned.out)["score_threshold"] == 0.6
    (tmp_path / "tuned").write_text(tuned.out)
    scored = [record(1, 0.6, 1), record(2, 0.59, 1), record(3, 0.7, 0), record(4, 0.1, 0), record(5, 0.2, 0)]
    both = ("--metric", "sensitivity", "--metric", "specificity")
    found, _ = evaluate(scored, *both, "--score-threshold", tmp_path / "tuned")
    assert found["sensitivity", "Edema"]["mean"] == 1 / 2 and found["specificity", "Edema"]["mean"] == 2 / 3
    assert found["sensitivity", "Edema"]["score_threshold"] == 0.6
    assert evaluate(scored, *both, "--score-threshold", 0)[0]["specificity", "Edema"]["mean"] == 0
    refused = cli("chex-eval", *both, stdin=lines(scored))
    assert refused.code == 2 and "need --score-threshold, chosen on another set" in refused.err


def test_labels_may_come_from_a_csv(cli, tmp_path):
    (tmp_path / "test.csv").write_text("Path,Edema\npatient1/study1.jpg,1\npatient2/study1.jpg,0\n")
    unlabelled = [record(1, 0.7, None), record(2, 0.2, None)]
    result = cli("chex-eval", "--metric", "auroc", "--truth", tmp_path / "test.csv", stdin=lines(unlabelled))
    assert json.loads(result.out.splitlines()[0])["mean"] == 1


@pytest.mark.parametrize(
    "bad, reason",
    [({"id": "x"}, 'no "scores"'), (record(9, 1.5, 1), "1.5"), (record(9, 0.5, 2), "the label 2 is not 1, 0 or -1")],
)
def test_a_record_that_cannot_be_used_is_counted_in_every_row(cli, bad, reason):
    result = cli("chex-eval", "--metric", "auroc", stdin=lines([record(1, 0.9, 1), record(2, 0.1, 0), bad]))
    assert result.code == 1 and reason in result.err
    assert {json.loads(line)["failed"] for line in result.out.splitlines()} == {1}


def test_metrics_of_scores_and_of_masks_do_not_mix(cli):
    for options, words in (
        (("--metric", "auroc", "--metric", "iou"), "in two runs"),
        (("--metric", "auroc", "--human"), "--human means nothing"),
        ((), "Missing option '--truth'"),
    ):
        result = cli("chex-eval", "x", *options)
        assert result.code == 2 and words in result.err


def test_per_image_and_replicate_tables(cli, tmp_path):
    records = [record(i, s, int(p)) for i, (s, p) in enumerate(zip(*some(20)), 10)]
    tables = ("--per-image", tmp_path / "i", "--replicate-table", tmp_path / "r")
    assert cli("chex-eval", "--metric", "auroc", *tables, "--replicates", 5, stdin=lines(records)).code == 0
    assert json.loads((tmp_path / "i").read_text().splitlines()[0])["scores"] == records[0]["scores"]
    assert len((tmp_path / "r").read_text().splitlines()) == 5


def test_the_validation_of_the_study_takes_seconds():
    """1000 replicates of 668 CXRs x 14 tasks; the bound is slack for a machine that does other work."""
    random = np.random.default_rng(0)
    names = [f"task {k}" for k in range(14)]
    rows = [
        classification.Scored(
            f"patient{i}",
            f"patient{i}",
            dict(zip(names, random.random(14))),
            dict(zip(names, (random.random(14) < 0.2).astype(int).tolist())),
            {},
        )
        for i in range(668)
    ]
    start = time.process_time()
    result = classification.evaluation_of(rows, EvaluationSettings(metrics=["auroc"]))
    assert time.process_time() - start < 5
    assert all(row["replicates"] == 1000 for row in result.summary)
