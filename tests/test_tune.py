"""chex-tune against the study's own tables, by hand, and where it goes beyond them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.levels import level_above, levels_above
from chextools.heatmaps.npz import write_npz
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask

STUDY = {"threshold": "tuning_results.csv", "cutoff": "probability_tuning_results.csv"}


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def by_task(text: str) -> dict[str, dict]:
    return {row["task"]: row for row in rows(text)}


@pytest.mark.parametrize("purpose", STUDY)
def test_the_study_tables_byte_for_byte(cli, oracle, purpose):
    result = cli(
        "chex-tune", oracle / "maps", "--truth", oracle / "expected/gt.json", "--for", purpose, "--format", "csv"
    )
    assert result.code == 0
    assert result.out == (oracle / "expected" / STUDY[purpose]).read_text()


@pytest.mark.parametrize("purpose", STUDY)
@pytest.mark.parametrize("extra", [[], ["--curve"], ["--curve", "--format", "csv"]])
def test_segment_reads_back_what_was_chosen(cli, small, tmp_path, purpose, extra):
    """Masks made with our rows are those that the study's scripts made with their table."""
    tuned = tmp_path / "tuned"
    truth = ("--truth", small / "expected/gt.json")
    assert cli("chex-tune", small / "maps", *truth, "--for", purpose, "-o", tuned, *extra).code == 0
    masks = cli("chex-segment", small / "maps", f"--{purpose}", tuned, "--format", "chexlocalize").out
    expected = small / "expected" / {"threshold": "seg_tuned.json", "cutoff": "seg_cutoff.json"}[purpose]
    assert json.loads(masks) == json.loads(expected.read_text())


def test_the_chosen_row_is_the_best_of_the_curve(cli, small):
    arguments = ("chex-tune", small / "maps", "--truth", small / "expected/gt.json", "--for", "threshold")
    best, curve = by_task(cli(*arguments).out), rows(cli(*arguments, "--curve").out)
    assert [row["threshold"] for row in curve if row["task"] == "Edema"] == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    for task, row in best.items():
        points = [point for point in curve if point["task"] == task]
        (marked,) = [point for point in points if point["best"]]
        assert (marked["threshold"], marked["iou"], marked["n"]) == (row["threshold"], row["iou"], row["n"])
        if row["n"]:
            assert row["iou"] == max(point["iou"] for point in points)


def test_tuned_masks_have_the_mean_that_was_promised(cli, small, tmp_path):
    """chex-eval of masks cut at the chosen thresholds observes the mean IoU of chex-tune's row."""
    truth = ("--truth", small / "expected/gt.json")
    tuned = cli("chex-tune", small / "maps", *truth, "--for", "threshold").out
    (tmp_path / "tuned.jsonl").write_text(tuned)
    masks = cli("chex-segment", small / "maps", "--threshold", tmp_path / "tuned.jsonl").out
    observed = by_task(cli("chex-eval", *truth, "--metric", "iou", stdin=masks.encode()).out)
    for task, row in by_task(tuned).items():
        assert observed[task]["observed"] == pytest.approx(row["iou"], abs=1e-15) or row["iou"] is None


# Grids


def test_a_finer_grid_contains_the_coarse_one(cli, small):
    arguments = ("chex-tune", small / "maps", "--truth", small / "expected/gt.json", "--for", "threshold", "--curve")
    coarse, fine = (
        {(row["task"], row["threshold"]): row["iou"] for row in rows(cli(*arguments, "--grid", grid).out)}
        for grid in ("0.2:0.8:0.1", "0.2:0.8:0.02")
    )
    shared = [key for key in coarse if coarse[key] is not None and key in fine]
    assert len(shared) == 63 and len(fine) == 310
    assert all(fine[key] == pytest.approx(coarse[key], abs=1e-4) for key in shared)  # 0.30000000000000004, 0.3


