"""How readers of one image agree, by hand: in pairs, and each with the consensus of the others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.evaluation import readers
from chextools.evaluation.settings import EvaluationSettings
from chextools.inputs.truth import Truth
from chextools.masks.mask import Mask
from chextools.records.records import Failure

# Three readers of rows of pixels: two of the first half, one of a quarter that both of the others hold.
DRAWN = {"A": np.arange(8) < 4, "B": np.arange(8) < 4, "C": np.arange(8) < 2}
SETTINGS = EvaluationSettings(readers=True, tasks=("Edema", "Fracture"), replicates=20)


def record(name: str, drawn: dict[str, np.ndarray], task: str = "Edema") -> dict:
    by_reader = {reader: {task: Mask.from_array(row[None]).to_rle()} for reader, row in drawn.items()}
    union = np.logical_or.reduce(list(drawn.values()))
    return {
        "id": name,
        "size": [1, 8],
        "readers": by_reader,
        "masks": {each: Mask.from_array((union & (each == task))[None]).to_rle() for each in SETTINGS.tasks},
    }


def measured(*records: dict, settings: EvaluationSettings = SETTINGS) -> list[readers.Compared]:
    truth = Truth({each["id"]: each for each in records}, list(settings.tasks), [])
    return [item.record["row"] for item in readers.measure(truth, settings)]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_means_over_pairs_and_over_readers_left_out():
    (row,) = measured(record("a", DRAWN))
    assert row.readers == ("A", "B", "C")
    pairs = list(itertools.combinations(DRAWN.values(), 2))
    others = [(one, np.logical_and.reduce([v for k, v in DRAWN.items() if k != name])) for name, one in DRAWN.items()]
    for way, of in enumerate((pairs, others)):  # a majority of two is both
        expected = [np.mean([each(*pair) for pair in of]) for each in (iou, dice)]
        np.testing.assert_allclose(row.values[way, :2, 0], expected)
    assert np.isnan(row.values[:, :, 1]).all()  # nobody drew a fracture
    assert row.counts[:, 0].tolist() == [3, 0, 0, 0] and row.counts[:, 1].tolist() == [0, 0, 0, 3]


def test_the_middle_of_one_lies_in_the_other_or_not():
    """The middle of the first half is not in the last quarter; nor is that one's in the first half."""
    (row,) = measured(record("a", {"A": np.arange(8) < 4, "B": np.arange(8) >= 6}))
    assert row.values[0, 2, 0] == 0
    (row,) = measured(record("a", {"A": np.arange(8) < 4, "B": np.arange(8) < 3}))
    assert row.values[0, 2, 0] == 1


def test_rows_of_two_readers_have_cohens_kappa():
    """Of five images both draw on two, one alone on one, neither on two: (0.8 - 0.48) / (1 - 0.48)."""
    drawn, blank = np.arange(8) < 4, np.zeros(8, bool)
    pairs = [(drawn, drawn), (drawn, drawn), (drawn, blank), (blank, blank), (blank, blank)]
    rows = measured(*(record(f"i{k}", dict(zip("AB", pair))) for k, pair in enumerate(pairs)))
    result = readers.evaluation_of(rows, SETTINGS, failed=1)
    kappa = next(row for row in result.summary if (row["metric"], row["task"]) == ("kappa", "Edema"))
    assert kappa["mean"] == pytest.approx((0.8 - (0.6 * 0.4 + 0.4 * 0.6)) / (1 - (0.6 * 0.4 + 0.4 * 0.6)))
    assert (kappa["n"], kappa["readers"], kappa["failed"], kappa["compared"]) == (5, 2, 1, "pairs")
    assert set(result.tables) == {"iou", "dice"} and result.tables["iou"].values.shape == (5, 2)


def test_one_metric_alone_has_two_rows_per_task_and_no_kappa():
    settings = EvaluationSettings(readers=True, tasks=("Edema",), metrics=("dice",), replicates=20)
    result = readers.evaluation_of(measured(record("a", DRAWN), settings=settings), settings)
    assert [(row["metric"], row["task"], row["compared"]) for row in result.summary] == [
        ("dice", task, way) for way in (readers.PAIRS, readers.LEFT_OUT) for task in ("Edema", "Average")
    ]


def test_images_read_by_one_alone_are_left_out_and_said(caplog):
    assert measured(record("a", {"A": DRAWN["A"]})) == []
    assert "read by one alone, left out: 1 CXR (a)" in caplog.text
    with pytest.raises(InputError, match="no CXR has several readers"):
        readers.evaluation_of([], SETTINGS)


def test_a_mask_that_is_not_of_the_images_size_is_not_stretched():
    found = record("a", DRAWN)
    found["readers"]["C"]["Edema"] = Mask.from_array(np.ones((2, 8), bool)).to_rle()
    (item,) = readers.measure(Truth({"a": found}, list(SETTINGS.tasks), []), SETTINGS)
    assert item == Failure("the truth: a", "a mask has the size [2, 8], the image [1, 8]")
