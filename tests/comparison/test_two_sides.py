"""What two sides of a comparison are and say: results, scores, and maps, as modules rather than through a command."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from chextools.comparison import maps, scores, sides
from chextools.comparison.settings import ComparisonSettings
from chextools.errors import InputError
from chextools.evaluation.classification import Scored
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.records.tally import Tally

NOTHING = io.BytesIO()


# Results


def lines(*rows: dict) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())


def test_results_by_cxr_are_a_table_by_id_and_task():
    rows = ({"id": "b", "iou": {"Fracture": 1, "Edema": 0.25}}, {"id": "a", "iou": {"Edema": None}})
    found = sides.read_results("-", lines(*rows))
    assert (found.name, found.metric, found.ids, found.tasks) == ("stdin", "iou", ["a", "b"], ["Edema", "Fracture"])
    np.testing.assert_array_equal(found.values, [[np.nan, np.nan], [0.25, 1]])
    assert found.patients == {"a": "a", "b": "b"} and not found.failures


def test_replicates_are_in_the_order_of_their_numbers():
    rows = ({"metric": "iou", "replicate": k, "means": {"Edema": k / 100}} for k in (10, 2, 0))
    found = sides.read_results("-", lines(*rows))
    assert found.ids is None and found.values.tolist() == [[0], [0.02], [0.1]]


def test_a_row_of_another_kind_and_one_seen_before_are_named():
    row = {"id": "a", "iou": {"Edema": 1}}
    found = sides.read_results("-", lines(row, row, {"metric": "iou", "replicate": 0, "means": {"Edema": 1}}))
    assert [failure.reason for failure in found.failures] == [
        "duplicate id 'a', first at stdin:1",
        "not per-image results",
    ]
    assert found.values.tolist() == [[1]]


def test_of_several_metrics_one_is_chosen():
    row = {"id": "a", "iou": {"Edema": 0.5}, "hit": {"Edema": 1}}
    with pytest.raises(InputError, match="stdin: holds iou and hit; choose one with --metric"):
        sides.read_results("-", lines(row))
    assert sides.read_results("-", lines(row), "hit").values.tolist() == [[1]]
    with pytest.raises(InputError, match="stdin: holds iou and hit, not dice"):
        sides.read_results("-", lines(row), "dice")


# Scores


def scored(name: str, patient: str = "", *, label: int | None = None, **by_task: float) -> Scored:
    labels = None if label is None else dict.fromkeys(by_task, label)
    return Scored(name, patient or name, by_task, labels, {})


POSITIVE = [1, 1, 0, 0, 0, 1]
PRED, REF = [0.9, 0.4, 0.5, 0.2, 0.1, 0.8], [0.3, 0.4, 0.5, 0.2, 0.6, 0.5]


def side(values: list[float], labels: list[int] | None = POSITIVE, task: str = "Edema") -> list[Scored]:
    numbered = zip(values, labels or [None] * len(values))
    return [scored(f"i{k}", label=label, **{task: value}) for k, (value, label) in enumerate(numbered)]


def area(values: list[float]) -> float:
    """The share of pairs that a score puts in order, ties by half."""
    pairs = [(p, n) for p, a in zip(values, POSITIVE) for n, b in zip(values, POSITIVE) if a > b]
    return sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs)


def compared(pred: list[Scored], ref: list[Scored], **settings) -> list[dict]:
    return scores.rows_of(pred, "PRED", ref, "REF", ComparisonSettings(metric="auroc", **settings), 3)


@pytest.mark.parametrize("labelled", ["both", "pred", "ref"])
def test_areas_are_shares_of_pairs_whoever_has_the_labels(labelled):
    pred, ref = (
        side(v, POSITIVE if labelled in ("both", name) else None) for v, name in ((PRED, "pred"), (REF, "ref"))
    )
    row, average = compared(pred, ref)
    assert (row["pred"], row["ref"]) == pytest.approx((area(PRED), area(REF)))
    assert (row["n"], row["positives"], row["failed"]) == (6, 3, 3)
    assert {**average, "task": "Edema"}.items() >= {"difference": row["difference"], "n": 6, "tasks": 1}.items()


def test_pairs_without_a_label_or_a_score_do_not_count():
    pred, ref = side(PRED), side(REF)
    pred += [scored("more", label=-1, Edema=0.7), scored("mute", label=1, Edema=0.7), scored("alone", label=1, Edema=1)]
    ref += [scored("more", label=-1, Edema=0.1), scored("mute", label=1)]
    row, _ = compared(pred, ref)
    assert (row["n"], row["pred"]) == (6, pytest.approx(area(PRED)))


def test_p_values_of_several_tasks_are_holms():
    def both(values: list[float], other: list[float]) -> list[Scored]:
        return [
            scored(f"i{k}", label=positive, Edema=a, Fracture=b)
            for k, (a, b, positive) in enumerate(zip(values, other, POSITIVE))
        ]

    first, second, average = compared(both(PRED, REF), both(REF, [0.2, 0.9, 0.1, 0.6, 0.2, 0.5]))
    small, large = sorted((first, second), key=lambda row: row["p"])
    assert small["p_holm"] == pytest.approx(min(1, 2 * small["p"]))
    assert large["p_holm"] == pytest.approx(max(small["p_holm"], large["p"]))
    assert average["difference"] == pytest.approx((first["difference"] + second["difference"]) / 2)
    assert average["p_holm"] is None


def test_patients_that_are_each_seen_twice_are_as_many_as_they_are():
    twice = [
        [scored(f"{row.id}{k}", row.id, label=row.labels["Edema"], **row.scores) for row in side(v) for k in "ab"]
        for v in (PRED, REF)
    ]
    once, again = compared(side(PRED), side(REF))[0], compared(*twice, resample="patient")[0]
    assert again["difference"] == pytest.approx(once["difference"])
    width = [row["difference_upper"] - row["difference_lower"] for row in (once, again)]
    assert width[1] == pytest.approx(width[0], rel=0.15)  # not less by the square root of 2


@pytest.mark.parametrize(
    "pred,labels,reason", [(PRED, [1] * 6, "one class is missing"), (REF, POSITIVE, "the scores agree on all pairs")]
)
def test_where_nothing_can_be_said_a_row_says_why(pred, labels, reason):
    row = compared(side(pred, labels), side(REF, labels))[0]
    assert row["reason"].startswith(reason) and row["difference_lower"] is None


def test_no_task_on_both_sides():
    with pytest.raises(InputError, match="no task is on both sides: PRED has Edema; REF Fracture"):
        compared(side(PRED), side(REF, task="Fracture"))


def test_scores_are_read_with_the_labels_of_a_truth(tmp_path):
    (tmp_path / "labels.csv").write_text("Path,Edema\na.jpg,1\nb.jpg,0\n")
    tally = Tally()
    records = lines(*({"id": i, "scores": {"Edema": 0.5}, "labels": {"Edema": 0}} for i in ("a", "b", "c")))
    settings = ComparisonSettings(truth=str(tmp_path / "labels.csv"))
    rows = scores.read_scores("-", settings, records, tally, iter([None] * 9))
    assert [(row.id, row.labels) for row in rows] == [("a", {"Edema": 1}), ("b", {"Edema": 0})]
    assert tally.failed == 1


# Maps


@pytest.fixture
def folder(tmp_path):
    """Write {id: {task: map}} as heatmaps of images of 40 x 40."""

    def call(name: str, found: dict[str, dict], size=(40, 40)) -> str:
        (tmp_path / name).mkdir()
        for identifier, by_task in found.items():
            arrays = {task: np.asarray(array, np.float32) for task, array in by_task.items()}
            write_npz(tmp_path / name / f"{identifier}.npz", Heatmaps(identifier, size, arrays, input_size=(4, 4)))
        return str(tmp_path / name)

    return call


def alike(*inputs: str, tally: Tally | None = None, **settings) -> list[dict]:
    settings = {"metric": "spearman"} | settings
    return maps.rows_of(inputs, ComparisonSettings(**settings), NOTHING, tally or Tally(), 1)


def some(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((4, 4))


def test_the_mean_over_tasks_is_that_of_their_means(folder):
    one = {f"i{k}": {"Edema": some(k)} | ({"Fracture": some(9)} if k else {}) for k in range(3)}
    other = {f"i{k}": {"Edema": some(k + 3)} | ({"Fracture": some(9)} if k else {}) for k in range(3)}
    edema, fracture, average = alike(folder("one", one), folder("other", other))
    assert (edema["n"], fracture["n"], average["n"]) == (3, 2, 5)
    assert fracture["mean"] == fracture["lower"] == fracture["upper"] == pytest.approx(1)
    assert average["mean"] == pytest.approx((edema["mean"] + 1) / 2)
    assert edema["lower"] <= edema["mean"] <= edema["upper"]


def test_a_map_turned_over_is_the_opposite_and_of_its_size_alone_the_same(folder):
    signed = some(0) - 0.5
    pair = folder("one", {"i": {"Edema": signed}}), folder("other", {"i": {"Edema": -signed}})
    (row, _), (of_size, _) = alike(*pair, sign="raw"), alike(*pair, sign="abs")
    assert (row["mean"], of_size["mean"]) == pytest.approx((-1, 1))


def test_maps_for_images_of_two_sizes_fail_and_the_others_go_on(folder, tmp_path):
    one = folder("one", {"i": {"Edema": some(0)}, "j": {"Edema": some(1)}})
    other = folder("other", {"i": {"Edema": some(0)}})
    folder("wide", {"j": {"Edema": some(1)}}, size=(40, 50))
    (tmp_path / "wide" / "j.npz").rename(tmp_path / "other" / "j.npz")
    tally = Tally()
    row, _ = alike(one, other, tally=tally)
    assert (row["n"], row["failed"], tally.failed) == (1, 1, 1)


def test_patients_are_drawn_whole(folder):
    """Of one patient's two CXRs, one alike and one not, every replicate has both: there is no spread."""
    one = {f"patient1_{k}": {"Edema": some(k)} for k in range(2)}
    other = {"patient1_0": {"Edema": some(0)}, "patient1_1": {"Edema": -some(1)}}
    pair = folder("one", one), folder("other", other)
    by_cxr, by_patient = (alike(*pair, resample=r, sign="raw")[0] for r in ("cxr", "patient"))
    assert by_cxr["upper"] - by_cxr["lower"] == pytest.approx(2)
    assert np.isnan([by_patient["lower"], by_patient["upper"]]).all()


@pytest.mark.parametrize(
    "other,said",
    [
        ({"k": {"Edema": some(0)}}, "no id is both in"),
        ({"i": {"Fracture": some(0)}}, "no CXR has a heatmap of one task on both sides"),
    ],
)
def test_sides_with_nothing_to_compare(folder, other, said):
    with pytest.raises(InputError, match=said):
        alike(folder("one", {"i": {"Edema": some(0)}}), folder("other", other))


def test_a_flat_map_leaves_a_row_without_a_value_that_says_why(folder):
    pair = folder("one", {"i": {"Edema": some(0)}}), folder("other", {"i": {"Edema": np.ones((4, 4))}})
    for row in alike(*pair):
        assert math.isnan(row["mean"]) and row["n"] == 0 and "no CXR with a map on both sides" in row["reason"]
