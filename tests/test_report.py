"""chex-report: what it reads, ranks, draws and writes. The page itself is tested in test_report_browser.py."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from browser import contrast
from conftest import ROOT
from PIL import Image
from report_data import METHODS, eval_rows, write, write_pictures, write_runs, write_study

from chextools.errors import InputError
from chextools.metrics.catalogue import FEATURES
from chextools.reporting import drawing, figures, gallery, leaderboard, page, ranking, runs
from chextools.reporting.drawing import INKS, MARKS, Drawing, Line, Mark, Text
from chextools.reporting.figures import Series
from chextools.tasks import STUDY


def read(*paths, **options) -> list[runs.Run]:
    return runs.read_runs([str(path) for path in paths], None, **options).runs


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# Reading


def test_chex_eval_in_both_formats_and_compressed(cli, small, tmp_path):
    """JSON Lines and CSV, plain or gzip, hold the same."""
    options = [small / "expected/seg_otsu.json", "--truth", small / "expected/gt.json", "--metric", "iou"]
    (tmp_path / "a.jsonl").write_text(cli("chex-eval", *options).out)
    (tmp_path / "b.csv").write_text(cli("chex-eval", *options, "--format", "csv").out)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    a, b, c = read(*(tmp_path / name for name in ("a.jsonl", "b.csv", "c.jsonl.gz")))
    assert [run.name for run in (a, b, c)] == ["a", "b", "c"]
    assert a.rows["eval"] == b.rows["eval"] == c.rows["eval"] and len(a.tasks("iou")) == 9
    assert a.interval("iou", "Edema") == pytest.approx((0.432, 0.226, 0.625), abs=5e-4)  # as in README


def test_rows_by_task_have_a_column_per_run(cli, small):
    """Also for a run whose name is that of a column of ours."""
    paths = [small / "expected" / name for name in ("tp", "hb")]
    rows = lines(cli("chex-report", *paths, "--by", "task").out)
    assert [row["task"] for row in rows if row["metric"] == "iou"][-2:] == ["Support Devices", "Average"]
    (edema,) = [row for row in rows if row["metric"] == "iou" and row["task"] == "Edema"]
    assert edema["runs"]["tp"] == {"mean": 0.432, "lower": 0.226, "upper": 0.625}
    table = cli("chex-report", *paths, "--by", "task", "--format", "table").out.splitlines()
    assert table[0].split() == ["metric", "task", "tp", "hb", "human", "benchmark"]
    assert "0.432 [0.226, 0.625]" in next(line for line in table if line.startswith("iou     Edema"))
    head, *rest = csv.reader(cli("chex-report", *paths, "--by", "task", "--format", "csv").out.splitlines())
    assert head[:5] == ["metric", "task", "tp mean", "tp lower", "tp upper"]
    assert next(row for row in rest if row[:2] == ["iou", "Edema"])[2:5] == ["0.432", "0.226", "0.625"]


def test_rows_by_metric_are_of_every_metric_with_what_stands_beside(cli, tmp_path):
    """A table has chance and the CXRs once, as a range where runs differ; the other forms have each run's own."""
    start = {"task": "Edema", "mean": 0.5, "lower": 0.4, "upper": 0.6}
    for name, count in (("gradcam", 20), ("ig", 18)):
        made = [start | {"metric": "deletion", "n": count, "chance": 0.7, "floor": 0.01 * count}]
        made += [start | {"metric": metric, "n": 9, "chance": 0.1} for metric in ("energy", "hit")]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
    command = ["chex-report", tmp_path / "gradcam.jsonl", tmp_path / "ig.jsonl", "--by", "metric"]
    rows = lines(cli(*command).out)
    assert [row["metric"] for row in rows if row["task"] == "Edema"] == ["hit", "energy", "deletion"]
    deletion = next(row for row in rows if row["metric"] == "deletion")["runs"]
    assert deletion["ig"] == {"mean": 0.5, "lower": 0.4, "upper": 0.6, "n": 18, "chance": 0.7, "floor": 0.18}
    head, *rest = csv.reader(cli(*command, "--format", "csv").out.splitlines())
    of_hit = dict(zip(head, next(row for row in rest if row[:2] == ["hit", "Edema"])))
    assert (of_hit["ig n"], of_hit["ig chance"], of_hit["ig floor"]) == ("9", "0.1", "")
    table = cli(*command, "--format", "table").out.splitlines()
    line = next(line for line in table if line.startswith("deletion  Edema"))
    assert " ".join(line.split()) == (
        "deletion Edema 18 to 20 0.700 0.180 to 0.200 0.500 [0.400, 0.600] 0.500 [0.400, 0.600]"
    )


