"""chex-eval against the study's own tables, to the digit, and where it goes beyond them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from chextools.masks.mask import Mask
from chextools.metrics import bootstrap


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def by_task(text: str, metric: str) -> dict[str, dict]:
    return {row["task"]: row for row in rows(text) if row["metric"] == metric}


# Arguments of chex-eval, relative to the oracle, and the folder of the study's tables that must come out.
CASES = {
    "tp-iou": (["expected/seg_otsu.json", "--metric", "iou"], "expected/tp", "iou"),
    "tp-hit": (["maps", "--metric", "hit"], "expected/tp", "hitmiss"),
    "full-iou": (["expected/seg_otsu.json", "--metric", "iou", "--slice", "full"], "expected/full", "iou"),
    "hb-iou": (["expected/seg_tuned.json", "--metric", "iou", "--human"], "expected/hb", "iou_humanbenchmark"),
    "hb-hit": (["gt_points.json", "--metric", "hit", "--human"], "expected/hb", "hitmiss_humanbenchmark"),
}


@pytest.mark.parametrize("case", CASES)
def test_tables_equal_the_study(cli, oracle, tmp_path, case):
    (pred, *options), folder, stem = CASES[case]
    result = cli("chex-eval", oracle / pred, "--truth", oracle / "expected/gt.json", *options, "--csv", tmp_path)
    assert result.code == 0
    for part in ("results_per_cxr", "bootstrap_results_per_cxr"):
        name = f"{stem}_{part}.csv"
        assert (tmp_path / name).read_bytes() == (oracle / folder / name).read_bytes()
    defined = {row["task"]: row["replicates"] for row in rows(result.out)}
    ours, theirs = (csv_rows(f / f"{stem}_summary_results.csv") for f in (tmp_path, oracle / folder))
    assert [row["name"] for row in ours] == [row["name"] for row in theirs]
    for mine, his in zip(ours, theirs):
        if defined[mine["name"]] == 1000:
            assert mine == his
        else:  # the study sorts undefined replicates last and lets them become bounds: its fault 1
            assert mine["mean"] == his["mean"] and (mine["upper"] or not mine["mean"])


def csv_rows(path) -> list[dict]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    "pred, name, options",
    [
        ("seg_otsu", "n_segs", ["--metric", "count"]),
        ("seg_otsu", "pred_precision_recall_specificity", ["--metric", "pixel"]),
        ("seg_tuned", "hb_precision_recall_specificity", ["--metric", "pixel", "--human"]),
    ],
)
def test_counts_and_pixel_metrics_equal_the_study(cli, oracle, tmp_path, pred, name, options):
    expected = oracle / "expected"
    arguments = (expected / f"{pred}.json", "--truth", expected / "gt.json", *options, "--csv", tmp_path)
    assert cli("chex-eval", *arguments).code == 0
    assert (tmp_path / f"{name}.csv").read_bytes() == (expected / f"{name}.csv").read_bytes()


def test_truth_in_any_format_gives_the_same_bytes(cli, small, tmp_path):
    """Annotations, the study's masks, mask records and COCO of the same outlines.

    Only the study's masks say which tasks nobody has; of these nothing but a row of nulls can be said.
    """
    for output_format in ("jsonl", "coco"):
        annotations = small / "gt_annotations.json"
        cli("chex-segment", annotations, "--format", output_format, "-o", tmp_path / output_format)
    truths = [small / "gt_annotations.json", small / "expected/gt.json", tmp_path / "jsonl", tmp_path / "coco"]
    outputs = [cli("chex-eval", small / "expected/seg_otsu.json", "--truth", t, "--metric", "iou").out for t in truths]
    defined = [[row for row in rows(out) if row["n"] and row["task"] != "Average"] for out in outputs]
    assert len(defined[0]) > 5 and all(other == defined[0] for other in defined)


def test_pipeline_equals_files(cli, small):
    """Records piped from chex-segment allow all four metrics; the heatmaps are found through the records."""
    records = cli("chex-segment", small / "maps").out.encode()
    piped = cli("chex-eval", "--truth", small / "expected/gt.json", stdin=records)
    assert piped.code == 0
    metrics = {row["metric"] for row in rows(piped.out)}
    assert metrics == {"iou", "hit", "precision", "recall", "specificity", "count"}
    masks = cli("chex-eval", small / "expected/seg_otsu.json", "--truth", small / "expected/gt.json")
    assert [r for r in rows(piped.out) if r["metric"] != "hit"] == rows(masks.out)


# A small world whose every number can be worked out by hand: masks of 1 x 10 images.


def mask(*pixels: int) -> dict:
    return Mask.from_array(np.isin(np.arange(10), pixels)[None, :]).to_rle()


def document(**masks: dict) -> bytes:
    return json.dumps({name: {"Edema": rle} for name, rle in masks.items()}).encode()


@pytest.fixture
def world(cli, tmp_path):
    """Evaluate predictions against truth, both {id: RLE}."""

    def evaluate(pred: dict, truth: dict, *options: object) -> dict[str, dict]:
        (tmp_path / "gt.json").write_bytes(document(**truth))
        (tmp_path / "pred.json").write_bytes(document(**pred))
        result = cli("chex-eval", tmp_path / "pred.json", "--truth", tmp_path / "gt.json", *options)
        assert result.code == 0, result.err
        return {row["metric"]: row | {"err": result.err} for row in rows(result.out) if row["task"] == "Edema"}

    return evaluate


def test_iou_row_by_hand(world):
    pred = {"a": mask(0, 1, 2, 3), "b": mask(), "c": mask(5, 6)}
    truth = {"a": mask(2, 3, 4, 5), "b": mask(1), "c": mask()}
    row = world(pred, truth)["iou"]
    assert row["observed"] == 2 / 6  # only a has both masks
    assert row["dice"] == 2 * 2 / 8
    assert row["pooled_iou"] == 2 / 6
    assert (row["n"], row["positives"]) == (1, 2)
    assert row["misses_as_0"] == (2 / 6 + 0) / 2
    full = world(pred, truth, "--slice", "full")["iou"]
    assert full["observed"] == (2 / 6 + 0 + 0) / 3 and full["n"] == 3
    assert full["pooled_iou"] == 2 / (6 + 1 + 2)


def test_pixel_metrics_by_hand(world):
    result = world({"a": mask(0, 1, 2, 3), "b": mask(9)}, {"a": mask(2, 3, 4), "b": mask()})
    assert result["precision"]["mean"] == 2 / 5
    assert result["recall"]["mean"] == 2 / 3
    assert result["specificity"]["mean"] == (7 - 2 + 10 - 1) / (7 + 10)
    assert result["count"]["count"] == 2


def test_a_cxr_on_one_side_only(world):
    """Missing from the predictions: an empty mask. Missing from the truth: empty truth, where the slice is full."""
    both, pred_only, truth_only = {"a": mask(0, 1)}, {"p": mask(3)}, {"t": mask(4)}
    row = world(both | pred_only, both | truth_only)["iou"]
    assert (row["n"], row["observed"], row["positives"], row["misses_as_0"]) == (1, 1.0, 2, 0.5)
    assert "in the truth but not predicted, counted as empty masks and missed hits: 1 CXR (t)" in row["err"]
    assert "predicted but not in the truth, left out: 1 CXR (p)" in row["err"]
    row = world(both | pred_only, both | truth_only, "--slice", "full")["iou"]
    assert (row["n"], row["observed"]) == (3, 1 / 3)


def test_undefined_replicates_are_counted_not_sorted(world):
    """With one defined CXR of two, a replicate is undefined when it draws only the other: a quarter of them."""
    row = world({"a": mask(0), "b": mask()}, {"a": mask(0), "b": mask()})["iou"]
    assert (row["mean"], row["lower"], row["upper"]) == (1, None, None)  # one CXR says nothing of others
    assert 700 < row["replicates"] < 800


def test_a_task_that_is_never_defined_is_null(world):
    row = world({"a": mask()}, {"a": mask()})["iou"]
    assert (row["mean"], row["lower"], row["upper"], row["n"], row["replicates"]) == (None, None, None, 0, 0)


def test_patients_are_drawn_whole(world):
    """All of one patient's CXRs come together: of two who are alike every replicate is the mean itself."""
    pred = {f"patient{k}_study{j}": mask(*range(j)) for k in (1, 2) for j in (1, 2)}
    truth = {name: mask(0) for name in pred}
    row = world(pred, truth, "--resample", "patient")["iou"]
    assert row["lower"] == row["mean"] == row["upper"] == 0.75
    assert row["resample"] == "patient"
    assert world(pred, truth)["iou"]["lower"] < 0.75


