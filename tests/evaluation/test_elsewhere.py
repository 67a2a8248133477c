"""The metrics border and outside of chex-eval: how much of a map lies where no lung is, with a truth or without."""

from __future__ import annotations

import json

import numpy as np
import pytest

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.masks.mask import Mask

SIZE = (40, 60)
TASKS = ["Edema", "Mass"]


@pytest.fixture
def maps(tmp_path):
    """Records of three CXRs whose maps of Edema have all evidence in the upper, the lower and no half."""
    lines = []
    for name, rows, label in (("a", slice(0, 20), 1), ("b", slice(20, 40), 1), ("c", slice(0, 0), 0)):
        edema = np.zeros(SIZE, np.float32)
        edema[rows] = 1
        found = Heatmaps(name, SIZE, {"Edema": edema, "Mass": np.ones(SIZE, np.float32)}, input_size=SIZE)
        write_npz(tmp_path / f"{name}.npz", found)
        labels = {"Edema": label, "Mass": 0}
        lines.append({"id": name, "labels": labels, "heatmap": str(tmp_path / f"{name}.npz")})
    return lines


def text(lines) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def rows_of(result) -> dict[tuple[str, str], dict]:
    assert result.code == 0, result.err
    return {(row["metric"], row["task"]): row for row in map(json.loads, result.out.splitlines())}


def test_without_a_truth_the_border_is_measured_where_labels_are_positive(cli, maps):
    found = rows_of(cli("chex-eval", "--metric", "border", "--border", "0.25", stdin=text(maps)))
    edema = found["border", "Edema"]
    rim = 1 - (20 * 30) / (40 * 60)
    assert (edema["n"], edema["border"]) == (2, 0.25)  # the third is negative
    assert edema["observed"] == pytest.approx(rim) and edema["chance"] == pytest.approx(rim)
    assert found["border", "Mass"]["n"] == 0 and found["border", "Mass"]["mean"] is None
    without = [{k: v for k, v in line.items() if k != "labels"} for line in maps]
    found = rows_of(cli("chex-eval", "--metric", "border", stdin=text(without)))
    assert found["border", "Edema"]["n"] == 2  # a map that is 0 everywhere has no shares
    assert found["border", "Mass"]["n"] == 3


def test_outside_the_lungs(cli, maps, tmp_path):
    """The lungs are the upper half; the heart, beside them, is none; the third CXR has no lungs."""
    upper, lower = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    upper[:20], lower[20:] = True, True
    masks = {
        "Left Lung": Mask.from_array(upper & (np.arange(60) < 30)).to_rle(),
        "Right Lung": Mask.from_array(upper & (np.arange(60) >= 30)).to_rle(),
        "Heart": Mask.from_array(lower).to_rle(),
    }
    (tmp_path / "lungs.jsonl").write_bytes(text({"id": name, "masks": masks} for name in "ab"))
    options = ["--metric", "outside", "--lungs", tmp_path / "lungs.jsonl", "--per-image", tmp_path / "cxrs.jsonl"]
    result = cli("chex-eval", *options, stdin=text(maps))
    row = rows_of(result)["outside", "Edema"]
    assert (row["observed"], row["chance"], row["n"]) == (0.5, 0.5, 2)
    cxrs = [json.loads(line) for line in (tmp_path / "cxrs.jsonl").read_text().splitlines()]
    assert [cxr["outside"]["Edema"] for cxr in cxrs] == [0, 1, None]
    assert "lungs.jsonl: no lungs, left out: 1 CXR (c)" in result.err


def test_what_is_missing_is_said(cli, maps, tmp_path):
    for options, words in (
        (["--metric", "outside"], "--metric outside and --lungs go together"),
        (["--metric", "border", "--metric", "energy"], "Missing option '--truth'"),
        (["--metric", "energy", "--border", "0.2", "--truth", "x"], "--border is for --metric border"),
    ):
        result = cli("chex-eval", *options, stdin=text(maps))
        assert result.code == 2 and words in result.err, result.err
    (tmp_path / "gt.json").write_bytes(
        text([{"id": "a", "masks": dict.fromkeys(TASKS, {"size": [4, 6], "counts": [24]})}])
    )
    result = cli("chex-eval", "--metric", "outside", "--lungs", tmp_path / "gt.json", stdin=text(maps))
    assert result.code == 1 and "no lungs among its tasks: Edema, Mass" in result.err


def test_with_a_truth_it_says_which_maps_count(cli, maps, tmp_path):
    whole = Mask(SIZE, np.array([0, SIZE[0] * SIZE[1]])).to_rle()
    (tmp_path / "gt.jsonl").write_bytes(text([{"id": "b", "masks": {"Edema": whole}}]))
    options = ["--metric", "border", "--metric", "energy", "--truth", tmp_path / "gt.jsonl"]
    found = rows_of(cli("chex-eval", *options, stdin=text(maps)))
    assert found["border", "Edema"]["n"] == 1 and found["energy", "Edema"]["observed"] == 1