def test_counts_of_levels_are_those_of_the_pixels():
    rng = np.random.default_rng(1)
    for values in (
        rng.random((40, 40)),
        np.zeros((8, 8)),
        np.round(rng.random((20, 25)), 1) * (rng.random((20, 25)) < 0.3),
    ):
        surface = Surface(values.astype(np.float32), (311, 402))
        level = np.unique(np.float32([0, 0.1, 0.25, 0.5, values.max(), 2]))
        expected = [(surface.dense() >= each).sum() for each in level]
        np.testing.assert_array_equal(surface.counts(level), expected)


def test_levels_of_many_thresholds_are_those_of_each():
    low, high = np.float32(-0.7), np.float32(3.1)
    thresholds = [0.0, 0.2, 0.30000000000000004, 0.8, 1.0, 1.5, -0.1]
    np.testing.assert_array_equal(levels_above(thresholds, low, high), [level_above(t, low, high) for t in thresholds])
    assert levels_above([-0.1, 1.0], low, high).tolist() == [low, np.inf]


# A small world whose numbers can be worked out by hand: maps of 1 x 10 pixels, so that nothing is upsampled.


@pytest.fixture
def world(cli, tmp_path):
    """Tune on maps {id: ten values}, truth {id: pixels} and scores {id: score} of Edema (or another task)."""

    def call(purpose: str, maps: dict, truth: dict, *options: object, scores: dict | None = None, task: str = "Edema"):
        (tmp_path / "maps").mkdir(exist_ok=True)
        for name, values in maps.items():
            found = Heatmaps(name, (1, 10), input_size=(1, 10), scores={task: (scores or {}).get(name, 0.5)})
            found.maps[task] = np.float32([values])
            write_npz(tmp_path / "maps" / f"{name}.npz", found)
        masks = {name: {task: rle(*pixels)} for name, pixels in truth.items()}
        (tmp_path / "gt.json").write_text(json.dumps(masks))
        return cli("chex-tune", tmp_path / "maps", "--for", purpose, "--truth", tmp_path / "gt.json", *options)

    return call


def rle(*pixels: int) -> dict:
    return Mask.from_array(np.isin(np.arange(10), pixels)[None, :]).to_rle()


RAMP = [0, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1]  # a threshold of 0.5 cuts out pixels 5 to 9


def test_threshold_by_hand(world):
    """One truth is what a threshold of 0.6 cuts out, the other 0.5. In the mean they are equal: the first is chosen."""
    truth = {"a": (6, 7, 8, 9), "b": (5, 6, 7, 8, 9)}
    (row,) = rows(world("threshold", {"a": RAMP, "b": RAMP}, truth).out)
    assert (row["threshold"], row["n"]) == (0.5, 2)
    curve = {r["threshold"]: r["iou"] for r in rows(world("threshold", {"a": RAMP, "b": RAMP}, truth, "--curve").out)}
    assert curve[0.5] == curve[0.6] == (1 + 4 / 5) / 2
    assert (row["lower"], row["upper"], row["replicates"]) == (0.5, 0.6, 1000)
    dice = rows(world("threshold", {"a": RAMP, "b": RAMP}, truth, "--objective", "dice").out)[0]
    assert dice["metric"] == "dice" and dice["dice"] == (1 + 8 / 9) / 2 and "iou" not in dice


def test_only_true_positives_count_for_a_threshold(world):
    """A CXR without a truth mask, and one outside the truth, change nothing."""
    maps = {"a": RAMP, "b": RAMP, "none": RAMP[::-1], "stranger": RAMP[::-1]}
    truth = {"a": (8, 9), "b": (7, 8, 9), "none": ()}
    result = world("threshold", maps, truth)
    (row,) = rows(result.out)
    assert (row["threshold"], row["n"]) == (0.7, 2)
    assert "among the heatmaps but not in the truth, left out: 1 CXR (stranger)" in result.err