def test_a_run_called_task(cli, small, tmp_path):
    options = [small / "expected/seg_otsu.json", "--truth", small / "expected/gt.json", "--metric", "iou"]
    (tmp_path / "task.jsonl").write_text(cli("chex-eval", *options).out)
    table = cli("chex-report", tmp_path / "task.jsonl", "--by", "task", "--format", "table").out.splitlines()
    assert table[0].split() == ["metric", "task", "task"] and table[1].split()[:2] == ["iou", "Enlarged"]


def test_the_study_csv_files_give_the_numbers_of_our_rows(cli, small, tmp_path):
    """A folder of the study's tables is a run, and its human benchmark another."""
    tp, hb, rest = read(small / "expected/tp", small / "expected/hb", small / "expected")
    assert (tp.name, tp.role, hb.name, hb.role) == ("tp", "model", "hb human benchmark", "human")
    assert tp.interval("iou", "Edema") == (0.432, 0.226, 0.625)
    assert tp.interval("iou", "Airspace Opacity") == (0.584, 0.584, None)
    assert tp.interval("hit", "Average")[0] == pytest.approx(0.899, abs=5e-4)  # as in README
    decreases = {(row["metric"], row["task"]): row["pct_decrease"] for row in rest.rows["compare"]}
    assert decreases["iou", "Cardiomegaly"] == 9.699 and decreases["hit", "Edema"] == 33.804
    slopes = {(row["metric"], row["feature"]): row for row in rest.rows["regress"] if row["task"] == "Overall"}
    assert [slopes["iou", "num_instances"][key] for key in ("slope", "lower", "upper")] == [0.035, -0.166, 0.237]
    assert slopes["hit_diff", "area_ratio"]["upper"] == 0.356
    assert {row["for"] for row in rest.rows["tune"]} == {"threshold", "cutoff"}
    shapes = cli("chex-features", small / "gt_annotations.json", "--truth", small / "expected/gt.json").out
    (ours,) = read(write(tmp_path / "f.jsonl", lines(shapes)))
    for feature in FEATURES:
        theirs = {(r["id"], r["task"]): r[feature] for r in rest.rows["features"] if r.get(feature)}
        mine = {(r["id"], r["task"]): r[feature] for r in ours.rows["features"] if r.get(feature)}
        assert theirs == pytest.approx(mine)


def test_the_other_commands_rows_are_told_apart(cli, small, tmp_path):
    tables = small / "expected"
    maps = [small / "maps", "--truth", tables / "gt.json", "--for", "threshold", "--replicates", "9"]
    both = [tables / "tp/iou_results_per_cxr.csv", tables / "hb/iou_humanbenchmark_results_per_cxr.csv"]
    made = {
        "tune": ("chex-tune", *maps),
        "compare": ("chex-compare", *both, "--replicates", "9"),
        "features": ("chex-features", small / "gt_annotations.json", "--truth", tables / "gt.json"),
        "regress": ("chex-regress", both[0], "--features", tables),
    }
    counts = {"tune": 10, "compare": 11, "features": 80, "regress": 8}
    for kind, command in made.items():
        for form in ("jsonl", "csv"):
            path = tmp_path / f"{kind}.{form}"
            path.write_text(cli(*command, "--format", form).out)
            (run,) = read(path)
            assert [k for k, rows in run.rows.items() if rows] == [kind]
            assert len(run.rows[kind]) == counts[kind]
            assert run.failed == 0


