"""chex-features against the study's tables, and what it says of outlines and masks that have no shape."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from chextools.masks.mask import Mask


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def table(path) -> dict[tuple[str, str], str]:
    with open(path, newline="") as stream:
        return {(row["img_id"], task): cell for row in csv.DictReader(stream) for task, cell in row.items()}


def test_tables_equal_the_study(cli, oracle, tmp_path):
    expected = oracle / "expected"
    result = cli("chex-features", oracle / "gt_annotations.json", "--truth", expected / "gt.json", "--csv", tmp_path)
    assert (result.code, result.err) == (0, "")
    for name in ("area_ratio.csv", "num_instances.csv"):
        assert (tmp_path / name).read_bytes() == (expected / name).read_bytes()
    for name in ("elongation.csv", "rec_area_ratio.csv"):
        ours, theirs = table(tmp_path / name), table(expected / name)
        assert list(ours) == list(theirs)
        for key, cell in theirs.items():
            if key[1] == "img_id" or not cell:
                assert ours[key] == cell
            else:  # the study's rectangle is of float32
                assert float(ours[key]) == pytest.approx(float(cell), abs=1e-6)


def test_rows_hold_what_the_tables_hold(cli, small, tmp_path):
    arguments = (small / "gt_annotations.json", "--truth", small / "expected/gt.json", "--csv", tmp_path)
    found = rows(cli("chex-features", *arguments).out)
    assert len(found) == 80
    areas = table(tmp_path / "area_ratio.csv")
    for row in found:
        assert list(row)[:7] == [
            "id",
            "task",
            "num_instances",
            "area_ratio",
            "elongation",
            "irrectangularity",
            "rec_area_ratio",
        ]
        assert float(areas[row["id"], row["task"]]) == row["area_ratio"]
        if row["area_ratio"]:
            assert row["irrectangularity"] == 1 - row["rec_area_ratio"] and row["elongation"] >= 1
        else:
            assert (row["num_instances"], row["elongation"], row["irrectangularity"]) == (0, None, None)


def test_truth_in_any_format_gives_the_same_rows(cli, small, tmp_path):
    annotations = small / "gt_annotations.json"
    for output_format in ("jsonl", "coco"):
        cli("chex-segment", annotations, "--format", output_format, "-o", tmp_path / output_format)
    truths = [small / "expected/gt.json", annotations, tmp_path / "jsonl", tmp_path / "coco"]
    found = [[r for r in rows(cli("chex-features", annotations, "--truth", t).out) if r["area_ratio"]] for t in truths]
    assert len(found[0]) == 22 and all(other == found[0] for other in found)


def test_annotations_on_stdin(cli, small):
    annotations, truth = small / "gt_annotations.json", small / "expected/gt.json"
    piped = cli("chex-features", "--truth", truth, stdin=annotations.read_bytes())
    assert piped.out == cli("chex-features", annotations, "--truth", truth).out


# A world of 10 x 10 images worked out by hand.

SQUARE = [[2, 2], [6, 2], [6, 6], [2, 6]]


def mask(pixels: np.ndarray) -> dict:
    return Mask.from_array(pixels).to_rle()


def drawn(*boxes: tuple[slice, slice]) -> np.ndarray:
    pixels = np.zeros((10, 10), bool)
    for box in boxes:
        pixels[box] = True
    return pixels


@pytest.fixture
def world(cli, tmp_path):
    """Features of {id: outlines of Edema} with the truth {id: pixels}; by id, and what was said."""

    def features(annotated: dict, truth: dict, *options: object, code: int = 0) -> dict[str, dict]:
        document = {name: {"img_size": [10, 10], "Edema": outlines} for name, outlines in annotated.items()}
        (tmp_path / "a.json").write_text(json.dumps(document))
        (tmp_path / "gt.json").write_text(json.dumps({n: {"Edema": mask(pixels)} for n, pixels in truth.items()}))
        result = cli("chex-features", tmp_path / "a.json", "--truth", tmp_path / "gt.json", *options)
        assert result.code == code, result.err
        return {row["id"]: row for row in rows(result.out)} | {"err": result.err}

    return features


def test_a_rectangle_by_hand(world):
    """4 x 8 pixels: their centres span 3 x 7, which the border's polygon fills."""
    row = world({"a": [SQUARE, SQUARE]}, {"a": drawn(np.s_[1:5, 1:9])})["a"]
    assert row == {
        "id": "a",
        "task": "Edema",
        "num_instances": 2,
        "area_ratio": 0.32,
        "elongation": 7 / 3,
        "irrectangularity": 0,
        "rec_area_ratio": 1,
        "failed": 0,
    }


def test_the_border_with_the_most_points_counts_not_the_largest_area(world):
    """A line of 10 pixels is followed there and back, 18 points; a square of 5 x 5 has 16 but more area."""
    row = world({"a": [SQUARE]}, {"a": drawn(np.s_[0:5, 0:5], np.s_[7:8, 0:10])})["a"]
    assert row["reason"] == "a dot or line has no rectangle" and row["elongation"] is None
    row = world({"a": [SQUARE]}, {"a": drawn(np.s_[0:5, 0:5], np.s_[7:8, 0:9])})["a"]
    assert row["elongation"] is None  # 16 points each: the last in raster order
    row = world({"a": [SQUARE]}, {"a": drawn(np.s_[0:5, 0:5], np.s_[7:8, 0:8])})["a"]
    assert (row["elongation"], row["area_ratio"]) == (1, 0.33)


