"""chex-compare against the study's own tables, by hand, and where it goes beyond them."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from scipy import stats

from chextools.comparison import differences
from chextools.metrics import bootstrap
from chextools.tasks import STUDY

NAMES = {"iou": ("iou", "miou"), "hit": ("hitmiss", "hitrate")}


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def by_task(text: str) -> dict[str, dict]:
    return {row["task"]: row for row in rows(text)}


def study_files(oracle, metric: str, kind: str) -> tuple:
    stem, _ = NAMES[metric]
    return (
        oracle / f"expected/tp/{stem}_{kind}_per_cxr.csv",
        oracle / f"expected/hb/{stem}_humanbenchmark_{kind}_per_cxr.csv",
    )


@pytest.mark.parametrize("metric", NAMES)
def test_the_study_tables_byte_for_byte(cli, oracle, metric):
    """All but the bounds of tasks with undefined replicates, which the study lets become bounds: its fault 1."""
    files = study_files(oracle, metric, "bootstrap_results")
    ours = cli("chex-compare", *files, "--format", "csv").out.splitlines()
    theirs = (oracle / f"expected/{NAMES[metric][1]}_pct_decrease.csv").read_text().splitlines()
    replicates = {row["task"]: row["replicates"] for row in rows(cli("chex-compare", *files).out)}
    assert len(ours) == len(theirs) and ours[0] == theirs[0] and ours[-1] == theirs[-1]
    for mine, his in zip(ours[1:-1], theirs[1:-1]):
        if replicates[mine.split(",")[0]] == 1000:
            assert mine == his
        else:
            assert mine.split(",")[:4] == his.split(",")[:4]


@pytest.mark.parametrize("metric", NAMES)
def test_bounds_are_the_study_bounds_once_it_leaves_out_undefined_replicates(cli, oracle, metric):
    files = study_files(oracle, metric, "bootstrap_results")
    pred, ref = (np.genfromtxt(file, delimiter=",", names=True, deletechars="") for file in files)
    for task, row in by_task(cli("chex-compare", *files).out).items():
        if task != "Average":
            p, r = (table[task.replace(" ", "_")] for table in (pred, ref))
            with np.errstate(all="ignore"):
                decrease = 100 * (r - p) / r
            assert row["replicates"] == (~np.isnan(decrease)).sum()
            expected = bootstrap.interval(decrease)[:2]
            for bound, value in zip((row["lower"], row["upper"]), expected):
                assert bound == pytest.approx(value, abs=1e-9) if np.isfinite(value) else bound is None


@pytest.mark.parametrize("metric", NAMES)
def test_per_image_results_give_the_replicates_of_the_study(cli, oracle, metric):
    """Resampled jointly with the study's seed, the CXRs give the tables that it drew twice."""
    replicated = by_task(cli("chex-compare", *study_files(oracle, metric, "bootstrap_results")).out)
    images = by_task(cli("chex-compare", *study_files(oracle, metric, "results")).out)
    assert list(images) == list(replicated)
    for task, row in images.items():
        keys = ("pred", "ref", "pct_decrease", "replicates")
        assert {key: row[key] for key in keys} == {key: replicated[task][key] for key in keys}
        assert (row["paired"], replicated[task]["paired"]) == ("cxr", "replicate")
    tables = [
        list(
            csv.DictReader(cli("chex-compare", *study_files(oracle, metric, kind), "--format", "csv").out.splitlines())
        )
        for kind in ("bootstrap_results", "results")
    ]
    for theirs, ours in zip(*tables):
        if images[ours[""]]["n"] > 1:
            assert ours == theirs  # bounds, too


