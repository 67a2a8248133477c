"""Records with heatmaps or outlines become records with masks; signs say which evidence counts."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.heatmaps import masking, signs
from chextools.heatmaps.heatmaps import Heatmaps, checked_sign
from chextools.heatmaps.masking import MaskingSettings
from chextools.heatmaps.npz import write_npz
from chextools.heatmaps.surface import surface_of
from chextools.masks.mask import Mask

STEPS = np.array([[0, 0.2, 0.6, 1]], np.float32)


@pytest.fixture
def record(tmp_path) -> dict:
    """Of a file of heatmaps at the X-ray's own size, so that a threshold can be seen."""
    maps = {"Edema": STEPS, "Mass": STEPS[:, ::-1].copy(), "Nodule": np.ones((1, 4), np.float32)}
    found = Heatmaps(id="a", size=(1, 4), input_size=(1, 4), method="gradcam", scores={"Edema": 0.5, "Mass": 0.2})
    for task, values in maps.items():
        found.add(task, values)
    write_npz(tmp_path / "a.npz", found)
    return {"id": "a", "heatmap": str(tmp_path / "a.npz")}


def pixels(record: dict, task: str) -> list[int]:
    return Mask.from_rle(record["masks"][task]).to_array()[0].astype(int).tolist()


def test_one_threshold_for_all_and_one_for_each(record):
    found = masking.with_masks(dict(record), MaskingSettings(threshold=0.5))
    assert (pixels(found, "Edema"), pixels(found, "Mass")) == ([0, 0, 1, 1], [1, 1, 0, 0])
    assert found["size"] == [1, 4] and found["method"] == "gradcam" and found["sign"] == "positive"
    assert found["flags"] == {"Nodule": "flat"} and pixels(found, "Nodule") == [0, 0, 0, 0]
    found = masking.with_masks(dict(record), MaskingSettings(threshold={"Edema": 0.1, "Mass": 0.7}))
    assert (pixels(found, "Edema"), pixels(found, "Mass")) == ([0, 1, 1, 1], [1, 0, 0, 0])
    assert found["failed"] == {"Nodule": "the threshold file has no threshold for this task"}
    assert "flags" not in found  # of tasks that have a mask


def test_below_its_cutoff_a_mask_is_empty_and_without_a_score_it_fails(record):
    settings = MaskingSettings(threshold=0.5, cutoffs={"Edema": 0.5, "Mass": 0.3, "Nodule": 0.1})
    found = masking.with_masks(dict(record), settings)
    assert (pixels(found, "Edema"), pixels(found, "Mass")) == ([0, 0, 1, 1], [0, 0, 0, 0])
    assert found["failed"] == {"Nodule": "no score to compare with the cutoff"}
    found = masking.with_masks(record | {"scores": {"Mass": 0.9}}, settings)  # the record's own score counts
    assert pixels(found, "Mass") == [1, 1, 0, 0] and found["scores"]["Edema"] == 0.5


def test_only_the_tasks_that_are_wanted_are_made_or_fail(record):
    record |= {"failed": {"Mass": "was not drawn", "Hernia": "nor this"}}
    found = masking.with_masks(dict(record), MaskingSettings(tasks=frozenset({"Edema"})))
    assert list(found["masks"]) == ["Edema"] and "failed" not in found
    found = masking.with_masks(dict(record), MaskingSettings(tasks=frozenset({"Edema", "Mass"})))
    assert list(found["masks"]) == ["Edema"] and found["failed"] == {"Mass": "was not drawn"}


def test_outlines_are_drawn_and_one_that_cannot_be_fails_alone():
    record = {"id": "a", "size": [4, 5], "outlines": {"Mass": [[[1, 1], [3, 1], [3, 2], [1, 2]]], "Edema": [[[0, 0]]]}}
    found = masking.with_masks(dict(record), MaskingSettings())
    expected = np.zeros((4, 5), int)
    expected[1:3, 1:4] = 1
    assert Mask.from_rle(found["masks"]["Mass"]).to_array().astype(int).tolist() == expected.tolist()
    assert "outlines" not in found and list(found["failed"]) == ["Edema"]
    with pytest.raises(InputError, match="outlines without the image's size"):
        masking.with_masks({"id": "a", "outlines": record["outlines"]}, MaskingSettings())


@pytest.mark.parametrize("sign, expected", [("positive", [0, 0, 0, 1]), ("abs", [2, 1, 0, 1]), ("raw", [-2, -1, 0, 1])])
def test_each_sign_counts_its_evidence(sign, expected):
    assert sign in signs.SIGNS and checked_sign(sign) == sign
    assert surface_of(np.array([[-2, -1, 0, 1]], np.float32), (1, 4), sign=sign).dense()[0].tolist() == expected


def test_there_are_no_other_signs():
    assert sorted(signs.SIGNS) == ["abs", "positive", "raw"]
    with pytest.raises(InputError, match="\"sign\" is 'negative', not one of positive, abs, raw"):
        checked_sign("negative")