def test_one_patient_has_no_interval(world):
    pred = {"patient1_study1": mask(0), "patient1_study2": mask(0, 1)}
    truth = {name: mask(0) for name in pred}
    for row in world(pred, truth, "--resample", "patient").values():
        assert (row["lower"], row["upper"]) == (None, None)
    assert world(pred, truth)["iou"]["lower"] == 0.5


def test_average_row_is_the_mean_over_tasks(cli, small):
    out = cli("chex-eval", small / "expected/seg_otsu.json", "--truth", small / "expected/gt.json").out
    table = by_task(out, "iou")
    average = table.pop("Average")
    assert average["mean"] == pytest.approx(np.mean([r["mean"] for r in table.values() if r["mean"] is not None]))
    assert average["lower"] < average["mean"] < average["upper"]


def test_per_image_and_replicate_tables_reproduce_the_summary(cli, small, tmp_path):
    arguments = ("--metric", "iou", "--per-image", tmp_path / "i", "--replicate-table", tmp_path / "r")
    out = cli("chex-eval", small / "expected/seg_otsu.json", "--truth", small / "expected/gt.json", *arguments).out
    images = rows((tmp_path / "i").read_text())
    replicates = rows((tmp_path / "r").read_text())
    assert [r["replicate"] for r in replicates] == list(range(1000))
    for task, row in by_task(out, "iou").items():
        if task != "Average":
            values = [image["iou"][task] for image in images if image["iou"][task] is not None]
            assert len(values) == row["n"]
            means = np.array([r["means"][task] for r in replicates], float)
            lower, upper, count = bootstrap.interval(means)
            assert count == row["replicates"]
            known = (lower, upper) if len(values) > 1 else (None, None)
            assert known == (row["lower"], row["upper"])


