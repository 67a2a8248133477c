"""chex-segment against the study's own masks, and its options."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import need_shared

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.masks.mask import Mask
from chextools.tasks import STUDY


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def disagreement(ours: dict, theirs: dict) -> int:
    """Pixels in which two RLEs differ."""
    return int((Mask.from_rle(ours).to_array() != Mask.from_rle(theirs).to_array()).sum())


@pytest.mark.parametrize(
    "expected, options",
    [
        ("seg_otsu", []),
        ("seg_tuned", ["--threshold", "tuning_results.csv"]),
        ("seg_cutoff", ["--cutoff", "probability_tuning_results.csv"]),
    ],
)
def test_masks_equal_the_study(cli, oracle, expected, options):
    """All masks are equal, byte for byte: tighter than what torch's own differences between CPUs would allow."""
    options = [oracle / "expected" / word if word.endswith(".csv") else word for word in options]
    result = cli("chex-segment", oracle / "maps", "--format", "chexlocalize", *options)
    theirs = json.loads((oracle / "expected" / f"{expected}.json").read_text())
    assert json.loads(result.out) == theirs
    assert result.code == 0


def test_annotations_equal_the_study(cli, oracle):
    result = cli("chex-segment", oracle / "gt_annotations.json", "--format", "chexlocalize")
    assert result.code == 0 and result.err == ""
    assert json.loads(result.out) == json.loads((oracle / "expected/gt.json").read_text())


def test_masks_of_the_real_sample_are_the_released_ones(cli):
    sample = need_shared("data/chexlocalize-sample")
    (record,) = lines(cli("chex-segment", sample / "gradcam_maps_val").out)
    (released,) = json.loads((sample / "gradcam_segmentations_val_sample.json").read_text()).values()
    differences = [disagreement(record["masks"][task], released[task]) for task in STUDY]
    assert max(differences) <= 1 and sum(differences) <= 1  # one pixel: the authors' torch rounded otherwise
    assert record["scores"]["Edema"] == pytest.approx(0.1770678974688053, abs=0)
    assert record["size"] == [2320, 2828]


def test_jobs_and_shards_give_the_same_bytes(cli, small):
    whole = cli("chex-segment", small / "maps", "-j", 1).out
    assert cli("chex-segment", small / "maps", "-j", 3).out == whole
    shards = [cli("chex-segment", small / "maps", "--shard", f"{i}/3") for i in (1, 2, 3)]
    assert sorted("".join(s.out for s in shards).splitlines()) == sorted(whole.splitlines())
    assert "shard 1/3: " in shards[0].err and " of 8 records" in shards[0].err


def test_given_threshold_cuts_above_it(cli, small):
    """At threshold t the mask is what is more than t of the way from the least to the greatest value."""
    half, most = (
        {r["id"]: r["masks"] for r in lines(cli("chex-segment", small / "maps", "--threshold", t).out)}
        for t in (0.5, 0.9)
    )
    for identifier, masks in half.items():
        for task, rle in masks.items():
            inner = Mask.from_rle(most[identifier][task]).to_array()
            assert not (inner & ~Mask.from_rle(rle).to_array()).any()
    assert all(Mask.from_rle(m).area == 0 for masks in _at(cli, small, 1.0) for m in masks.values())


def _at(cli, small, threshold):
    return [r["masks"] for r in lines(cli("chex-segment", small / "maps", "--threshold", threshold).out)]


def test_only_the_wanted_tasks(cli, small):
    records = lines(cli("chex-segment", small / "maps", "--task", "Edema", "--task", "Lung Opacity").out)
    assert {task for record in records for task in record["masks"]} == {"Edema", "Airspace Opacity"}


def test_unknown_task_is_refused_with_the_closest_name(cli, small):
    result = cli("chex-segment", small / "maps", "--task", "Edma")
    assert (result.code, result.out) == (1, "")
    assert "unknown task 'Edma' (did you mean 'Edema'?)" in result.err


def test_thresholds_from_json_lines(cli, small, tmp_path):
    import csv

    rows = csv.DictReader((small / "expected/tuning_results.csv").open())
    tuned = tmp_path / "tuned.jsonl"
    tuned.write_text("".join(json.dumps({"task": r["task"], "threshold": float(r["threshold"])}) + "\n" for r in rows))
    from_csv = cli("chex-segment", small / "maps", "--threshold", small / "expected/tuning_results.csv")
    assert cli("chex-segment", small / "maps", "--threshold", tuned).out == from_csv.out


def test_a_task_without_a_threshold_fails_and_the_others_go_on(cli, small, tmp_path):
    tuned = tmp_path / "t.csv"
    tuned.write_text("threshold,task\n0.5,Edema\n")
    result = cli("chex-segment", small / "maps", "--threshold", tuned, "-q")
    records = lines(result.out)
    assert result.code == 1 and len(records) == 8
    assert all(set(r["masks"]) == {"Edema"} and len(r["failed"]) == 9 for r in records)
    assert result.err == "chex-segment: error: 8 of 8 records failed\n"


def test_smoothing_is_a_mean_over_a_box():
    from chextools.heatmaps.smoothing import box_filter

    rng = np.random.default_rng(0)
    values = rng.random((9, 7), np.float32)
    padded = np.pad(values.astype(float), 1, mode="reflect")
    expected = sum(padded[i : i + 9, j : j + 7] for i in range(3) for j in range(3)) / 9
    np.testing.assert_allclose(box_filter(values, 3), expected, rtol=1e-6)  # float32 has 24 bits