def test_results_of_chex_eval_compare_like_the_study_files(cli, small, tmp_path):
    """JSON Lines of --per-image and --replicate-table hold what the CSV files hold."""
    truth = ("--truth", small / "expected/gt.json")
    for name, pred in (("tp", "seg_otsu.json"), ("hb", "seg_tuned.json")):
        files = ("--per-image", tmp_path / f"{name}.images", "--replicate-table", tmp_path / f"{name}.replicates")
        cli("chex-eval", small / "expected" / pred, *truth, "--metric", "iou", *files)
    for ending, kind in (("images", "results"), ("replicates", "bootstrap_results")):
        ours = cli("chex-compare", tmp_path / f"tp.{ending}", tmp_path / f"hb.{ending}")
        theirs = cli("chex-compare", *study_files(small, "iou", kind))
        assert ours.out == theirs.out and ours.code == 0
    piped = cli("chex-compare", tmp_path / "hb.images", stdin=(tmp_path / "tp.images").read_bytes())
    assert piped.out == cli("chex-compare", *study_files(small, "iou", "results")).out


def test_both_metrics_in_one_file_need_a_choice(cli, small, tmp_path):
    cli(
        "chex-eval",
        small / "maps",
        "--truth",
        small / "expected/gt.json",
        "--metric",
        "hit",
        "--per-image",
        tmp_path / "h",
    )
    both = [json.loads(line) | {"iou": {"Edema": 0.5}} for line in (tmp_path / "h").read_text().splitlines()]
    (tmp_path / "both").write_text("".join(json.dumps(line) + "\n" for line in both))
    result = cli("chex-compare", tmp_path / "both", tmp_path / "both")
    assert (result.code, result.out) == (1, "") and "holds iou and hit; choose one with --metric" in result.err
    assert {
        r["metric"] for r in rows(cli("chex-compare", tmp_path / "both", tmp_path / "h", "--metric", "hit").out)
    } == {"hit"}


# A small world by hand: values of tasks A and B by CXR


@pytest.fixture
def world(cli, tmp_path):
    """Compare {id: {task: value}} of PRED and REF."""

    def call(pred: dict, ref: dict, *options: object):
        for name, side in (("pred", pred), ("ref", ref)):
            lines = ({"id": identifier, "iou": values} for identifier, values in side.items())
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return cli("chex-compare", tmp_path / "pred", tmp_path / "ref", *options)

    return call


def of(**values: float | None) -> dict:
    return {name: {"A": value} for name, value in values.items()}


def test_a_constant_difference_by_hand(world):
    """REF is twice PRED on every CXR: the decrease is half in every replicate, and the difference never reaches 0."""
    pred = of(a=0.1, b=0.2, c=0.3, d=0.4)
    ref = of(a=0.2, b=0.4, c=0.6, d=0.8)
    row = by_task(world(pred, ref, "--replicates", 999).out)["A"]
    assert row["pct_decrease"] == row["lower"] == row["upper"] == pytest.approx(50)
    assert row["difference_lower"] < row["difference"] < row["difference_upper"] < 0
    assert row["difference"] == pytest.approx(-0.25)
    assert row["p"] == row["p_holm"] == 1 / 8  # all four differ one way: what flipping their signs could give
    assert (row["n"], row["n_pred"], row["n_ref"]) == (4, 4, 4) and "note" not in row


def test_few_cxrs_prove_little_and_many_do(world):
    for n, expected in ((2, 1 / 2), (5, 1 / 16), (12, 2**-11), (14, 2**-13), (20, 1 / 100001)):
        pred, ref = (of(**{f"i{k:02}": (1 + k) * scale for k in range(n)}) for scale in (0.01, 0.02))
        assert by_task(world(pred, ref).out)["A"]["p"] == pytest.approx(expected)


def test_equal_results_do_not_differ(world):
    pred = of(a=0.1, b=0.2, c=0.3)
    row = by_task(world(pred, pred).out)["A"]
    assert (row["pct_decrease"], row["difference"], row["p"], row["p_holm"]) == (0, 0, 1, 1)


def test_swapping_the_sides_turns_the_difference_round(world):
    rng = np.random.default_rng(0)
    pred, ref = (of(**{f"i{k}": v for k, v in enumerate(rng.random(12))}) for _ in range(2))
    one, other = (by_task(world(*sides).out)["A"] for sides in ((pred, ref), (ref, pred)))
    assert one["p"] == other["p"]
    assert one["difference"] == pytest.approx(-other["difference"])