def test_failed_predictions_are_in_every_row(cli, small, tmp_path):
    """A record that cannot be read may have changed any number, so each row says how many there were."""
    records = cli("chex-segment", small / "maps").out.splitlines()
    records[2] = records[2][:50]
    result = cli(
        "chex-eval", "--truth", small / "expected/gt.json", "--metric", "iou", stdin="\n".join(records).encode()
    )
    assert result.code == 1
    assert {row["failed"] for row in rows(result.out)} == {1}
    assert "stdin:3: truncated JSON; skipped" in result.err
    assert result.err.endswith("chex-eval: error: 1 of 8 records failed\n")


@pytest.mark.parametrize("point, expected", [([2.9, 0.2], 1), ([1.99, 0], 0)])
def test_points_are_truncated_to_pixels(cli, tmp_path, point, expected):
    (tmp_path / "gt.json").write_bytes(document(a=mask(2)))
    (tmp_path / "points.json").write_text(json.dumps({"a": {"Edema": [point]}}))
    out = cli("chex-eval", tmp_path / "points.json", "--truth", tmp_path / "gt.json").out
    assert by_task(out, "hit")["Edema"]["observed"] == expected


def test_any_point_hits_no_point_misses_and_outside_is_an_error(cli, tmp_path):
    (tmp_path / "gt.json").write_bytes(document(a=mask(2), b=mask(3), c=mask(4), d=mask()))
    points = {"a": {"Edema": [[9, 0], [2, 0]]}, "b": {"Edema": []}, "c": {"Edema": [[10, 0]]}}
    (tmp_path / "points.json").write_text(json.dumps(points))
    result = cli("chex-eval", tmp_path / "points.json", "--truth", tmp_path / "gt.json")
    row = by_task(result.out, "hit")["Edema"]
    assert (row["observed"], row["n"], row["failed"]) == (0.5, 2, 1)  # a hits, b misses, c failed, d has no truth
    assert "the point (10, 0) lies outside the image of 1 x 10" in result.err and result.code == 1