def test_what_is_no_result_is_refused_and_in_a_folder_left_out(cli, small, tmp_path):
    for path, reason in (
        (small / "expected/gt.json", "neither results nor records"),
        (small / "expected/tp/iou_results_per_cxr.csv", "per-image results"),
        (small / "expected/n_segs.csv", "no columns of results"),
        (write(tmp_path / "p.jsonl", [{"id": "a", "iou": {"Edema": 0.5}}]), "per-image results"),
        (write(tmp_path / "r.jsonl", [{"metric": "iou", "replicate": 0, "means": {}}]), "replicates"),
    ):
        result = cli("chex-report", path)
        assert result.code == 1 and result.out == "" and result.err.count("\n") == 1 and reason in result.err, path
    write(tmp_path / "q.jsonl", eval_rows(0.4, STUDY))
    assert [row["run"] for row in lines(cli("chex-report", tmp_path).out)] == [tmp_path.name]
    (tmp_path / "empty").mkdir()
    assert "empty: no results in it" in cli("chex-report", tmp_path / "empty").err


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"metric": "iou", "task": "Edema", "mean": "0.5"}, '"mean" must hold numbers'),
        ({"metric": "iou", "task": "", "mean": 0.5}, '"task" must be a string'),
        ({"metric": "iou", "task": "x" * 301, "mean": 0.5}, "more than 300 letters"),
        ({"metric": ["iou"], "task": "Edema", "mean": 0.5}, '"metric" must be a string'),
        ({"metric": "iou", "task": "Edema", "mean": 0.5, "failed": "x"}, '"failed" must be a whole number'),
        ({"metric": "iou", "task": "Edema", "mean": 1e300}, "which is no result"),
        (
            {"metric": "iou", "task": "Edema", "mean": 0.5, "lower": 0.6, "upper": 0.4},
            '"lower" is 0.6, above "upper", 0.4',
        ),
        ({"id": "a", "views": {"Edema": {"iou": 1}}}, "names no picture"),
        ({"id": "a", "views": {"Edema": "x.png"}}, "names no picture"),
    ],
)
def test_a_broken_row_is_named_and_the_others_go_on(cli, tmp_path, row, reason):
    path = write(tmp_path / "run.jsonl", [*eval_rows(0.4, STUDY), row])
    result = cli("chex-report", path, "-o", tmp_path / "page.html")
    assert result.code == 1
    assert f"chex-report: warning: {path}:34: " in result.err and reason in result.err
    assert result.err.endswith("chex-report: error: 1 of 34 records failed\n")
    assert [r["failed"] for r in lines(result.out)] == [1]
    assert (tmp_path / "page.html").exists()


def test_runs_are_named_after_what_tells_their_files_apart(tmp_path):
    paths = []
    for folder in ("a/x", "b/x", "b/y"):
        (tmp_path / folder).mkdir(parents=True)
        paths.append(write(tmp_path / folder / "eval.jsonl", eval_rows(0.4, STUDY)))
    assert [run.name for run in read(*paths)] == ["a/x/eval", "b/x/eval", "y/eval"]
    assert [run.name for run in read(paths[0], paths[0])][1].endswith("eval (2)")


@pytest.mark.parametrize(
    "name, role",
    [
        ("human", "human"),
        ("human_v2", "human"),
        ("hb", "human"),
        ("radiologists", "human"),
        ("random", "floor"),
        ("centre", "floor"),
        ("my-floor", "floor"),
        ("thumbnail", "floor"),
        ("gradcam", "model"),
        ("mean", "floor"),
        ("mean-of-three", "model"),
        ("random-forest", "model"),
        ("inhuman", "model"),
    ],
)
def test_human_benchmarks_and_floors_are_known_by_name(tmp_path, name, role):
    (run,) = read(write(tmp_path / f"{name}.jsonl", eval_rows(0.4, STUDY)))
    assert run.role == role


def test_human_benchmarks_and_floors_are_what_options_say(cli, tmp_path):
    paths = write_runs(tmp_path, {"alice": 0.5, "random": 0.3, "human": 0.2}, STUDY)
    rows = lines(cli("chex-report", *paths, "--human-run", "alice", "--floor-run", "human").out)
    assert {row["run"]: row["role"] for row in rows} == {"alice": "human", "random": "model", "human": "floor"}
    assert "--human-run bob: no run of that name" in cli("chex-report", *paths, "--human-run", "bob").err


# Ranking


