"""What a report takes from files, checked, and the sections it makes of it: by task, and of the study's questions."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.metrics.catalogue import FEATURES
from chextools.records.records import Failure, Located
from chextools.reporting import by_task, rows, studies
from chextools.reporting.page import Linked, Name
from chextools.reporting.runs import Run
from chextools.results import study_csv

EVAL = {"metric": "iou", "task": "Edema", "mean": 0.5, "lower": 0.4, "upper": 0.6}


def run(name: str, kind: str, *found: dict, role: str = "model") -> Run:
    made = Run(name, role)
    made.rows[kind] = [{"lower": None, "upper": None} | row for row in found]
    return made


# Rows


@pytest.mark.parametrize(
    "row,kind",
    [
        (EVAL, "eval"),
        (EVAL | {"metric": "shortcut", "by": "view"}, "shortcut"),
        (EVAL | {"pct_decrease": 3}, "compare"),
        ({"metric": "iou", "for": "cutoff", "task": "Edema", "cutoff": 0.2, "iou": 0.5}, "tune"),
        ({"metric": "iou", "task": "Edema", "feature": "score", "model": "single", "slope": 1}, "regress"),
        ({"id": "a", "task": "Edema", "area_ratio": 0.1}, "features"),
        ({"id": "a", "views": {"Edema": {"picture": "a.png", "iou": None}}}, "view"),
        ({"id": "a", "curves": {"deletion": {"Edema": [1, 0.5]}}}, "curves"),
    ],
)
def test_rows_are_told_apart_by_their_keys(row, kind):
    found = rows.checked(Located("x:1", row))
    assert isinstance(found, Located) and (found.where, found.record["kind"]) == ("x:1", kind)
    assert kind in rows.KINDS


def test_what_is_no_result_is_a_stranger_and_what_is_broken_a_failure():
    stranger = rows.checked(Located("x:1", {"id": "a", "scores": {"Edema": 0.5}}))
    assert isinstance(stranger, rows.Stranger) and stranger.as_failure().where == "x:1"
    for changed in ({"mean": "half"}, {"mean": 1e13}, {"task": ""}, {"task": "x" * 301}, {"failed": "two"}):
        assert isinstance(rows.checked(Located("x:1", EVAL | changed)), Failure), changed


def test_a_number_that_is_none_and_an_alias_of_a_task():
    found = rows.checked(Located("x:1", EVAL | {"task": "Lung Opacity", "lower": None, "n": 3, "junk": {"a": 1}}))
    assert found.record["row"] == {
        "metric": "iou",
        "task": "Airspace Opacity",
        "mean": 0.5,
        "lower": None,
        "upper": 0.6,
        "n": 3,
    }


def of_csv(text: str, name: str) -> list:
    return [
        item.record["row"] if isinstance(item, Located) else item
        for item in rows.from_csv(io.BytesIO(text.encode()), name)
    ]


def test_a_csv_of_ours_is_its_json():
    text = ",".join(EVAL) + ",note\n" + ",".join(map(str, EVAL.values())) + ",\n"
    assert of_csv(text, "x.csv") == [rows.checked(Located("", EVAL)).record["row"]]


def test_what_we_write_for_the_study_is_read_back():
    made = {"metric": "hit", "task": "Edema", "feature": "num_instances", "model": "single", "p_bonferroni": 0.001}
    made |= {"slope": 0.5, "lower": -0.25, "upper": None}
    ((name, text),) = study_csv.regression_files([made], "features", human=True).items()
    (found,) = of_csv(text, name)
    assert found.items() >= {"metric": "hit_hb", "feature": "num_instances", "slope": 0.5, "lower": -0.25}.items()
    assert found["upper"] is None
    values = {"area_ratio": 0.25, "elongation": 2.0, "num_instances": 3, "rec_area_ratio": 0.75}
    for name, text in study_csv.features_files({"a": {"Edema": values}}, ["Edema"]).items():
        (found,) = of_csv(text, name)
        expected = {"rec_area_ratio.csv": 1 - 0.75}.get(name, values[name.removesuffix(".csv")])
        assert found[found["feature"]] == expected and found["feature"] in FEATURES


@pytest.mark.parametrize(
    "text,said",
    [("a,b\n1,2\n", "no columns of results"), ("img_id,Edema\na,1\n", "per-image results; give the summary")],
)
def test_a_csv_of_another_kind(text, said):
    with pytest.raises(rows.NoResults, match=said):
        of_csv(text, "x.csv")


def test_an_estimate_that_is_none_costs_its_row():
    found = of_csv(
        "task,feature,Linear regression coefficients\nEdema,elongation,high\nEdema,elongation,1 (2)\n", "x.csv"
    )
    assert [item.where for item in found] == ["x.csv:2", "x.csv:3"]
    assert all(isinstance(item, Failure) and "not an estimate with its interval" in item.reason for item in found)


# By task


def measured(name: str, role: str = "model", **means: float) -> Run:
    return run(name, "eval", *(EVAL | {"task": task, "mean": mean} for task, mean in means.items()), role=role)


RUNS = [measured(f"m{k}", Edema=k / 10, Fracture=0.1) for k in range(7)]


def test_figures_show_the_best_models_beside_a_few_benchmarks_and_floors():
    others = [measured(f"{role}{k}", role, Edema=0.9 - k / 10) for role in ("human", "floor") for k in range(3)]
    names = [each.name for each in by_task.shown_runs([*RUNS, *others])]
    assert names == ["human0", "human1", "m6", "m5", "m4", "m3", "m2", "floor0", "floor1"]
    notes = by_task.section(RUNS).notes
    assert notes[0].startswith("The first 5 of 7 runs") and len(notes) == 3


def test_a_row_per_run_and_a_column_per_task_with_links():
    (table,) = by_task.matrices(RUNS[:2], {("m1", "Edema"): "#there"})
    assert [column.label for column in table.columns] == ["Run", "Edema", "Fracture", "Average"]
    first, second = table.rows
    assert first[0] == Name("m1", "") and first[1] == Linked(0.1, "#there")
    assert second[1:3] == [0.0, 0.1] and first[3] == pytest.approx(0.1)
    assert by_task.matrices(RUNS[:1], {}) == []


def test_names_of_columns_part_no_cells_and_begin_no_formula():
    (table,) = by_task.matrices([measured(name, **{'=cmd|"A",b': 0.5}) for name in "ab"], {})
    assert not set('=|",') & set(table.columns[1].key)


def test_details_say_what_each_metric_of_one_cxr_is():
    section = by_task.details([measured("a", Edema=0.5)], {("a", "Edema"): "#there"})
    (found,) = section.runs
    assert (section.heading, found.is_open) == ("Results", True)
    assert found.table.rows[0][:3] == ["mIoU", Linked("Edema", "#there"), 0.5]
    assert by_task.details([Run("a")]) is None and by_task.section([Run("a")]) is None


# The study's questions


def test_sections_of_nothing_are_left_out():
    assert [make([Run("a")]) for make in (studies.decrease, studies.features, studies.tuning, studies.regressions)] == [
        None
    ] * 4


def test_shapes_are_quantiles_of_what_is_there():
    values = [0.1, 0.2, 0.4, 0.8, 0.0]  # the last has nothing outlined
    section = studies.features([run("a", "features", *({"task": "Edema", "area_ratio": value} for value in values))])
    ((_, task, n, *found),) = section.tables[0].rows
    assert (task, n) == ("Edema", 4)
    np.testing.assert_allclose(found, np.percentile(values[:4], [5, 25, 50, 75, 95]))


def test_decreases_are_a_figure_per_metric_with_the_average_last():
    found = [{"metric": m, "task": t, "pct_decrease": 10.0} for m in ("iou", "hit") for t in ("Average", "Edema")]
    section = studies.decrease([run("a", "compare", *found)])
    assert [figure.name for figure in section.figures] == ["decrease_iou", "decrease_hit"]
    assert len(section.tables[0].rows) == 4


@pytest.mark.parametrize("count", [3, 500])
def test_a_curve_keeps_its_ends_and_its_chosen_point(count):
    curve = studies.Curve("x", list(range(count)), [math.sin(k) for k in range(count)], best=count // 3)
    thinned = studies._thinned(curve)  # noqa: SLF001 - a page shows no points
    assert len(thinned.x) <= studies.MOST_POINTS + 1 and (thinned.x[0], thinned.x[-1]) == (0, count - 1)
    assert thinned.x[thinned.best] == count // 3
    assert thinned.y == [math.sin(k) for k in thinned.x]


def test_roc_curves_have_the_false_positive_rate_on_their_axis():
    points = [
        {
            "for": "score",
            "task": "Edema",
            "score_threshold": t,
            "sensitivity": s,
            "specificity": 1 - s,
            "best": s == 0.5,
        }
        for t, s in ((0.9, 0.1), (0.5, 0.5), (0.1, 1.0))
    ]
    section = studies.tuning([run("a", "tune", *points)])
    assert [figure.note for figure in section.figures] == ["The ring is the operating point chosen."]
    assert [row[-1] for row in section.tables[0].rows] == [None, "yes", None]


def test_regressions_on_features_and_on_scores_are_two_figures():
    base = {"metric": "iou", "task": "Edema", "model": "single", "slope": 0.5}
    found = [base | {"feature": feature} for feature in ("elongation", "score")] + [
        base | {"feature": "elongation", "model": "joint"}
    ]
    section = studies.regressions([run("a", "regress", *found)])
    assert [figure.heading for figure in section.figures] == [
        "IoU on each feature, scaled to 0–1",
        "IoU on score",
        "IoU on all features, standardised",
    ]


def test_a_curve_of_a_record_must_be_numbers():
    found = rows.checked(Located("x:1", {"id": "a", "curves": {"deletion": {"Edema": [1, "x"]}}}))
    assert isinstance(found, Failure) and "deletion of Edema is no list of numbers" in found.reason
    assert isinstance(rows.NoResults("x"), InputError)