def test_sizes_that_disagree_fail_by_name(cli, tmp_path):
    (tmp_path / "gt.json").write_bytes(document(a=mask(2), b=mask(2)))
    other = Mask.from_array(np.ones((2, 10))).to_rle()
    (tmp_path / "pred.json").write_bytes(document(a=other, b=mask(2)))
    result = cli("chex-eval", tmp_path / "pred.json", "--truth", tmp_path / "gt.json", "--metric", "iou")
    assert "a: Edema: the mask has the size [2, 10], its truth [1, 10]" in result.err
    assert by_task(result.out, "iou")["Edema"]["failed"] == 1 and result.code == 1


def test_csv_files_are_refused_one_by_one(cli, small, tmp_path):
    expected = small / "expected"
    arguments = ("chex-eval", expected / "seg_otsu.json", "--truth", expected / "gt.json", "--csv", tmp_path)
    (tmp_path / "n_segs.csv").write_text("mine")
    refused = cli(*arguments)
    assert refused.code == 1 and "n_segs.csv: exists" in refused.err
    assert [p.name for p in tmp_path.iterdir()] == ["n_segs.csv"]  # nothing was written
    assert cli(*arguments, "--metric", "iou").code == 0
    assert (tmp_path / "n_segs.csv").read_text() == "mine"


def test_bootstrap_blocks_are_one_stream(monkeypatch):
    """Replicates drawn in blocks, as memory asks, equal those drawn at once."""
    table = np.random.default_rng(0).random((9, 2))
    whole = bootstrap.means(table, 100, 3)
    monkeypatch.setattr(bootstrap, "_BLOCK", 20)
    np.testing.assert_array_equal(bootstrap.means(table, 100, 3), whole)


def test_each_task_has_the_size_of_its_own_masks(cli, tmp_path):
    """Pixel metrics of one task do not depend on which others are measured beside it."""
    small = {"size": [4, 5], "counts": [3, 4, 13]}, {"size": [4, 5], "counts": [2, 6, 12]}
    large = {"size": [8, 10], "counts": [10, 20, 50]}
    for name, rle in zip(("gt", "pred"), small):
        (tmp_path / name).write_text(json.dumps({"p": {"Cardiomegaly": rle, "Edema": large}}))
    out = cli("chex-eval", tmp_path / "pred", "--truth", tmp_path / "gt", "--metric", "pixel").out
    assert by_task(out, "specificity")["Cardiomegaly"]["mean"] == 14 / 16


def test_a_heatmap_that_is_gone_fails_hits_only(cli, small):
    records = cli("chex-segment", small / "maps").out.replace(str(small / "maps"), "gone").encode()
    truth = ("--truth", small / "expected/gt.json")
    result = cli("chex-eval", *truth, stdin=records)
    masks = cli("chex-eval", small / "expected/seg_otsu.json", *truth)
    assert [r for r in rows(result.out) if r["metric"] != "hit"] == rows(masks.out)
    hits = by_task(result.out, "hit")
    assert result.code == 1 and hits["Edema"]["failed"] == 3 and all(row["mean"] is None for row in hits.values())