def test_ranks_ties_and_overlaps():
    means = [(0.4, 0.35, 0.45), (0.5, 0.44, 0.56), (0.9, 0.8, 1.0), (0.5, 0.4, 0.6), (0.2, 0.1, 0.3), (0.1, None, None)]
    places = ranking.places([*means, (None, None, None)], [True, True, False, True, True, True, True])
    assert [place.rank for place in places] == [3, 1, None, 1, 4, 5, None]
    assert [place.overlaps for place in places] == [True, None, False, None, False, None, None]


def test_runs_that_share_the_first_place_are_not_compared_with_each_other(tmp_path):
    board = leaderboard.ranked(read(*write_runs(tmp_path, {"a": 0.5, "b": 0.5, "c": 0.49}, STUDY)))
    said = leaderboard.leaders("iou", board)
    assert "a and b share the first place" in said and "no interval" not in said
    assert "The interval of c overlaps with that: these CXRs do not clearly tell these runs apart." in said


def test_intervals_that_touch_overlap():
    assert ranking.overlap((0.2, 0.1, 0.3), (0.4, 0.3, 0.5)) is True
    assert ranking.overlap((0.2, 0.1, 0.29), (0.4, 0.3, 0.5)) is False
    assert ranking.overlap((0.2, None, 0.29), (0.4, 0.3, 0.5)) is None


def test_overlapping_intervals_are_said_plainly(tmp_path):
    board = leaderboard.ranked(read(*write_runs(tmp_path, METHODS, STUDY)))
    said = leaderboard.leaders("iou", board)
    assert said.startswith("By mIoU, gradcam comes first: 0.440 (0.420 to 0.460).")
    assert "The interval of occlusion overlaps with that: these CXRs do not clearly tell the two apart." in said
    assert [run.name for run, _ in board][0] == "human"  # stands among them, without a rank
    alone = leaderboard.ranked(read(*write_runs(tmp_path, {"a": 0.5, "b": 0.3}, STUDY)))
    assert "No other interval overlaps with that." in leaderboard.leaders("hit", alone)


def test_rows_are_ranked(cli, tmp_path):
    rows = lines(cli("chex-report", *write_runs(tmp_path, METHODS, STUDY)).out)
    ranks = [(row["run"], row["iou_rank"]) for row in rows]
    assert ranks == [
        ("human", None),
        ("gradcam", 1),
        ("occlusion", 2),
        ("eigencam", 3),
        ("integrated-gradients", 4),
        ("centre", None),
        ("random", None),
    ]
    assert [row["iou_overlaps_first"] for row in rows] == [False, None, True, False, False, False, False]
    assert rows[0]["auroc"] is None and rows[1]["auroc"] > 0.7 and rows[1]["tasks"] == 10


def test_averages_over_different_tasks_are_named(cli, tmp_path):
    paths = write_runs(tmp_path, {"a": 0.5}, STUDY) + write_runs(tmp_path, {"b": 0.5}, STUDY[:4])
    result = cli("chex-report", *paths, "-o", tmp_path / "page.html")
    said = "Averages of mIoU are over different tasks and do not compare: 10 tasks in a; 4 tasks in b."
    assert f"chex-report: warning: {said}\n" in result.err and said in (tmp_path / "page.html").read_text()


# Drawing


def test_every_ink_is_told_from_its_paper():
    """Text has a contrast of 4.5:1, marks of 3:1, in light and dark (WCAG 2.1); grid and bands are quiet on purpose."""

    def rgb(colour: str) -> str:
        return f"rgb({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:], 16)})"

    for theme in (0, 1):
        for ink, colours in INKS.items():
            least = {"text": 4.5, "muted": 4.5, "paper": 1, "grid": 1, "soft": 1}.get(ink, 3)
            assert contrast(rgb(colours[theme]), rgb(INKS["paper"][theme])) >= least, ink


def test_marks_lie_where_they_are_put():
    """The centre of a mark's pixels is its place, in the PNG; its size is about 2r."""
    for mark in MARKS:
        made = Drawing(40, 30, "one mark")
        made.add(Mark(mark, 25, 12, 5, "text"))
        image = Image.open(io.BytesIO(drawing.png(made))).convert("L")
        assert image.size == (160, 120)
        left, top, right, bottom = image.point(lambda v: 255 * (v < 128)).getbbox()
        assert ((left + right) / 8, (top + bottom) / 8) == pytest.approx((25, 12), abs=1.0), mark
        assert 8 <= (right - left) / 4 <= 14.5 and 8 <= (bottom - top) / 4 <= 14.5, mark


