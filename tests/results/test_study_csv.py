"""The study's CSV files, as its scripts read and write them; the ids that two results share, and how rows begin."""

import csv
import io
import logging
import math

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.records.records import Failure, Located
from chextools.results import results, rows, study_csv
from chextools.results.results import Evaluation, Table

NAN = math.nan


def rows_in(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.fixture
def evaluation() -> Evaluation:
    """Two CXRs of two tasks, whose order by name is not the study's."""
    values = np.array([[0.1 + 0.2, NAN], [1.0, 1 / 3]])
    replicates = np.array([[0.2, 0.1], [0.4, NAN], [0.6, 0.3]])
    summary = [{"metric": "count", "task": task, "count": n} for task, n in (("Edema", 2), ("Cardiomegaly", 1))]
    for metric, value in (("precision", 0.5), ("recall", 0.25), ("specificity", NAN)):
        summary += [{"metric": metric, "task": task, "mean": value} for task in ("Edema", "Cardiomegaly")]
    return Evaluation(
        summary,
        {"iou": Table(["a", "b"], ["Edema", "Cardiomegaly"], values, replicates)},
        [],
        ["Edema", "Cardiomegaly"],
    )


@pytest.mark.parametrize("human", [False, True])
def test_the_files_of_an_evaluation_are_those_that_were_announced(evaluation, human):
    files = study_csv.evaluation_files(evaluation, human)
    assert list(files) == study_csv.evaluation_names(["iou", "count", "pixel", "dice"], human)
    assert ("iou_humanbenchmark_summary_results.csv" in files) == human


def test_per_cxr_numbers_read_back_to_the_last_bit(evaluation):
    text = study_csv.evaluation_files(evaluation)["iou_results_per_cxr.csv"]
    header, first, second = rows_in(text)
    assert header == ["Cardiomegaly", "Edema", "img_id"]  # by name
    assert first == ["", "0.30000000000000004", "a"]  # undefined is empty, as pandas writes it
    assert [float(second[0]), second[1:]] == [1 / 3, ["1.0", "b"]]
    items = study_csv.read_by_cxr(io.BytesIO(text.encode()), "x.csv")
    assert str([item.record for item in items]) == str(
        [
            {"id": "a", "values": {"Cardiomegaly": NAN, "Edema": 0.1 + 0.2}},
            {"id": "b", "values": {"Cardiomegaly": 1 / 3, "Edema": 1.0}},
        ]
    )


def test_tables_of_replicates_and_summaries(evaluation):
    files = study_csv.evaluation_files(evaluation)
    drawn = rows_in(files["iou_bootstrap_results_per_cxr.csv"])
    assert drawn == [["Cardiomegaly", "Edema"], ["0.1", "0.2"], ["", "0.4"], ["0.3", "0.6"]]
    assert rows_in(files["iou_summary_results.csv"]) == [
        ["name", "lower", "mean", "upper"],
        ["Cardiomegaly", "0.1", "0.2", "0.1"],  # of two values the study's bounds are both the first
        ["Edema", "0.2", "0.4", "0.4"],
    ]
    assert rows_in(files["n_segs.csv"]) == [["", "0"], ["Cardiomegaly", "1"], ["Edema", "2"]]
    assert rows_in(files["pred_precision_recall_specificity.csv"])[1] == ["0", "Cardiomegaly", "0.5", "0.25", ""]


@pytest.mark.parametrize(
    "path,metric",
    [
        ("a/iou_results_per_cxr.csv", "iou"),
        ("hitmiss_humanbenchmark_results_per_cxr.csv", "hit"),
        ("hit_x.csv", "hit"),
        ("iou/x.csv", None),
        ("ious.csv", None),
    ],
)
def test_a_files_name_begins_with_its_metric(path, metric):
    assert study_csv.metric_of(path) == metric


def test_a_cell_that_is_no_number_costs_its_line_alone():
    items = list(study_csv.read_by_cxr(io.BytesIO(b"img_id,Lung Opacity\na,0.5\nb,half\n,1\nd,\n"), "x.csv"))
    assert [type(item) for item in items] == [Located, Failure, Failure, Located]
    assert items[0].record == {"id": "a", "values": {"Airspace Opacity": 0.5}}
    assert (items[1].where, items[1].reason) == ("x.csv:3", "'half' is not a number")
    assert math.isnan(items[3].record["values"]["Airspace Opacity"])


@pytest.mark.parametrize(
    "text,what",
    [
        ("Edema\n1\n", "no column img_id"),
        ("img_id,Lung Opacity,Airspace Opacity\na,1,1\n", "x.csv: .*names one task twice"),
    ],
)
def test_columns_that_cannot_be_used_are_one_line(text, what):
    with pytest.raises(InputError, match=what):
        list(study_csv.read_by_cxr(io.BytesIO(text.encode()), "x.csv"))


def test_replicates_need_no_ids():
    (item,) = study_csv.read_by_cxr(io.BytesIO(b"Unnamed: 0,Edema\n0,0.25\n"), "x.csv", need_id=False)
    assert item.record == {"values": {"Edema": 0.25}}


def test_files_of_features_have_a_column_per_task():
    found = {"area_ratio": 0.25, "elongation": 2.0, "num_instances": 1, "rec_area_ratio": None}
    nothing = dict.fromkeys(found, 0) | {"elongation": None}
    files = study_csv.features_files({"a": {"Edema": found, "Fracture": nothing}, "b": {}}, ["Fracture", "Edema"])
    assert set(files) == set(study_csv.FEATURES_FILES)
    assert rows_in(files["area_ratio.csv"]) == [
        ["Edema", "Fracture", "img_id"],
        ["0.25", "0", "a"],  # of a task without any, the study's whole numbers
        ["", "", "b"],
    ]
    assert rows_in(files["elongation.csv"])[1] == ["2.0", "", "a"]


@pytest.mark.parametrize(
    "metric,against,human,name",
    [
        ("iou", "features", False, "regression_features_pred_iou.csv"),
        ("hit", "features", True, "regression_features_hb_hitmiss.csv"),
        ("iou_diff", "features", True, "regression_features_iou_diff.csv"),
        ("hit", "scores", False, "regression_modelprob_hitmiss.csv"),
        ("iou_diff", "scores", False, "regression_modelprob_iou_diff.csv"),
        ("iou", "scores", True, "regression_modelprob_iou_hb.csv"),
        ("dice", "scores", True, ""),
    ],
)
def test_names_of_regressions(metric, against, human, name):
    assert study_csv.regression_name(metric, against, human) == name


@pytest.mark.parametrize("p,stars", [(None, ""), (0.05, ""), (0.049, "*"), (0.01, "*"), (0.0099, "**"), (0.0, "***")])
def test_a_slope_has_a_star_for_each_level_that_p_is_below(p, stars):
    row = {"metric": "iou", "task": "Edema", "feature": "num_instances", "model": "single", "p_bonferroni": p}
    row |= {"slope": 0.12345, "lower": -1.0, "upper": None}
    files = study_csv.regression_files([row, row | {"model": "joint"}], "features")
    assert rows_in(files["regression_features_pred_iou.csv"])[1:] == [
        ["Edema", "n_instance", "0.123, (-1.0, nan)" + stars]
    ]


def test_tuning_writes_every_cutoff_and_the_best_threshold():
    cutoffs = [{"cutoff": 0.1 * k, "iou": NAN if k else 0.5, "task": "Edema"} for k in (0, 3)]
    assert rows_in(study_csv.tuning_file(cutoffs))[1:] == [
        ["0.0", "0.5", "Edema"],
        ["0.30000000000000004", "", "Edema"],
    ]
    thresholds = [{"threshold": 0.2, "task": "Edema", "best": False}, {"threshold": 0.4, "task": "Edema", "best": True}]
    assert study_csv.tuning_file(thresholds) == "threshold,task\n0.4,Edema\n"


def test_nothing_is_written_where_one_file_is_there_already(tmp_path):
    files = {"new.csv": "a\n", "old.csv": "b\n"}
    (tmp_path / "old.csv").write_text("mine")
    with pytest.raises(InputError, match="old.csv"):
        study_csv.write(tmp_path, files)
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    study_csv.write(tmp_path, files, force=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
    with pytest.raises(InputError, match="is a file; name a folder"):
        study_csv.check(tmp_path / "old.csv", files)


def test_ids_of_both_sides_in_order_and_who_is_alone(caplog):
    with caplog.at_level(logging.WARNING):
        assert results.join(["c", "a", "b", "a"], "left", ["d", "b", "c"], "right") == ["b", "c"]
    assert caplog.messages == [
        "in left but not in right, left out: 1 CXR (a)",
        "in right but not in left, left out: 1 CXR (d)",
    ]


def test_sides_that_share_no_id_say_what_may_be_meant():
    with pytest.raises(InputError, match=r"no id is both in left \(a.jpg, ...\) and in right \(a, ...\).*meant to be"):
        results.join(["a.jpg"], "left", ["a"], "right")


@pytest.mark.parametrize(
    "replicates,interval",
    [(np.arange(1, 1001) / 1000, (0.025, 0.975, 1000)), (np.full(4, np.nan), (np.nan, np.nan, 0))],
)
def test_an_interval_is_of_the_replicates_that_are_defined(replicates, interval):
    row = rows.interval_row("iou", "Edema", np.float64(0.5), np.append(replicates, np.nan), np.int64(3), np.int64(1))
    assert list(row) == ["metric", "task", "mean", "lower", "upper", "n", "replicates", "failed"]
    np.testing.assert_allclose((row["lower"], row["upper"], row["replicates"]), interval)
    assert [type(row[key]) for key in ("mean", "n", "failed")] == [float, int, int]