def test_a_triangle_leaves_half_its_rectangle(world):
    pixels = np.tril(np.ones((10, 10), bool))
    row = world({"a": [SQUARE]}, {"a": pixels})["a"]
    assert row["elongation"] == pytest.approx(1) or row["elongation"] == pytest.approx(2)  # two rectangles of one area
    assert row["irrectangularity"] == pytest.approx(0.5)


def test_all_empty_truth(world):
    found = world({"a": [], "b": []}, {"a": drawn(), "b": drawn()})
    assert {(found[i]["num_instances"], found[i]["area_ratio"], found[i]["elongation"]) for i in "ab"} == {(0, 0, None)}


def test_outlines_and_masks_that_disagree(world):
    full = drawn(np.s_[2:6, 2:6])
    found = world({"a": [SQUARE], "b": []}, {"a": drawn(), "b": full, "c": full, "d": drawn()})
    assert (found["a"]["num_instances"], found["a"]["area_ratio"]) == (1, 0)
    assert found["a"]["reason"] == "outlines, but an empty mask"
    for name in "bc":
        assert found[name]["num_instances"] is None and found[name]["reason"] == "a mask, but no outlines"
        assert found[name]["elongation"] == 1
    assert found["d"]["num_instances"] == 0 and "reason" not in found["d"]
    assert "in the truth but not annotated: 2 CXRs (c, d)" in found["err"]


def test_ids_that_do_not_match_are_named(world, cli, tmp_path):
    full = drawn(np.s_[2:6, 2:6])
    found = world({name: [SQUARE] for name in "abcdef"}, {"a": full})
    assert set(found) == {"a", "err"}
    assert "annotated but not in the truth, left out: 5 CXRs (b, c, d, ...)" in found["err"]
    found = world({"x": [SQUARE]}, {"a": full}, code=1)
    assert found["err"] == "chex-features: error: no annotated CXR (x, ...) is in the truth (a, ...)\n"


def test_a_size_that_disagrees_fails_and_is_in_every_row(cli, tmp_path):
    document = {n: {"img_size": [10, 10 + (n == "b")], "Edema": [SQUARE]} for n in "ab"}
    (tmp_path / "a.json").write_text(json.dumps(document))
    (tmp_path / "gt.json").write_text(json.dumps({n: {"Edema": mask(drawn(np.s_[2:6, 2:6]))} for n in "ab"}))
    result = cli("chex-features", tmp_path / "a.json", "--truth", tmp_path / "gt.json")
    a, b = rows(result.out)
    assert (result.code, a["failed"], b["failed"], b["area_ratio"]) == (1, 1, 1, None)
    assert b["reason"] == "the mask has the size [10, 10], the annotations say [10, 11]"
    assert result.err.endswith("chex-features: error: 1 of 2 records failed\n")


def test_task_that_the_truth_lacks(cli, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": {"img_size": [10, 10], "Edema": [SQUARE], "Fracture": [SQUARE]}}))
    (tmp_path / "gt.json").write_text(json.dumps({"a": {"Edema": mask(drawn(np.s_[2:6, 2:6]))}}))
    arguments = ("chex-features", tmp_path / "a.json", "--truth", tmp_path / "gt.json")
    result = cli(*arguments)
    assert [row["task"] for row in rows(result.out)] == ["Edema"]
    assert "outlined but no tasks of the truth, left out: Fracture" in result.err
    (row,) = rows(cli(*arguments, "--task", "Atelectasis").out)
    assert (row["task"], row["num_instances"], row["area_ratio"]) == ("Atelectasis", 0, 0)
    unknown = cli(*arguments, "--task", "Edma")
    assert unknown.code == 1 and "unknown task 'Edma' (did you mean 'Edema'?)" in unknown.err


def test_masks_have_no_outlines_to_count(cli, small):
    truth = small / "expected/gt.json"
    result = cli("chex-features", truth, "--truth", truth)
    assert result.code == 1 and "no outlines to count: not an annotations JSON" in result.err


def test_inputs_that_cannot_be(cli, small, tmp_path):
    truth = small / "expected/gt.json"
    empty = cli("chex-features", "--truth", truth)
    assert (empty.code, empty.out, empty.err) == (1, "", "chex-features: error: stdin: no records\n")
    assert cli("chex-features", "--truth", "-").code == 2
    (tmp_path / "elongation.csv").write_text("mine")
    refused = cli("chex-features", small / "gt_annotations.json", "--truth", truth, "--csv", tmp_path)
    assert refused.code == 1 and "elongation.csv: exists" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["elongation.csv"]


def test_csv_and_table_hold_the_same_numbers(cli, small):
    arguments = ("chex-features", small / "gt_annotations.json", "--truth", small / "expected/gt.json", "--format")
    found = rows(cli(*arguments, "jsonl").out)
    cells = list(csv.DictReader(cli(*arguments, "csv").out.splitlines()))
    for row, cell in zip(found, cells, strict=True):
        assert (float(cell["elongation"]) if cell["elongation"] else None) == row["elongation"]
    shown = cli(*arguments, "table").out.splitlines()
    assert len(shown) == 81 and shown[0].split()[:3] == ["id", "task", "num_instances"]
    assert not any(math.isnan(row["area_ratio"]) for row in found)