def test_cxrs_are_paired_by_id_not_by_line(world):
    pred, ref = of(a=0.1, b=0.2, c=0.3, d=0.4), of(a=0.2, b=0.4, c=0.6, d=0.8)
    backwards = dict(reversed(ref.items()))
    assert world(pred, backwards).out == world(pred, ref).out


def test_cxrs_of_one_side_are_left_out_and_named(world):
    pred, ref = of(a=0.1, b=0.2, only_here=0.9), of(a=0.2, b=0.4, there=0.9)
    result = world(pred, ref)
    assert by_task(result.out)["A"]["pct_decrease"] == pytest.approx(50)
    assert "left out: 1 CXR (only_here)" in result.err and "left out: 1 CXR (there)" in result.err


def test_no_cxr_in_common_is_an_error_that_names_some(world):
    result = world(of(a=0.1), of(b=0.2))
    assert (result.code, result.out) == (1, "") and "(a, ...)" in result.err and "(b, ...)" in result.err


def test_different_cxrs_are_said_in_the_row_and_on_stderr(world):
    """Means are over each side's own CXRs, as in the study; the difference is over those that both have."""
    pred, ref = of(a=0.1, b=0.2, c=None, d=0.3), of(a=0.2, b=None, c=0.6, d=0.5)
    result = world(pred, ref, "--replicates", 5000)
    row = by_task(result.out)["A"]
    note = "PRED averages 3 CXRs, REF 3; the difference is over the 2 that both have"
    assert row["note"] == note and f"A: {note}" in result.err
    assert (row["n"], row["n_pred"], row["n_ref"]) == (2, 3, 3)
    assert row["pred"] == pytest.approx(0.2, abs=0.01) and row["ref"] == pytest.approx(1.3 / 3, abs=0.02)
    assert row["difference"] == pytest.approx(-0.15, abs=0.01)


def test_different_tasks_are_said(world):
    pred = {i: {"A": 0.1, "B": 0.5, "P": 0.1} for i in "abc"}
    ref = {i: {"A": 0.2, "B": None, "R": 0.1} for i in "abc"}
    result = world(pred, ref)
    found = by_task(result.out)
    assert list(found) == ["A", "B", "Average"]
    assert "P is in " in result.err and "R is in " in result.err and "only: left out" in result.err
    assert (found["B"]["pct_decrease"], found["B"]["reason"]) == (None, "REF is undefined")
    assert found["Average"]["note"] == "PRED averages 2 tasks, REF 1, not the same"


def test_no_task_in_common_is_an_error(world):
    result = world({"a": {"A": 1}}, {"a": {"B": 1}})
    assert result.code == 1 and "no task is on both sides" in result.err and result.err.count("\n") == 1


def test_a_reference_of_zero_has_no_percentage(world):
    result = world(of(a=0.1, b=0.2), of(a=0, b=0))
    row = by_task(result.out)["A"]
    assert (row["pct_decrease"], row["reason"]) == (None, "the mean of REF is 0: no percentage of it")
    assert row["difference"] == pytest.approx(0.15, abs=0.01)  # which is defined all the same
    assert result.code == 0


def test_replicates_with_a_reference_of_zero_have_no_lower_bound(cli, tmp_path):
    (tmp_path / "iou_p.csv").write_text("Edema\n0.1\n0.1\n0.2\n")
    (tmp_path / "iou_r.csv").write_text("Edema\n0\n0.1\n0.2\n")
    row = by_task(cli("chex-compare", tmp_path / "iou_p.csv", tmp_path / "iou_r.csv").out)["Edema"]
    assert row["lower"] is None and row["upper"] == 0
    assert row["reason"].startswith("the mean of REF is 0 in 1") and row["reason"].endswith("no lower bound")


def test_one_cxr_has_no_interval(world):
    row = by_task(world(of(a=0.1), of(a=0.2)).out)["A"]
    assert row["pct_decrease"] == 50 and row["p"] is row["lower"] is row["difference_upper"] is None
    assert row["reason"] == "1 CXR with a value on both sides: no interval"