def test_the_interval_is_of_chosen_thresholds(world):
    """Each replicate chooses anew: with two CXRs that want 0.3 and 0.8, a replicate of one alone chooses its own."""
    maps, truth = {"a": RAMP, "b": RAMP}, {"a": (9,), "b": tuple(range(3, 10))}
    (row,) = rows(world("threshold", maps, truth).out)
    assert (row["lower"], row["upper"]) == (0.3, 0.8)


def test_one_cxr_says_nothing_about_its_threshold(world):
    result = world("threshold", {"a": RAMP}, {"a": (9,)})
    (row,) = rows(result.out)
    assert (row["threshold"], row["lower"], row["upper"], row["n"]) == (0.8, None, None, 1)
    assert row["reason"] == "chosen on one CXR: no interval" and row["reason"] in result.err


def test_flat_maps_and_empty_truth_give_the_first_of_the_grid(world):
    for maps, truth in (({"a": [1.0] * 10}, {"a": (1,)}), ({"a": RAMP}, {"a": ()})):
        (row,) = rows(world("threshold", maps, truth).out)
        assert (row["threshold"], row["iou"], row["n"]) == (0.2, None, 0)
        assert row["reason"] == "iou is undefined for every CXR: the first of the grid"


def test_cutoff_by_hand(world):
    """Otsu's mask of each map is its one bright pixel pair; a false positive with a low score is cut off."""
    bright = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    maps = {"hit": bright, "false": bright, "edge": bright}
    scores = {"hit": 0.9, "false": 0.15, "edge": 0.7}
    truth = {"hit": (8, 9), "edge": (7, 8, 9)}
    result = world("cutoff", maps, truth, scores=scores)
    (row,) = rows(result.out)
    assert (row["cutoff"], row["iou"], row["n"]) == (0.2, round((1 + 2 / 3) / 2, 3), 2)  # "false" is now undefined
    curve = {r["cutoff"]: (r["iou"], r["n"]) for r in rows(world("cutoff", maps, truth, "--curve", scores=scores).out)}
    assert curve[0.1] == (round((1 + 2 / 3 + 0) / 3, 3), 3)
    assert curve[0.6] == (0.833, 2)
    assert curve[0.8] == (0.5, 2)  # the mask of "edge" is cut off, its truth is not: 0
    assert "among the heatmaps but not in the truth, its truth counts as empty: 1 CXR (false)" in result.err


def test_the_score_must_be_above_the_cutoff(world):
    """A score equal to the cutoff is cut off in tuning, as in the study."""
    maps, truth = {"a": [0] * 8 + [1, 1], "b": [0] * 8 + [1, 1]}, {"a": (8, 9), "b": (8, 9)}
    curve = {
        r["cutoff"]: r["iou"] for r in rows(world("cutoff", maps, truth, "--curve", scores={"a": 0.5, "b": 0.5}).out)
    }
    assert (curve[0.4], curve[0.5]) == (1, 0)


def test_lung_lesion_starts_at_a_tenth(world):
    maps, truth = {"a": [0] * 8 + [1, 1], "b": [0] * 8 + [1, 1]}, {"a": (8, 9), "b": (8, 9)}
    result = world("cutoff", maps, truth, task="Lung Lesion")
    assert rows(result.out)[0]["cutoff"] == 0.1
    assert "Lung Lesion: cutoffs below 0.1 are left out, as in the study (--no-lung-lesion-exception)" in result.err
    result = world("cutoff", maps, truth, "--no-lung-lesion-exception", task="Lung Lesion")
    assert rows(result.out)[0]["cutoff"] == 0 and result.err == ""


def test_cutoffs_of_masks_equal_those_of_their_heatmaps(cli, small):
    """Records from chex-segment carry masks and scores; what was segmented once is not segmented again."""
    options = ("--truth", small / "expected/gt.json", "--for", "cutoff")
    masks = [json.loads(line) for line in cli("chex-segment", small / "maps").out.splitlines()]
    for record in masks:
        del record["heatmap"]
    piped = cli("chex-tune", *options, stdin="".join(json.dumps(r) + "\n" for r in masks).encode())
    assert piped.out == cli("chex-tune", small / "maps", *options).out