def test_smoothing_changes_masks_and_a_box_larger_than_the_image_fails(cli, small):
    plain = cli("chex-segment", small / "maps").out
    assert cli("chex-segment", small / "maps", "--smooth", 5).out != plain
    result = cli("chex-segment", small / "maps", "--smooth", 5000)
    assert result.code == 1 and "a box of 5000 pixels is larger than the image" in result.err


def test_coco_round_trip(cli, small, tmp_path):
    """Masks written as COCO read back as the same masks."""
    coco = tmp_path / "coco.json"
    assert cli("chex-segment", small / "gt_annotations.json", "--format", "coco", "-o", coco).code == 0
    from chextools.inputs import inputs

    theirs = json.loads((small / "expected/gt.json").read_text())
    for item in inputs.read(str(coco), None):
        for task, rle in item.record["masks"].items():
            assert theirs[item.record["id"]][task] == rle


def test_coco_file_is_read_by_pycocotools(cli, small, tmp_path, capsys):
    from pycocotools.coco import COCO

    coco = tmp_path / "coco.json"
    cli("chex-segment", small / "gt_annotations.json", "--format", "coco", "-o", coco)
    dataset = COCO(str(coco))
    for annotation in dataset.anns.values():
        mask = dataset.annToMask(annotation)
        assert mask.sum() == annotation["area"]
        ys, xs = mask.nonzero()
        x, y, w, h = annotation["bbox"]
        assert (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1) == (x, y, w, h)


def test_missing_tasks_are_empty_masks_in_the_study_format_only(cli, small, tmp_path):
    import shutil

    maps = tmp_path / "maps"
    maps.mkdir()
    source = next((small / "maps").glob("*_Edema_map.pkl"))
    shutil.copy(source, maps)
    result = cli("chex-segment", maps, "--format", "chexlocalize")
    ((identifier, masks),) = json.loads(result.out).items()
    assert set(masks) == set(STUDY) and result.code == 0
    assert sum(Mask.from_rle(m).area > 0 for m in masks.values()) == 1
    assert "no heatmap for" in result.err and "Cardiomegaly" in result.err
    (record,) = lines(cli("chex-segment", maps).out)
    assert set(record["masks"]) == {"Edema"}


@pytest.mark.parametrize("heatmap", [None, 3, ["x"], {}, "no/such.npz"])
def test_odd_heatmap_references_fail_by_line(cli, heatmap):
    result = cli("chex-segment", "-", stdin=json.dumps({"id": "a", "heatmap": heatmap}).encode())
    assert result.code == 1 and result.err.startswith("chex-segment: warning: stdin:1: ")


@pytest.mark.parametrize("outlines", [None, 5, [None], [[[10**400, 1], [1, 1], [2, 2]]]])
def test_odd_outlines_fail_by_task(cli, tmp_path, outlines):
    (tmp_path / "a.json").write_text(json.dumps({"p": {"img_size": [9, 9], "Edema": outlines}}))
    result = cli("chex-segment", tmp_path / "a.json")
    assert result.code == 1 and "p: Edema: outline" in result.err


def test_a_fifo_is_no_heatmap(cli, tmp_path):
    import os

    os.mkfifo(tmp_path / "x_Edema_map.pkl")
    assert "no heatmaps" in cli("chex-segment", tmp_path).err


def test_damaged_gzip_is_one_line(cli, tmp_path):
    import gzip

    whole = gzip.compress(b'{"id": "a", "heatmap": "b.npz"}\n' * 50)
    damaged = {"cut": whole[:30], "header": whole[:3] + b"\xff" + whole[4:], "twice": gzip.compress(whole)}
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        result = cli("chex-segment", tmp_path / name)
        assert result.code == 1 and "Traceback" not in result.err and name in result.err


def test_flat_heatmaps_are_counted_not_named_one_by_one(cli, tmp_path):
    """They are no failures; a record's reason would be a line each, and of 130 images hundreds."""
    heatmaps = {task: np.zeros((2, 2), np.float32) for task in STUDY[:3]}
    for k in range(4):
        write_npz(tmp_path / f"p{k}.npz", Heatmaps(f"p{k}", (8, 8), heatmaps, input_size=(4, 4)))
    result = cli("chex-segment", tmp_path)
    assert result.code == 0 and len(lines(result.out)) == 4
    assert all(record["flags"] == dict.fromkeys(STUDY[:3], "flat") for record in lines(result.out))
    assert result.err.count("\n") == 1 and "warning: 12 heatmaps are flat, the first: " in result.err
    named = cli("chex-segment", tmp_path, "-v").err
    assert sum(line.endswith(": the heatmap is flat") for line in named.splitlines()) == 12
    one = tmp_path / "p1.npz"
    result = cli("chex-segment", one, "--task", STUDY[0])
    assert result.err == f"chex-segment: warning: {one}: p1: {STUDY[0]}: the heatmap is flat\n"
    result = cli("chex-segment", one, "--task", "Cardiomegaly", "--task", "Fracture")
    assert [line.partition(": ")[2] for line in result.err.splitlines()] == [
        "warning: the first record has no Fracture",
        f"warning: {one}: p1: Cardiomegaly: the heatmap is flat",
    ]