def test_the_average_is_over_tasks(world):
    pred = {i: {"A": 0.1, "B": 0.6} for i in "abc"}
    ref = {i: {"A": 0.2, "B": 0.8} for i in "abc"}
    average = by_task(world(pred, ref).out)["Average"]
    assert average["pred"] == pytest.approx(0.35) and average["ref"] == pytest.approx(0.5)
    assert average["pct_decrease"] == pytest.approx(30) and average["n"] == 6
    assert average["p_holm"] is None  # not one of the tests that Holm's method counts


def test_rows_descend_and_equals_keep_the_study_order_of_its_tables(world):
    pred = {i: {"A": 0.1, "B": 0.1, "C": 0.3, "D": None} for i in "abc"}
    ref = {i: {"A": 0.2, "B": 0.4, "C": 0.2, "D": 0.1} for i in "abc"}
    assert list(by_task(world(pred, ref).out)) == ["B", "A", "C", "D", "Average"]


# Statistics


def test_p_value_by_hand():
    assert differences.p_value(np.array([-3.0, -2, -1, 1])) == 2 * 2 / 5
    assert differences.p_value(np.array([-1.0, -1, -1, np.nan])) == 2 / 4
    assert differences.p_value(np.zeros(9)) == 1
    assert differences.p_value(np.array([np.nan])) is None


def test_signs_are_flipped_by_cxr_in_every_way(world):
    """All 2^n ways, enumerated the long way."""
    rng = np.random.default_rng(3)
    pred, ref = rng.random(7), rng.random(7) + 0.2
    named = [of(**{f"i{k}": float(v) for k, v in enumerate(side)}) for side in (pred, ref)]
    d = pred - ref
    ways = [abs(sum(s * v for s, v in zip(signs, d))) for signs in itertools.product((1, -1), repeat=7)]
    expected = np.mean(np.array(ways) >= abs(d.sum()) - 1e-12)
    row = by_task(world(*named).out)["A"]
    assert row["p"] == pytest.approx(expected) and row["test"] == "sign-flip"
    error = d.std(ddof=1) / 7**0.5
    assert row["difference_upper"] - row["difference"] == pytest.approx(stats.t.ppf(0.975, 6) * error)


def test_patients_are_one(world):
    """Four CXRs of two patients: four ways to flip signs, not 16."""
    names = ("patient1_a", "patient1_b", "patient2_a", "patient2_b")
    pred, ref = (of(**dict.fromkeys(names, value)) for value in (0.1, 0.3))
    pred["patient1_a"]["A"] = 0.2
    by_cxr, by_patient = (by_task(world(pred, ref, "--resample", kind).out)["A"] for kind in ("cxr", "patient"))
    assert (by_cxr["p"], by_patient["p"], by_patient["patients"]) == (1 / 8, 1 / 2, 2)
    assert by_patient["paired"] == "patient" and "patients" not in by_cxr


def test_a_margin_by_hand(world):
    """The two one-sided tests of Student's t, written out."""
    d = np.array([0.01, -0.02, 0.03, 0.0, 0.02, -0.01])
    pred, ref = (of(**{f"i{k}": 0.5 + v for k, v in enumerate(values.tolist())}) for values in (d, 0 * d))
    row = by_task(world(pred, ref, "--margin", 0.05).out)["A"]
    error = d.std(ddof=1) / 6**0.5
    below, above = (stats.t.sf(distance / error, 5) for distance in (d.mean() + 0.05, 0.05 - d.mean()))
    assert row["margin"] == 0.05
    assert row["p_noninferior"] == pytest.approx(below)
    assert row["p_equivalent"] == pytest.approx(max(below, above)) and row["p_equivalent"] < 0.01
    assert "margin" not in by_task(world(pred, ref).out)["A"]