def test_cutoffs_of_thresholded_masks(cli, small):
    options = ("chex-tune", small / "maps", "--truth", small / "expected/gt.json", "--for", "cutoff", "--curve", "-q")
    otsu, tuned = (
        by_task(cli(*options, "--threshold", t).out) for t in ("otsu", small / "expected/tuning_results.csv")
    )
    assert otsu != tuned


def test_masks_without_scores_fail_by_name(cli, small):
    expected = small / "expected"
    result = cli(
        "chex-tune", expected / "seg_otsu.json", "--truth", expected / "gt.json", "--for", "cutoff", "--task", "Edema"
    )
    (row,) = rows(result.out)
    assert (row["cutoff"], row["failed"], row["reason"]) == (None, 8, "all failed: no score to compare with cutoffs")
    assert result.code == 1 and "Edema: no score to compare with cutoffs" in result.err


def test_results_that_do_not_match_name_both_sides(world):
    result = world("threshold", {"a": RAMP, "b": RAMP}, {"c": (1,)})
    assert (result.code, result.out) == (1, "")
    assert "no image is on both sides: the truth has 1 CXR (c), the heatmaps 2 CXRs (a, b)" in result.err


def test_a_task_absent_from_the_maps_is_left_out(cli, small, tmp_path):
    import shutil

    (tmp_path / "maps").mkdir()
    for path in (small / "maps").glob("*_Edema_map.pkl"):
        shutil.copy(path, tmp_path / "maps")
    result = cli("chex-tune", tmp_path / "maps", "--truth", small / "expected/gt.json", "--for", "threshold")
    assert [row["task"] for row in rows(result.out)] == ["Edema"] and result.code == 0
    assert "no heatmap of Airspace Opacity, Atelectasis," in result.err


# Operating points


