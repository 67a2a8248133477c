"""README says what is so: its commands are the ones that run."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess

from conftest import ROOT, need_tool

from chextools.tasks import STUDY

README = (ROOT / "README.md").read_text()


def block(language: str, holding: str) -> str:
    return next(b for b in re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S) if holding in b)


def test_the_demo_is_the_pipeline():
    assert block("sh", "chex-phantom") in (ROOT / "tests/demo.sh").read_text()


def test_the_scripts_for_a_cluster_are_those_of_the_manual():
    from test_slurm import script

    for name in ("train.sbatch", "cam.sbatch"):
        assert block("sh", script(name).splitlines()[-2]) == script(name).lstrip("\n")


def test_ci_runs_the_second_command():
    (command,) = [line.strip() for line in README.splitlines() if line.endswith("pytest tests")]
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_the_demo_runs(path):
    environment = os.environ | {"PATH": path}
    result = subprocess.run(["sh", ROOT / "tests/demo.sh"], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    head, *rows = (re.split(r"  +", line) for line in result.stdout.splitlines())
    shown = [re.split(r"  +", line) for line in re.findall(r"^    ((?:metric|iou|hit|auroc)  .*)$", README, re.M)]
    assert head == shown[0] == ["metric", "task", "classifier", "gradcam", "random", "centre", "reader"]
    assert [row[:2] for row in rows if row[:2] in [s[:2] for s in shown]] == [row[:2] for row in shown[1:]]
    values = {(row[0], row[1]): dict(zip(head[2:], map(numbers, row[2:]))) for row in rows}
    hits = {task: of for (metric, task), of in values.items() if metric == "hit" and task != "Average"}
    assert list(hits) == list(STUDY)
    # What it teaches: unseen patients are told apart, and Grad-CAM finds most findings, but a reader finds more
    assert values["auroc", "Average"]["classifier"][0] >= 0.9
    off_centre = {task: of for task, of in hits.items() if of["centre"][0] < 1}  # the heart is always in the middle
    above = [t for t, of in off_centre.items() if of["gradcam"][1] > max(of["random"][2], of["centre"][2])]
    assert len(off_centre) >= 8 and len(above) > len(off_centre) / 2
    assert all(of["reader"][0] > of["gradcam"][0] for of in hits.values())


def numbers(cell: str) -> tuple[float, ...]:
    """Mean, lower and upper of a cell."""
    return tuple(map(float, re.findall(r"[0-9.]+", cell)))


def test_the_recipe_makes_every_table_of_the_study(oracle, tmp_path, path):
    (tmp_path / "Makefile").write_text(block("make", "chex-tune"))
    (tmp_path / "maps").symlink_to(oracle / "maps")
    for name in ("gt_annotations.json", "gt_points.json"):
        (tmp_path / name).symlink_to(oracle / name)
    command = [need_tool("make"), "-s", "HUMAN_MASKS=tuned.json"]  # as in the oracle, where it stands in for a human
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    expected = oracle / "expected"
    same = {
        "gt.json": None,
        "otsu.json": "seg_otsu.json",
        "tuned.json": "seg_tuned.json",
        "cutoff.json": "seg_cutoff.json",
        "tuning_results.csv": None,
        "probability_tuning_results.csv": None,
        "tp/n_segs.csv": "n_segs.csv",
        "tp/pred_precision_recall_specificity.csv": "pred_precision_recall_specificity.csv",
        "hb/hb_precision_recall_specificity.csv": "hb_precision_recall_specificity.csv",
        "tp/iou_results_per_cxr.csv": None,
        "tp/iou_bootstrap_results_per_cxr.csv": None,
        "tp/hitmiss_results_per_cxr.csv": None,
        "tp/hitmiss_bootstrap_results_per_cxr.csv": None,
        "full/iou_results_per_cxr.csv": None,
        "full/iou_bootstrap_results_per_cxr.csv": None,
        "hb/iou_humanbenchmark_results_per_cxr.csv": None,
        "hb/hitmiss_humanbenchmark_results_per_cxr.csv": None,
        "features/area_ratio.csv": "area_ratio.csv",
        "features/num_instances.csv": "num_instances.csv",
        "regressions/regression_features_pred_iou.csv": "regression_features_pred_iou.csv",
        "regressions/regression_features_pred_hitmiss.csv": "regression_features_pred_hitmiss.csv",
        "regressions/regression_features_iou_diff.csv": "regression_features_iou_diff.csv",
        "regressions/regression_features_hitmiss_diff.csv": "regression_features_hitmiss_diff.csv",
        "regressions/regression_modelprob_iou.csv": "regression_modelprob_iou.csv",
    }
    for ours, theirs in same.items():
        mine, study = ((folder / name).read_text() for folder, name in ((tmp_path, ours), (expected, theirs or ours)))
        if ours.endswith(".json"):
            assert json.loads(mine) == json.loads(study), ours
        else:
            assert mine.replace('"-0.0,', '"0.0,') == study.replace('"-0.0,', '"0.0,'), ours  # -0.0 equals 0.0
    for name in ("miou_pct_decrease.csv", "hitrate_pct_decrease.csv"):  # bounds differ where replicates are undefined
        mine, study = (list(csv.reader((folder / name).open())) for folder in (tmp_path, expected))
        assert [row[:4] for row in mine] == [row[:4] for row in study]