def test_hits_that_always_agree_prove_no_equivalence(world):
    """Ten CXRs that both hit: the difference is 0, but its interval is not, and a tenth would not show."""
    hits = {f"i{k}": {"A": 1} for k in range(10)}
    row = by_task(world(hits, hits, "--margin", 0.1).out)["A"]
    assert row["p"] == 1 and row["difference"] == 0
    assert row["difference_lower"] < -0.1 and row["difference_upper"] > 0.1 and row["p_equivalent"] > 0.05


def test_cxrs_that_all_differ_alike_have_no_spread(world):
    """A margin that is the difference itself is not ruled out, whatever rounding says; a lesser one is by 2^-n."""
    pred, ref = (of(**{f"i{k}": value for k in range(8)}) for value in (0.2, 0.3))
    row = by_task(world(pred, ref, "--margin", 0.1).out)["A"]
    assert row["difference_lower"] == row["difference_upper"] == pytest.approx(-0.1)
    assert (row["p"], row["p_noninferior"], row["p_equivalent"]) == (2**-7, 1, 1)
    row = by_task(world(pred, ref, "--margin", 0.2).out)["A"]
    assert (row["p_noninferior"], row["p_equivalent"]) == (2**-8, 2**-8)


def test_few_cxrs_that_agree_prove_no_equivalence(world):
    """Both IoU are 0 on two CXRs: nothing tells that they are so on others. A third task keeps it from being hits."""
    sides = {k: {"A": 0, "B": v} for k, v in (("a", 0.1), ("b", 0.2), ("c", 0.4))}
    row = by_task(world(sides, sides, "--margin", 0.1).out)["A"]
    assert (row["difference"], row["p"], row["p_equivalent"]) == (0, 1, 1 / 8)
    assert row["difference_lower"] is row["difference_upper"] is row["lower"] is None
    row = by_task(world(sides, sides).out)["B"]
    assert row["pct_decrease"] == 0 and row["lower"] is None
    assert row["reason"] == "3 CXRs that all differ alike: no interval"


def test_no_interval_holds_what_cannot_be(world):
    """Of hits no difference is above 1, and no percentage of 0 has bounds."""
    hit, missed = ({f"i{k}": {"A": value} for k in range(8)} for value in (1, 0))
    row = by_task(world(hit, missed).out)["A"]
    assert (row["difference_upper"], row["pct_decrease"], row["lower"], row["upper"]) == (1, None, None, None)
    row = by_task(world(missed, hit).out)["A"]
    assert (row["difference_lower"], row["pct_decrease"], row["lower"], row["upper"]) == (-1, 100, None, None)
    assert row["reason"] == "the mean of PRED is 0: no interval of the percentage"


def test_a_negative_reference_has_no_percentage(cli, tmp_path):
    """Of -0.2, 0.1 is no decrease by 150%."""
    for name, values in (("p", (0.1, 0.2, -0.1)), ("r", (-0.2, -0.1, -0.3)), ("s", (0.2, 0.4, 0.1))):
        lines = (json.dumps({"id": f"i{k}", "road": {"A": value}}) + "\n" for k, value in enumerate(values))
        (tmp_path / name).write_text("".join(lines))
    row = by_task(cli("chex-compare", tmp_path / "p", tmp_path / "r").out)["A"]
    assert (row["pct_decrease"], row["lower"], row["upper"]) == (None, None, None) and row["difference"] > 0.2
    assert row["reason"] == "the mean of REF is negative: no percentage of it"
    row = by_task(cli("chex-compare", tmp_path / "r", tmp_path / "s").out)["A"]
    assert row["pct_decrease"] > 100 and row["reason"].startswith("the mean of PRED is negative")


@pytest.mark.parametrize("margin", ["nan", "inf", "0", "-1"])
def test_a_margin_is_a_number(world, margin):
    result = world(of(a=0.1), of(a=0.2), "--margin", margin)
    assert result.code == 2 and "'--margin'" in result.err