def test_both_backends_write_the_same_bytes_each_time(tmp_path):
    made = figures.dot_intervals("mIoU", "mIoU", ["a", "b"], [Series("r", "s0", "dot", {"a": (0.5, 0.4, 0.6)})])
    assert drawing.svg(made) == drawing.svg(made) and drawing.png(made) == drawing.png(made)
    root = ET.fromstring(drawing.svg(made))
    assert root.find("{http://www.w3.org/2000/svg}title").text == "mIoU"
    assert "r 0.50 (0.40 to 0.60)" in root.find("{http://www.w3.org/2000/svg}desc").text


def test_numbers_lie_on_the_axis_where_they_belong():
    """The x of mark and interval are the numbers, by the places of the ticks."""
    values = {"a": (0.5, 0.25, 0.75), "b": (None, None, None)}
    made = figures.dot_intervals("t", "x", ["a", "b"], [Series("r", "s0", "dot", values)], least=0.0, greatest=1.0)
    ticks = {float(s.text): s.x for s in made.shapes if isinstance(s, Text) and re.fullmatch(r"[0-9.]+", s.text)}
    (mark,) = [s for s in made.shapes if isinstance(s, Mark)]
    (rules,) = [s for s in made.shapes if isinstance(s, drawing.Rules) and s.ink == "s0"]
    ((low, _, high, _),) = rules.ends
    unit = ticks[1] - ticks[0]
    assert [(x - ticks[0]) / unit for x in (low, mark.x, high)] == pytest.approx([0.25, 0.5, 0.75])


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.43), (-37, 212), (0.52, 0.97), (0.3, 0.3), (1e-7, 3e-7), (0, 1e6)])
def test_ticks_are_round_and_reach_both_ends(low, high):
    found = figures.ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 7
    steps = {round(b - a, 12) for a, b in zip(found, found[1:])}
    assert max(steps) - min(steps) < 1e-9 * max(1, abs(high))


def test_quantiles_are_numpys():
    import numpy as np

    values = np.random.default_rng(0).random(37).tolist()
    assert figures.quantiles(values) == pytest.approx(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist())
    assert figures.quantiles([3.0]) == [3.0] * 5


def test_text_of_any_kind_is_drawn_and_fits():
    for text in ("Ödem", "胸水", "<script>", "a" * 500, "\ud800\x07", "a-b_c/d e"):
        for line in drawing.wrapped(text, 11, 100):
            assert drawing.text_width(line, 11) <= 100
        made = Drawing(50, 20, text)
        made.add(Text(2, 12, text), Line([(0, 0), (9, 9)], dashed=True))
        assert drawing.png(made)[:4] == b"\x89PNG"
        ET.fromstring(drawing.svg(made).encode("utf-8"))
    assert drawing.wrapped("Enlarged Cardiomediastinum", 11, 122) == ["Enlarged", "Cardiomediastinum"]


# Gallery


@pytest.mark.parametrize(("size", "span"), [((600, 700), 1), ((900, 600), 1), ((1200, 600), 2), ((2700, 900), 3)])
def test_a_wide_picture_takes_more_columns_of_the_gallery(tmp_path, size, span):
    """As with the original beside the overlay, which would else be half as large as others."""
    Image.new("RGB", size).save(tmp_path / "a.png")
    _, width, height = gallery.embedded(str(tmp_path / "a.png"), 200)
    assert max(width, height) == 200 * span and page.span(width, height) == span


def test_the_gallery_has_the_best_and_worst(tmp_path):
    (run,) = read(write_pictures(tmp_path))
    views = gallery.views_of(run.rows["view"])
    best, worst = gallery.extremes(views, 3)
    assert [v.iou for v in best] == [7 / 8, 6 / 8, 5 / 8] and [v.iou for v in worst] == [0, 1 / 8, 2 / 8]
    best, worst = gallery.extremes(views[:3], 6)  # too few for both: none comes twice
    assert len({*best, *worst}) == len(best) + len(worst) == 3
    uri, width, height = gallery.embedded(best[0].picture)
    assert uri.startswith("data:image/jpeg;base64,") and (width, height) == (480, 320)


