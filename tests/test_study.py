"""The Makefile of chextools-study(7), run as it stands: every table of the study, from heatmaps and annotations."""

from __future__ import annotations

import csv
import json
import os
import subprocess

import manual
from conftest import ROOT, need_tool

(RECIPE,) = [text for text in manual.examples(ROOT / "man/man7/chextools-study.7") if "chex-tune" in text]


def test_the_recipe_makes_every_table_of_the_study(oracle, tmp_path, path):
    (tmp_path / "Makefile").write_text(RECIPE)
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