def scored(*images: tuple[float, int | None]) -> bytes:
    lines = (
        {"id": f"i{k}", "scores": {"Edema": s}, "labels": {"Edema": y} if y is not None else {"Fracture": 0}}
        for k, (s, y) in enumerate(images)
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


IMAGES = [(0.9, 1), (0.8, 1), (0.7, 0), (0.6, 1), (0.5, 0), (0.4, 0), (0.3, 1), (0.2, 0)]


def test_youden_by_hand(cli):
    """J is 1/2 at 0.8 (sensitivity 1/2, specificity 1) and at 0.6 (3/4 and 3/4): the greater threshold is chosen."""
    (row,) = rows(cli("chex-tune", "--for", "score", stdin=scored(*IMAGES)).out)
    assert (row["score_threshold"], row["sensitivity"], row["specificity"], row["youden"]) == (0.8, 0.5, 1, 0.5)
    assert (row["metric"], row["n"], row["positives"]) == ("youden", 8, 4)
    assert row["lower"] <= 0.8 <= row["upper"]


@pytest.mark.parametrize(
    "target, threshold, specificity", [(0.5, 0.8, 1), (0.51, 0.6, 0.75), (0.75, 0.6, 0.75), (1, 0.3, 0.25)]
)
def test_a_sensitivity_by_hand(cli, target, threshold, specificity):
    (row,) = rows(cli("chex-tune", "--for", "score", "--sensitivity", target, stdin=scored(*IMAGES)).out)
    assert (row["score_threshold"], row["specificity"]) == (threshold, specificity)
    assert row["sensitivity"] >= target and row["metric"] == "sensitivity"


def test_equal_scores_are_one_threshold(cli):
    (row,) = rows(cli("chex-tune", "--for", "score", stdin=scored((0.5, 1), (0.5, 0), (0.5, 1), (0.1, 0))).out)
    assert (row["score_threshold"], row["sensitivity"], row["specificity"]) == (0.5, 1, 0.5)


def test_uncertain_labels_do_not_count_and_blank_ones_are_negative_as_in_training(cli):
    extra = [(0.99, -1), (0.01, None)]
    for options, n in (((), 9), (("--missing", "negative"), 9), (("--missing", "ignore"), 8)):
        (row,) = rows(cli("chex-tune", "--for", "score", *options, stdin=scored(*IMAGES, *extra)).out)
        assert (row["n"], row["score_threshold"]) == (n, 0.6 if n == 9 else 0.8)


@pytest.mark.parametrize(
    "images, missing",
    [
        ([(0.1, 1), (0.2, 1)], "no image is negative"),
        ([(0.1, 0), (0.2, 0)], "no image is positive"),
        ([(0.1, -1)], "no image with a score and a label"),
    ],
)
def test_a_task_without_both_classes_is_null(cli, images, missing):
    result = cli("chex-tune", "--for", "score", stdin=scored(*images))
    (row,) = rows(result.out)
    assert (row["score_threshold"], row["youden"], row["reason"]) == (None, None, missing)
    assert result.code == 0 and missing in result.err


def test_scores_of_heatmaps_need_labels_or_a_truth(cli, small):
    """The study's pickles hold both; a truth given replaces their labels: positive is a mask that is not empty."""
    own = by_task(cli("chex-tune", small / "maps", "--for", "score").out)
    truth = by_task(cli("chex-tune", small / "maps", "--for", "score", "--truth", small / "expected/gt.json").out)
    assert own["Edema"]["n"] == truth["Edema"]["n"] == 8
    masks = json.loads((small / "expected/gt.json").read_text())
    for task, row in truth.items():
        assert row["positives"] == sum(Mask.from_rle(image[task]).area > 0 for image in masks.values() if task in image)
    result = cli("chex-tune", "--for", "score", stdin=b'{"id": "a", "scores": {"Edema": 0.5}}\n')
    assert result.code == 1 and 'stdin:1: no "labels", and no truth given; skipped' in result.err


def test_the_roc_curve(cli):
    points = rows(cli("chex-tune", "--for", "score", "--curve", stdin=scored(*IMAGES)).out)
    assert [p["score_threshold"] for p in points] == [s for s, _ in IMAGES]
    assert [p["sensitivity"] for p in points] == [0.25, 0.5, 0.5, 0.75, 0.75, 0.75, 1, 1]
    assert [p["best"] for p in points].index(True) == 1


# Options


@pytest.mark.parametrize(
    "options, message",
    [
        (["--for", "threshold"], "--for threshold needs --truth"),
        (["--for", "score", "--grid", "0:1:0.1"], "--grid means nothing with --for score"),
        (["--for", "threshold", "--truth", "x", "--sensitivity", "0.5"], "--sensitivity means nothing"),
        (
            ["--for", "threshold", "--truth", "x", "--threshold", "0.5"],
            "--threshold means nothing with --for threshold",
        ),
        (["--for", "cutoff", "--truth", "x", "--objective", "dice", "--format", "csv"], "for Dice add --curve"),
        (["--for", "cutoff", "--truth", "x", "--grid", "0:1"], "is not START:STOP:STEP"),
        (["--for", "cutoff", "--truth", "-"], "cannot both be stdin"),
    ],
)
def test_options_that_make_no_sense_are_refused(cli, options, message):
    result = cli("chex-tune", *options, stdin=b"{}")
    assert (result.code, result.out) == (2, "") and message in result.err


def test_a_table_for_people(cli, small):
    out = cli(
        "chex-tune", small / "maps", "--truth", small / "expected/gt.json", "--for", "cutoff", "--format", "table"
    ).out
    header, *lines = out.splitlines()
    assert header.split() == ["metric", "for", "task", "cutoff", "lower", "upper", "iou", "n", "replicates", "failed"]
    assert len(lines) == 10


def test_generic_csv_of_the_curve_reads_as_csv(cli, small):
    out = cli("chex-tune", small / "maps", "--for", "score", "--curve", "--format", "csv").out
    table = list(csv.DictReader(out.splitlines()))
    assert {row["best"] for row in table} == {"True", "False"} and len({row["task"] for row in table}) == 9