def test_vectors_stay_vectors_over_fewer_pixels(cli, tmp_path, monkeypatch):
    """An SVG of chex-view is in the page as it is, but for its X-ray, which is as small as that of a PNG."""
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((900, 600), 60).save("x.png")
    record = {"id": "a", "image": "x.png", "masks": {"Edema": {"size": [600, 900], "counts": [60000, 9000, 471000]}}}
    made = cli("chex-view", "-o", "v", "--format", "svg", "--size", "900", stdin=json.dumps(record).encode() + b"\n")
    path = json.loads(made.out)["views"]["Edema"]["picture"]
    uri, width, height = gallery.embedded(path)
    assert uri.startswith("data:image/svg+xml;base64,") and max(width, height) == 480
    text = base64.b64decode(uri.partition(",")[2]).decode()
    whole = Path(path).read_text()
    assert "<metadata>" in whole and "<metadata>" not in text and len(text) < len(whole) / 4
    paths = [[p.attrib for p in ET.fromstring(one).iter("{http://www.w3.org/2000/svg}path")] for one in (text, whole)]
    assert paths[0] == paths[1] and len(paths[0]) == 4  # with that of the legend
    (pixels,) = re.findall('data:image/jpeg;base64,([^"]+)', text)
    with Image.open(io.BytesIO(base64.b64decode(pixels))) as image:
        assert max(image.size) < 480
    Path("bad.svg").write_text("<svg onload='alert(1)'/>")
    with pytest.raises(InputError, match="bad.svg: no SVG of chex-view"):
        gallery.embedded("bad.svg")


def test_pictures_are_bounded_and_a_broken_one_is_named(cli, tmp_path):
    files = []
    for k in range(32):
        (tmp_path / str(k)).mkdir()
        files.append(write_pictures(tmp_path / str(k), 3))
    (tmp_path / "0/2.png").write_bytes(b"\x89PNG nonsense")
    result = cli("chex-report", *files, "-o", tmp_path / "page.html")
    assert result.code == 1 and "patient2_study1: " in result.err and result.err.count("warning") == 1
    assert 40 <= (tmp_path / "page.html").read_text().count("<img ") <= gallery.MOST
    cli("chex-report", files[1], "-o", tmp_path / "none.html", "--gallery", "0")
    assert "<img " not in (tmp_path / "none.html").read_text()


# Output