def test_patients_of_either_side(cli, tmp_path):
    """What one side knows of patients serves both; where neither does, or they differ, it is said."""
    values = (0.1, 0.2, 0.3, 0.5)

    def call(pred: tuple, ref: tuple):
        for name, shift, patients in (("p", 0.0, pred), ("r", 0.1, ref)):
            with (tmp_path / name).open("w") as stream:
                for k, value in enumerate(values):
                    record = {"id": f"i{k}", "iou": {"A": value + shift * k}}
                    stream.write(json.dumps(record | ({"patient": patients[k]} if patients else {})) + "\n")
        result = cli("chex-compare", tmp_path / "p", tmp_path / "r", "--resample", "patient")
        return by_task(result.out)["A"], result.err

    whose = ("P", "P", "Q", "Q")
    assert call(whose, ()) == call((), whose) == call(whose, whose)
    assert call(whose, ())[0]["patients"] == 2 and not call(whose, ())[1]
    assert "no patient is known, each counts as one of its own: 4 CXRs" in call((), ())[1]
    row, said = call(whose, ("P", "Q", "Q", "Q"))
    assert row["patients"] == 2 and "of another patient in REF, PRED's are taken: 1 CXR (i1)" in said


def test_any_metric_by_cxr_compares(cli, tmp_path):
    for name, shift in (("p", 0.0), ("r", 0.1)):
        lines = [json.dumps({"id": f"i{k}", "energy": {"Edema": 0.1 * k + shift}}) + "\n" for k in range(6)]
        (tmp_path / name).write_text("".join(lines))
    row = by_task(cli("chex-compare", tmp_path / "p", tmp_path / "r").out)["Edema"]
    assert row["metric"] == "energy" and row["difference"] == pytest.approx(-0.1)
    result = cli("chex-compare", tmp_path / "p", tmp_path / "r", "--metric", "energy", "--format", "csv")
    assert result.code == 2 and "the study's file of iou or hit" in result.err


def test_p_values_are_uniform_where_there_is_no_difference():
    """Of 400 data sets without a difference about a twentieth has p < 0.05: at most 9% at this size."""
    rng = np.random.default_rng(0)
    p = [differences.p_value(bootstrap.means(rng.standard_normal((40, 1)), 400, seed)[:, 0]) for seed in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
    assert 0.4 < np.mean(p) < 0.6


# Input


def test_kinds_metrics_and_replicates_must_agree(cli, small, tmp_path):
    images, replicates = study_files(small, "iou", "results"), study_files(small, "iou", "bootstrap_results")
    result = cli("chex-compare", images[0], replicates[1])
    assert result.code == 1 and "holds per-image results" in result.err and "give two of a kind" in result.err
    result = cli("chex-compare", images[0], study_files(small, "hit", "results")[1])
    assert result.code == 1 and "holds iou" in result.err and "hit" in result.err
    short = tmp_path / "iou_short.csv"
    short.write_text("\n".join(replicates[0].read_text().splitlines()[:101]) + "\n")
    result = cli("chex-compare", short, replicates[1])
    assert result.code == 1 and "has 100 replicates" in result.err and " 1000" in result.err


def test_undefined_replicates_say_that_the_sides_average_different_cxrs(cli, tmp_path):
    (tmp_path / "iou_p.csv").write_text('Edema\n0.1\n""\n0.2\n')
    (tmp_path / "iou_r.csv").write_text("Edema\n0.2\n0.3\nNaN\n")
    row = by_task(cli("chex-compare", tmp_path / "iou_p.csv", tmp_path / "iou_r.csv").out)["Edema"]
    assert row["note"] == "undefined in 1 replicates of PRED, 1 of REF: they average different CXRs"
    assert (row["replicates"], row["pct_decrease"]) == (1, pytest.approx(40))


def test_nan_in_a_csv_is_undefined_and_text_is_a_failure(cli, tmp_path):
    (tmp_path / "iou_p.csv").write_text("Edema,img_id\n0.1,a\nnan,b\n0.3,c\nmuch,d\n")
    (tmp_path / "iou_r.csv").write_text("Edema,img_id\n0.2,a\n0.4,b\n0.6,c\n0.8,d\n")
    result = cli("chex-compare", tmp_path / "iou_p.csv", tmp_path / "iou_r.csv")
    row = by_task(result.out)["Edema"]
    assert (row["n_pred"], row["n_ref"], row["failed"]) == (2, 3, 1)
    assert result.code == 1 and "iou_p.csv:5: 'much' is not a number; skipped" in result.err
    assert cli("chex-compare", tmp_path / "iou_p.csv", tmp_path / "iou_r.csv", "--fail-fast").out == ""


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "no records"),
        (b'{"id": "a", "masks": {}}\n', "not per-image results"),
        (b'{"metric": "iou", "task": "Edema", "mean": 0.5}\n', "neither per-image results nor replicates"),
        (b'{"id": "a", "iou": {"Edema": "high"}}\n', '"iou" must hold numbers or null'),
        (b'{"id": "a", "iou": {"Edema": 0.5}', "truncated JSON"),
        (b"img_id\na\n", "no task is on both sides"),
    ],
)
def test_what_is_no_result_is_one_line(cli, small, content, message):
    result = cli("chex-compare", "-", study_files(small, "iou", "results")[1], stdin=content)
    assert (result.code, result.out) == (1, "")
    assert message in result.err and result.err.count("\n") == 1