def test_a_task_that_is_never_predicted_is_left_out(cli, small, tmp_path):
    """Neither its absent masks nor its absent heatmaps count as misses."""
    (tmp_path / "maps").mkdir()
    for path in (small / "maps").glob("*_Edema_map.pkl"):
        (tmp_path / "maps" / path.name).symlink_to(path)
    truth = ("--truth", small / "gt_annotations.json")
    hits = cli("chex-eval", tmp_path / "maps", *truth)
    assert by_task(hits.out, "hit").keys() == {"Edema", "Average"}
    whole = cli("chex-eval", small / "maps", *truth)
    assert by_task(hits.out, "hit")["Edema"] == by_task(whole.out, "hit")["Edema"]
    masks = cli("chex-eval", *truth, stdin=cli("chex-segment", tmp_path / "maps").out.encode())
    assert by_task(masks.out, "iou").keys() == {"Edema", "Average"} == by_task(masks.out, "hit").keys()
    assert "no prediction of" in masks.err


def test_heatmaps_allow_no_iou(cli, small):
    result = cli("chex-eval", small / "maps", "--truth", small / "expected/gt.json", "--metric", "iou")
    assert (result.code, result.out) == (1, "")
    assert "allows hit, energy, border, outside, rank, " in result.err
    assert result.err.endswith(", not iou; make masks with chex-segment\n") and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metric", "iou", "--sign", "abs"], "--sign is for metrics of heatmaps"),
        (["--metric", "froc", "--slice", "full"], "--slice is for metrics of masks"),
        (["--metric", "hit", "--tolerance-size", "320"], "--tolerance-size says what --tolerance is meant for"),
    ],
)
def test_options_that_would_do_nothing_are_refused(cli, small, options, said):
    result = cli("chex-eval", small / "maps", "--truth", small / "expected/gt.json", *options)
    assert result.code == 2 and said in result.err


def test_a_record_that_says_another_size_than_its_mask_is_refused(cli, tmp_path):
    mask = {"size": [2, 3], "counts": [0, 5, 1]}
    for name, size in (("good", [2, 3]), ("bad", [3, 2])):
        (tmp_path / name).write_text(json.dumps({"id": "a", "size": size, "masks": {"Edema": mask}}) + "\n")
    for pred, truth, said in (
        ("bad", "good", "bad:1: Edema: the mask has the size [2, 3], its record says [3, 2]"),
        ("good", "bad", "bad: a: the mask has the size [2, 3], its record says [3, 2]"),
    ):
        result = cli("chex-eval", tmp_path / pred, "--truth", tmp_path / truth)
        assert result.code == 1 and said in result.err


def test_two_outputs_of_one_name_are_refused_before_work(cli, small, tmp_path):
    arguments = ("chex-eval", small / "expected/seg_otsu.json", "--truth", small / "expected/gt.json", "-f")
    result = cli(*arguments, "-o", tmp_path / "x", "--per-image", tmp_path / "x")
    assert result.code == 1 and "named for two outputs" in result.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("points", [5, [["1", 1]], [[0]], [[0, 0, 0]], [None], [[True, 0]], "ab"])
def test_odd_points_fail_by_name(cli, tmp_path, points):
    (tmp_path / "gt.json").write_bytes(document(p0=mask(2), p1=mask(2)))
    (tmp_path / "points.json").write_text(json.dumps({"p0": {"Edema": [[2, 0]]}, "p1": {"Edema": points}}))
    result = cli("chex-eval", tmp_path / "points.json", "--truth", tmp_path / "gt.json")
    assert result.code == 1 and "p1: Edema: " in result.err
    assert by_task(result.out, "hit")["Edema"]["observed"] == 1


def test_a_table_shows_no_control_characters(cli, tmp_path):
    from chextools.results import tables

    assert "\x1b" not in tables.write([{"task": "\x1b[31mred\n"}], "table", ["task"])


