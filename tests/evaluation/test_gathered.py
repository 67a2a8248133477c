"""Rows of chex-eval, and the CXRs they are of, gathered as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.evaluation import localisation, looking, rows
from chextools.evaluation.gathered import Gathered
from chextools.evaluation.looking import AREAS, Looked
from chextools.evaluation.settings import EvaluationSettings
from chextools.inputs.truth import Truth
from chextools.masks.mask import Mask

SIZE = (8, 10)
TASKS = ("Edema", "Fracture")


def settings(**changed) -> EvaluationSettings:
    return EvaluationSettings(**{"tasks": TASKS, "metrics": ("iou",), "replicates": 50} | changed)


def mask(*cells: tuple[int, int]) -> np.ndarray:
    found = np.zeros(SIZE, bool)
    for cell in cells:
        found[cell] = True
    return found


def record(name: str, **by_task: np.ndarray) -> dict:
    masks = {task: Mask.from_array(array).to_rle() for task, array in by_task.items()}
    return {"id": name, "size": list(SIZE), "masks": masks}


def truth(*found: dict) -> Truth:
    return Truth({each["id"]: each for each in found}, list(TASKS), [])


# The parts of a row


def test_extras_of_the_average_are_sums_of_counts_and_means_of_others():
    found = rows.over_tasks({"count": np.array([2, 3]), "chance": np.array([0.25, np.nan, 0.75])})
    assert found == {"count": 5, "chance": 0.5} and type(found["count"]) is int


def test_patients_are_drawn_only_where_asked():
    patients = ["p2", "p1", "p2"]
    assert rows.groups_of(patients, settings()) is None
    number, count = rows.groups_of(patients, settings(resample="patient"))
    assert (number.tolist(), count) == ([1, 0, 1], 2)
    assert rows.drawn(settings(resample="patient", seed=7)) == {"resample": "patient", "seed": 7}


# What is gathered


def looked(name: str, number: float, patient: str = "", **changed) -> Looked:
    given = {
        "has_truth": True,
        "has_prediction": True,
        "scores": {"Edema": number},
        "measured": np.full((5, 2), number),
    }
    given |= {"lacks_mask": np.array([False, True]), "failed_masks": {}, "failed_looks": {}}
    return Looked(name, patient or name, **given | changed)


def assert_equal(one: Looked, other: Looked) -> None:
    for name in Looked.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("count", [1, 3, 4097])
def test_rows_come_back_as_they_went_in_sorted_by_id(count):
    """Also of more than one block."""
    given = [looked(f"i{(7919 * k) % count:05}", k) for k in range(count)]
    given[0] = looked("i", 0.5, "somebody", scores={}, failed_masks={"Edema": "m"}, failed_looks={"Fracture": "l"})
    found = Gathered()
    for row in given:
        found.add(row)
    found.sort()
    assert found.ids == sorted(row.id for row in given) and len(found) == count
    for one, other in list(zip(found, sorted(given, key=lambda row: row.id)))[:: max(1, count // 50)]:
        assert_equal(one, other)
    assert found.measured.shape == (count, 5, 2) and found.patients[0] == "somebody"
    assert found.failures(True, "Edema") == found.failures(False, "Fracture") == [0]
    assert not found.failures(False, "Edema")


def test_a_patient_is_read_off_the_id_unless_the_record_says_another():
    found = Gathered()
    for row in (looked("patient7_b", 0, "patient7"), looked("patient7_a", 0, "patient8")):
        found.add(row)
    found.sort()
    assert found.patients == ["patient8", "patient7"]


# What is measured of one CXR, and the rows of all


def test_areas_of_a_mask_and_its_truth_are_those_of_the_pixels():
    seen, true = mask((0, 0), (1, 1)), mask((1, 1), (2, 2), (2, 3))
    found = looking.looked_at(record("a", Edema=seen), record("a", Edema=true), settings())
    np.testing.assert_array_equal(found.measured[:AREAS, 0], [80, 2, 3, 1, np.nan])
    assert found.lacks_mask.tolist() == [False, True] and (found.has_truth, found.has_prediction) == (True, True)
    np.testing.assert_array_equal(found.measured[1:4, 1], 0)  # of a task that nobody mentions nothing is there


def test_a_cxr_without_a_prediction_counts_as_empty():
    found = looking.looked_at(None, record("a", Edema=mask((1, 1))), settings())
    assert not found.has_prediction and found.lacks_mask.all()
    np.testing.assert_array_equal(found.measured[1:4, 0], [0, 1, 0])


def test_masks_of_two_sizes_fail_for_their_task_alone():
    other = {"id": "a", "masks": {"Edema": Mask.from_array(np.ones((3, 3), bool)).to_rle()}}
    found = looking.looked_at(other, record("a", Edema=mask((1, 1))), settings())
    assert list(found.failed) == ["Edema"] and "[3, 3]" in found.failed["Edema"] and "[8, 10]" in found.failed["Edema"]


@pytest.mark.parametrize("slice_,expected", [("positive", [1 / 4, np.nan]), ("full", [1 / 8, 0.0])])
def test_means_are_over_the_cxrs_of_the_slice(slice_, expected):
    """a: 1 pixel of 4 together; b: seen where nothing is, which counts in the full slice only."""
    predictions = [
        record("a", Edema=mask((0, 0), (1, 1)), Fracture=mask()),
        record("b", Edema=mask((0, 0)), Fracture=mask((1, 1))),
    ]
    known = truth(record("a", Edema=mask((1, 1), (2, 2), (2, 3))), record("b"))
    chosen = settings(slice=slice_)
    seen = [looking.looked_at(each, known.records[each["id"]], chosen) for each in predictions]
    gathered = localisation.gathered(seen, known, chosen)
    result = localisation.evaluation_of(gathered, known, chosen, failed=2)
    by_task = {row["task"]: row for row in result.summary}
    np.testing.assert_allclose([by_task[task]["observed"] for task in TASKS], expected)
    assert {row["failed"] for row in result.summary} == {2} and result.tables["iou"].ids == ["a", "b"]
    assert by_task["Average"]["n"] == sum(by_task[task]["n"] for task in TASKS)


def test_what_was_not_predicted_is_added_and_said(caplog):
    known = truth(record("a", Edema=mask((1, 1))), record("b", Edema=mask((1, 1))))
    seen = [looking.looked_at(record("a", Edema=mask((1, 1))), known.records["a"], settings())]
    gathered = localisation.gathered(seen, known, settings())
    assert gathered.has_prediction.tolist() == [True, False]
    assert "in the truth but not predicted, counted as empty masks and missed hits: 1 CXR (b)" in caplog.text
    (edema, _) = localisation.evaluation_of(gathered, known, settings()).summary
    assert (edema["observed"], edema["n"], edema["misses_as_0"], edema["positives"]) == (1, 1, 0.5, 2)


def test_predictions_of_other_cxrs_than_the_truths_are_one_line():
    seen = [looking.looked_at(record("a.png", Edema=mask((1, 1))), None, settings())]
    with pytest.raises(InputError, match=r"no id of the predictions is in the truth: .*meant to be 'a'"):
        localisation.gathered(seen, truth(record("a", Edema=mask((1, 1)))), settings())


def test_predictions_of_no_task_of_the_truth_are_one_line():
    known = truth(record("a", Edema=mask((1, 1))))
    gathered = localisation.gathered(
        [looking.looked_at(record("a"), known.records["a"], settings())], known, settings()
    )
    with pytest.raises(InputError, match="none of the truth's tasks: Edema, Fracture"):
        localisation.evaluation_of(gathered, known, settings())


@pytest.mark.parametrize(
    "found,requested,allowed",
    [
        ({"masks": {}}, (), ["iou", "count", "pixel"]),
        ({"points": {}}, ("hit",), ["hit"]),
        ({"masks": {}, "points": {}}, ("hit", "iou"), ["iou", "hit"]),
    ],
)
def test_metrics_that_a_record_allows(found, requested, allowed):
    assert set(looking.metrics_for({"id": "a"} | found, requested)) == set(allowed)


@pytest.mark.parametrize("found,said", [({"points": {}}, "a: allows hit, not iou"), ({}, 'no "masks"')])
def test_metrics_that_it_does_not(found, said):
    with pytest.raises(InputError, match=said):
        looking.metrics_for({"id": "a"} | found, ("iou",))


@pytest.mark.parametrize(
    "tasks,found",
    [
        (["Left Lung", "Right lung", "Heart"], ["Left Lung", "Right lung"]),
        (["thorax"], ["thorax"]),
        (["lung_fields"], ["lung_fields"]),
        (["Lung Lesion", "Lungs"], ["Lungs"]),
    ],
)
def test_lungs_are_known_by_their_names(tasks, found):
    assert looking.lungs_of(Truth({}, tasks, [])) == found


def test_no_lungs_are_one_line():
    with pytest.raises(InputError, match="the truth: no lungs among its tasks: Lung Lesion, Heart"):
        looking.lungs_of(Truth({}, ["Lung Lesion", "Heart"], []))