def test_a_metric_may_be_given_where_the_name_says_none(cli, small, tmp_path):
    for name, file in zip(("p.csv", "r.csv"), study_files(small, "iou", "results")):
        (tmp_path / name).write_bytes(file.read_bytes())
    files = tmp_path / "p.csv", tmp_path / "r.csv"
    assert {row["metric"] for row in rows(cli("chex-compare", *files).out)} == {None}
    assert {row["metric"] for row in rows(cli("chex-compare", *files, "--metric", "iou").out)} == {"iou"}


def test_duplicates_are_named(world, cli, tmp_path):
    world(of(a=0.1, b=0.2), of(a=0.2, b=0.4))
    (tmp_path / "pred").write_text((tmp_path / "pred").read_text() + '{"id": "a", "iou": {"A": 0.9}}\n')
    result = cli("chex-compare", tmp_path / "pred", tmp_path / "ref")
    assert f"{tmp_path / 'pred'}:3: duplicate id 'a', first at {tmp_path / 'pred'}:1; skipped" in result.err
    assert by_task(result.out)["A"]["pct_decrease"] == pytest.approx(50) and result.code == 1


def test_only_the_wanted_tasks(cli, small):
    files = study_files(small, "iou", "results")
    assert list(by_task(cli("chex-compare", *files, "--task", "Edema").out)) == ["Edema", "Average"]
    result = cli("chex-compare", *files, "--task", "Edma")
    assert result.code == 1 and "did you mean 'Edema'?" in result.err


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"], ["-"], ["-", "-"]])
def test_two_sides_are_needed(cli, arguments):
    result = cli("chex-compare", *arguments)
    assert (result.code, result.out) == (2, "")


def test_the_csv_is_what_the_study_scripts_read(cli, small):
    out = cli("chex-compare", *study_files(small, "iou", "results"), "--format", "csv").out
    table = list(csv.DictReader(out.splitlines()))
    assert list(table[0]) == ["", "hb", "pred", "pct_diff", "pct_diff_lower", "pct_diff_upper"]
    assert {row[""] for row in table} == {*STUDY, "Average"}


@pytest.mark.parametrize("output_format", ["table", "csv"])
def test_a_task_of_any_script_is_written_in_any_locale(cli, tmp_path, output_format):
    for name, values in (("iou_a.csv", "0.5\n0.3"), ("iou_b.csv", "0.4\n0.1")):
        cells = "\n".join(f"{v},p{k}" for k, v in enumerate(values.split()))
        (tmp_path / name).write_text(f"Ödem,img_id\n{cells}\n", encoding="utf-8")
    result = cli("chex-compare", tmp_path / "iou_a.csv", tmp_path / "iou_b.csv", "--format", output_format)
    assert result.code == 0 and "Ödem" in result.out and result.err.count("Error") == 0
