"""What each image says of thresholds, cutoffs and scores, and what is chosen of many: by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.inputs.truth import Truth
from chextools.masks.mask import Mask
from chextools.records.records import Failure, Located
from chextools.tuning import choice, trials
from chextools.tuning.settings import TuningSettings
from chextools.tuning.trials import Trial

NAN = math.nan
SIZE = (1, 10)


def rle(*pixels: int) -> dict:
    return Mask.from_array(np.isin(np.arange(10), pixels)[None]).to_rle()


def truth(**pixels: tuple[int, ...]) -> Truth:
    records = {name: {"id": name, "masks": {"Edema": rle(*found)}} for name, found in pixels.items()}
    return Truth(records, ["Edema"], [])


def settings(purpose: str, **changed) -> TuningSettings:
    return TuningSettings(**{"purpose": purpose, "tasks": ("Edema",), "replicates": 200} | changed)


def trial_of(record: dict, known: Truth | None, chosen: TuningSettings) -> Trial:
    (item,) = trials.measure([Located("x:1", record)], known, chosen, 1)
    if isinstance(item, Failure):
        raise InputError(item.reason)
    return item.record["row"]


# What one image says


@pytest.mark.parametrize(
    "objective,of", [("iou", lambda b, s, t: b / (s + t - b)), ("dice", lambda b, s, t: 2 * b / (s + t))]
)
def test_overlap_at_each_threshold(tmp_path, objective, of):
    """Of a map of ten values, 0 to 0.9, a threshold takes those above it of a map scaled to [0, 1]."""
    write_npz(
        tmp_path / "a.npz", Heatmaps("a", SIZE, {"Edema": np.arange(10, dtype=np.float32)[None]}, input_size=SIZE)
    )
    chosen = settings("threshold", objective=objective, grid=(0.1, 0.9, 0.2))
    row = trial_of({"id": "a", "heatmap": str(tmp_path / "a.npz")}, truth(a=(6, 7, 9)), chosen)
    seen = [{k for k in range(10) if k / 9 > t} for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    np.testing.assert_allclose(row.values["Edema"], [of(len(s & {6, 7, 9}), len(s), 3) for s in seen])
    assert row.has == {"Edema"} and not row.failed


def test_an_image_without_truth_says_nothing_of_a_threshold(tmp_path):
    write_npz(tmp_path / "a.npz", Heatmaps("a", SIZE, {"Edema": np.ones(SIZE, np.float32)}, input_size=SIZE))
    row = trial_of({"id": "a", "heatmap": str(tmp_path / "a.npz")}, truth(a=()), settings("threshold"))
    assert not row.values and row.has == {"Edema"}


@pytest.mark.parametrize("true,expected", [((1, 2), [1 / 3, 1 / 3, 0, 0, 0]), ((), [0, 0, NAN, NAN, NAN])])
def test_a_cutoff_of_at_least_the_score_empties_the_mask(true, expected):
    """Of the full slice: an empty mask misses what is there, and is left out where nothing is."""
    record = {"id": "a", "masks": {"Edema": rle(2, 3)}, "scores": {"Edema": 0.2}}
    row = trial_of(record, truth(a=true), settings("cutoff", grid=(0, 0.4, 0.1)))
    np.testing.assert_allclose(row.values["Edema"], expected)


@pytest.mark.parametrize(
    "changed,said",
    [
        ({"scores": {}}, "no score"),
        ({"masks": {"Edema": Mask.empty((2, 2)).to_rle()}}, r"\[2, 2\], its truth \[1, 10\]"),
    ],
)
def test_what_a_cutoff_cannot_be_of_fails_by_task(changed, said):
    record = {"id": "a", "masks": {"Edema": rle(2)}, "scores": {"Edema": 0.2}} | changed
    row = trial_of(record, truth(a=(2,)), settings("cutoff"))
    assert not row.values
    with pytest.raises(InputError, match=said):
        raise InputError(row.failed["Edema"])


@pytest.mark.parametrize("label,positive", [(1, True), (0, False), (None, None), (-1, "left out")])
def test_labels_of_scores(label, positive):
    row = trial_of({"id": "a", "scores": {"Edema": 0.7}, "labels": {"Edema": label}}, None, settings("score"))
    assert row.scored == ({} if positive == "left out" else {"Edema": (0.7, positive)})


def test_a_truth_says_more_than_labels():
    record = {"id": "a", "scores": {"Edema": 0.7}, "labels": {"Edema": 0}}
    assert trial_of(record, truth(a=(3,)), settings("score")).scored == {"Edema": (0.7, True)}
    assert trial_of(record, truth(b=(3,)), settings("score")).scored == {"Edema": (0.7, False)}


@pytest.mark.parametrize(
    "record,said",
    [({"scores": {"Edema": 1}}, 'no "labels", and no truth given'), ({"labels": {"Edema": 1}}, 'no "scores"')],
)
def test_what_a_score_needs(record, said):
    with pytest.raises(InputError, match=said):
        trial_of({"id": "a"} | record, None, settings("score"))


# What many say


def of_values(*table: list[float], task: str = "Edema") -> list[Trial]:
    return [Trial(f"i{k}", frozenset({task}), {task: np.array(row, float)}) for k, row in enumerate(table)]


def tuned(rows: list[Trial], purpose: str = "cutoff", known: Truth | None = None, **changed) -> tuple[dict, list[dict]]:
    found = choice.tuning_of(rows, known, settings(purpose, **{"grid": (0, 0.3, 0.1)} | changed), failed=1)
    (best,) = found.best
    return best, found.curve


def test_the_first_of_the_greatest_means_is_chosen():
    best, curve = tuned(of_values([0.1, 0.6, 0.5, NAN], [0.3, 0.4, 0.5, NAN]))
    assert (best["cutoff"], best["iou"], best["n"], best["failed"]) == (0.1, 0.5, 2, 1)
    assert [point["iou"] for point in curve][:3] == [0.2, 0.5, 0.5] and math.isnan(curve[3]["iou"])
    assert [point["best"] for point in curve] == [False, True, False, False]
    assert [point["cutoff"] for point in curve] == [0, 0.1, 0.2, 0.3]  # as people write them


def test_means_of_cutoffs_are_rounded_as_in_the_study_and_of_thresholds_not():
    """By 0.0004 the second is better: not in three decimals."""
    rows = of_values([0.5, 0.5004, 0, 0], [0.5, 0.5004, 0, 0])
    assert tuned(rows)[0]["cutoff"] == 0
    assert tuned(rows, "threshold", truth(i0=(1,), i1=(1,)))[0]["threshold"] == 0.1


def test_an_interval_is_of_values_chosen_anew():
    """Of ten images nine like the first cutoff best and one by far the last: some replicates draw it often."""
    best, _ = tuned(of_values(*[[0.5, 0, 0, 0.4]] * 9, [0, 0, 0, 0.5]))
    draws = np.random.RandomState(0).randint(0, 10, (200, 10))
    often = (draws == 9).sum(axis=1)
    picks = np.sort(np.where(0.5 * (10 - often) >= 0.4 * (10 - often) + 0.5 * often, 0, 0.3))
    assert (best["lower"], best["upper"]) == (picks[4], picks[194])
    assert best["replicates"] == 200


def test_lung_lesion_starts_where_the_study_starts():
    rows = of_values([1, 0.5, 0.2, 0.1], [1, 0.5, 0.2, 0.1], task="Lung Lesion")
    assert tuned(rows, tasks=("Lung Lesion",))[0]["cutoff"] == 0.1
    assert tuned(rows, tasks=("Lung Lesion",), exception=False)[0]["cutoff"] == 0
    with pytest.raises(InputError, match="no cutoff of 0.1 or more"):
        tuned(of_values([1.0], task="Lung Lesion"), tasks=("Lung Lesion",), grid=(0, 0.05, 0.1))


@pytest.mark.parametrize(
    "rows,said",
    [
        (of_values([NAN] * 4), "iou is undefined for every CXR: the first of the grid"),
        (of_values([0.1, 0.2, 0.1, 0]), "chosen on one CXR: no interval"),
        ([Trial("a", frozenset({"Edema"}), failed={"Edema": "torn"})], "all failed: torn"),
    ],
)
def test_what_rests_on_nothing_says_so(rows, said):
    best, _ = tuned(rows)
    assert best["reason"] == said
    assert best["cutoff"] == (None if "failed" in said else 0.1 if "one CXR" in said else 0)


def of_scores(*pairs: tuple[float, bool | None], task: str = "Edema") -> list[Trial]:
    return [Trial(f"i{k}", frozenset({task}), scored={task: pair}) for k, pair in enumerate(pairs)]


PAIRS = ((0.9, True), (0.8, False), (0.6, True), (0.5, True), (0.3, False), (0.2, False))


def test_youdens_point():
    """From 0.5 on all three positives and one of three negatives: J = 1 - 1/3."""
    best, curve = tuned(of_scores(*PAIRS), "score", grid=None)
    assert (best["metric"], best["score_threshold"], best["sensitivity"]) == ("youden", 0.5, 1)
    assert (best["specificity"], best["youden"]) == pytest.approx((2 / 3, 2 / 3))
    assert [point["score_threshold"] for point in curve] == [0.9, 0.8, 0.6, 0.5, 0.3, 0.2]
    assert tuned(of_scores(*PAIRS), "score", grid=None, sensitivity=0.6)[0]["score_threshold"] == 0.6


@pytest.mark.parametrize("task,missing,n", [("Edema", None, 4), ("Nodule", None, 3), ("Edema", "ignore", 3)])
def test_blank_labels_are_negative_of_chexperts_tasks(task, missing, n):
    rows = of_scores((0.9, True), (0.7, True), (0.4, None), (0.1, False), task=task)
    assert tuned(rows, "score", tasks=(task,), missing=missing, grid=None)[0]["n"] == n


@pytest.mark.parametrize(
    "pairs,said",
    [
        (((0.9, True),), "no image is negative"),
        (((0.9, False),), "no image is positive"),
        (((0.9, None),), "no image with a score and a label"),
        (((0.9, True), (0.1, False), (0.2, False)), "chosen on one image of a class: no interval"),
    ],
)
def test_a_class_that_is_missing(pairs, said):
    best, _ = tuned(of_scores(*pairs), "score", grid=None)
    assert best["reason"] == said and best["lower"] is None


def test_images_of_one_side_only(caplog):
    rows = of_values([1, 0, 0, 0], [0, 1, 0, 0])
    best, _ = tuned(rows, "threshold", truth(i0=(1,), other=(1,)))
    assert (best["n"], best["threshold"]) == (1, 0)
    assert "in the truth but not among the heatmaps, left out: 1 CXR (other)" in caplog.text
    assert "among the heatmaps but not in the truth, left out: 1 CXR (i1)" in caplog.text
    with pytest.raises(InputError, match="no image is on both sides"):
        tuned(rows, "threshold", truth(other=(1,)))


def test_nothing_to_choose_from():
    with pytest.raises(InputError, match="none of 1 records could be used"):
        tuned([])
    with pytest.raises(InputError, match="no image with a heatmap of Edema"):
        tuned([Trial("a", frozenset({"Fracture"}))])