def test_predictions_of_other_images_than_the_truths_are_an_error(cli, tmp_path, small):
    masks = json.loads((small / "expected/seg_otsu.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({f"x{i}": m for i, m in masks.items()}))
    result = cli("chex-eval", tmp_path / "other.json", "--truth", small / "expected/gt.json")
    assert result.code == 1 and result.out == ""
    assert "no id of the predictions is in the truth: they have xpatient64000" in result.err


def test_a_task_or_id_spelled_another_way_is_suggested(cli, tmp_path):
    (tmp_path / "gt.json").write_bytes(document(p0=mask(2), p1=mask(2)))
    text = document(P0=mask(2), p1=mask(2)).decode()
    (tmp_path / "pred.json").write_text(text.replace("Edema", "EDEMA"))
    result = cli("chex-eval", tmp_path / "pred.json", "--truth", tmp_path / "gt.json")
    assert "the first prediction has EDEMA: is it meant to be Edema?" in result.err
    (tmp_path / "pred.json").write_text(text)
    result = cli("chex-eval", tmp_path / "pred.json", "--truth", tmp_path / "gt.json")
    assert "(is 'P0' meant to be 'p0'?)" in result.err
    result = cli("chex-eval", tmp_path / "pred.json", "--truth", tmp_path / "gt.json", "--task", "edema")
    assert "unknown task 'edema' (did you mean 'Edema'?)" in result.err


def test_a_broken_mask_of_the_truth_costs_its_own_cxr(cli, tmp_path):
    good = {"size": [3, 3], "counts": [0, 5, 4]}
    records = [{"id": name, "masks": {"Edema": mask}} for name, mask in (("a", good), ("b", good), ("c", good))]
    broken = [*records[:1], {"id": "b", "kind": "box", "masks": {"Edema": good | {"counts": "\0"}}}, *records[2:]]
    for truth in (broken, [record | {"kind": "box"} if record["id"] == "c" else record for record in broken]):
        for name, lines in (("pred", records), ("truth", truth)):
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = cli("chex-eval", tmp_path / "pred", "--truth", tmp_path / "truth", "--metric", "iou")
        assert result.code == 1, result.err
        assert f"pred:2: Edema: {tmp_path}/truth: b: RLE counts hold a character" in result.err
        row = json.loads(result.out.splitlines()[0])
        assert (row["mean"], row["n"], row["failed"]) == (1.0, 2, 1)
    (tmp_path / "pred").write_text(json.dumps(records[0]) + "\n")  # nobody predicted what is broken
    result = cli("chex-eval", tmp_path / "pred", "--truth", tmp_path / "truth", "--metric", "iou")
    assert result.code == 1 and f"{tmp_path}/truth: b: Edema: RLE counts hold a character" in result.err
    assert json.loads(result.out.splitlines()[0])["failed"] == 1


def test_a_truth_of_which_nothing_can_be_drawn_says_why(cli, tmp_path):
    mask = {"Edema": {"size": [3, 3], "counts": [0, 5, 4]}}
    (tmp_path / "pred").write_text(json.dumps({"id": "a", "masks": mask}) + "\n")
    box = {"image_id": 1, "category_id": 1, "id": 1, "bbox": [1, 1, -1, 1]}
    image = {"id": 1, "file_name": "a.png", "height": 3, "width": 3}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "Edema"}]}
    for truth, said in (
        (coco, ": a: annotation 1: a box of -1 x 1 pixels has no area"),
        ({"id": "a", "masks": {}, "failed": {"Edema": "no ink"}}, ": a: no ink"),
        ({"a": {}}, ": no finding of any image, and none that was looked for"),
    ):
        (tmp_path / "truth").write_text(json.dumps(truth) + "\n")
        result = cli("chex-eval", tmp_path / "pred", "--truth", tmp_path / "truth", "--metric", "iou")
        assert result.code == 1 and f"{tmp_path}/truth{said}" in result.err