def test_the_page_holds_no_address_and_no_other_script(cli, tmp_path):
    paths = [*write_runs(tmp_path, METHODS, STUDY), *write_study(tmp_path), write_pictures(tmp_path)]
    assert cli("chex-report", *paths, "-o", tmp_path / "page.html").code == 0
    text = (tmp_path / "page.html").read_text()
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert text.count("<script") == 1 and " style=" not in text and not re.search(r"\son[a-z]+=", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for section in (
        "settings",
        "leaderboard",
        "tasks",
        "decrease",
        "features",
        "thresholds",
        "regressions",
        "gallery",
        "runs",
    ):
        assert f'<section id="{section}"' in text
    first = (tmp_path / "page.html").read_bytes()
    assert cli("chex-report", *paths, "-o", tmp_path / "page.html", "-f").code == 0
    assert (tmp_path / "page.html").read_bytes() == first


def test_the_page_of_one_run_is_no_leaderboard(cli, tmp_path):
    paths = write_runs(tmp_path, {"gradcam": 0.4}, STUDY)
    assert cli("chex-report", *paths, "-o", tmp_path / "page.html").code == 0
    text = (tmp_path / "page.html").read_text()
    assert "<h1>gradcam</h1>" in text and 'id="leaderboard"' not in text and "No human benchmark was given." in text


def test_plots_are_written_as_svg_and_png(cli, tmp_path):
    paths = [*write_runs(tmp_path, METHODS, STUDY), *write_study(tmp_path)]
    assert cli("chex-report", *paths, "--plots", tmp_path / "plots").code == 0
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    stems = {name.rpartition(".")[0] for name in names}
    assert names == sorted(f"{stem}.{kind}" for stem in stems for kind in ("svg", "png"))
    assert stems >= {
        "iou_by_task",
        "hit_by_task",
        "auroc_by_task",
        "leaderboard_iou",
        "decrease_iou",
        "feature_elongation",
        "tuned_threshold",
        "regression_iou-joint",
    }
    for stem in stems:
        root = ET.parse(tmp_path / "plots" / f"{stem}.svg").getroot()
        with Image.open(tmp_path / "plots" / f"{stem}.png") as image:
            width, height = (float(part) for part in root.get("viewBox").split()[2:])
            assert image.size == pytest.approx((4 * width, 4 * height), abs=4)


def test_plots_that_exist_are_refused_and_made_anew_are_the_same(cli, tmp_path):
    command = ["chex-report", *write_runs(tmp_path, {"a": 0.4}, STUDY[:2]), "--plots", tmp_path / "plots"]
    assert cli(*command).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    refused = cli(*command)
    assert refused.code == 1 and "exists; use --force" in refused.err
    assert cli(*command, "-f").code == 0
    assert before == {path: path.read_bytes() for path in (tmp_path / "plots").iterdir()} and len(before) == 6


def test_a_hostile_name_becomes_no_path(cli, tmp_path):
    rows = write_study(tmp_path)[1].read_text().replace('"iou"', '"../../../iou"')
    (tmp_path / "d.jsonl").write_text(rows)
    assert cli("chex-report", tmp_path / "d.jsonl", "--plots", tmp_path / "out/plots").code == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["plots"]
    assert {p.name for p in (tmp_path / "out/plots").iterdir()} == {"decrease_-iou.svg", "decrease_-iou.png"}


def test_an_existing_page_is_refused_before_work(cli, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    paths = write_runs(tmp_path, {"a": 0.4}, STUDY)
    result = cli("chex-report", *paths, "-o", tmp_path / "page.html")
    assert (result.code, result.out) == (1, "") and "exists; use --force" in result.err
    assert (tmp_path / "page.html").read_text() == "mine"
    assert cli("chex-report", *paths, "-o", "-").code == 2
    for target, reason in ((tmp_path, "is a folder"), (tmp_path / "no/page.html", "does not exist")):
        assert reason in cli("chex-report", *paths, "-o", target).err


def test_it_imports_neither_torch_nor_scipy(tmp_path):
    paths = [*write_runs(tmp_path, METHODS, STUDY), *write_study(tmp_path), write_pictures(tmp_path)]
    script = """
import sys
from chextools.cli.report import command
try: command.main(sys.argv[1:])
except SystemExit: pass
sys.exit(", ".join({"torch", "scipy", "matplotlib"} & sys.modules.keys()) or 0)
"""
    command = [
        sys.executable,
        "-c",
        script,
        *map(str, paths),
        "-o",
        str(tmp_path / "p.html"),
        "--plots",
        str(tmp_path / "q"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("seed", range(4))
def test_no_row_breaks_the_page(cli, tmp_path, seed):
    """Rows of odd names and numbers give a page or one-line reasons, never a traceback."""
    rng = random.Random(seed)
    numbers = [None, 0, 1, -1, 0.5, 1e308, -1e12, 1e-300, 5e-324, 0.3, 2**53, True]
    words = [
        "Edema",
        "Average",
        "iou",
        "threshold",
        "score",
        "single",
        "x" * 300,
        "<b>",
        "=1",
        "胸",
        "\ud800",
        "a\0b",
        " ",
    ]
    kinds = [
        "metric task mean lower upper n slice",
        "metric task pct_decrease lower upper p",
        "metric for task threshold iou",
        "metric for task score_threshold sensitivity specificity best",
        "metric task feature model slope lower upper",
        "id task area_ratio elongation num_instances",
    ]
    texts = {"metric", "task", "for", "feature", "model", "id", "slice"}
    for trial in range(15):
        paths = []
        for number in range(3):
            kind = rng.choice(kinds).split()
            rows = [{k: rng.choice(words if k in texts else numbers) for k in kind} for _ in range(9)]
            paths.append(write(tmp_path / f"{number}.jsonl", rows))
        plots = ["--plots", tmp_path / "plots"] if trial == 0 else []
        result = cli("chex-report", *paths, "-o", tmp_path / "page.html", *plots, "-f")
        assert result.code in (0, 1)
        assert all(line.startswith("chex-report: ") for line in result.err.splitlines()), (trial, result.err)
