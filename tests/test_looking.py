"""chextools-looking(7): its Makefile runs as it stands, on made-up X-rays and two steps."""

from __future__ import annotations

import json
import os
import subprocess

import manual
from conftest import ROOT, need_tool

(RECIPE,) = [text for text in manual.examples(ROOT / "man/man7/chextools-looking.7") if "SEEDS =" in text]
TASK = "Airspace Opacity"


def test_from_records_without_outlines_to_a_table(cli, tmp_path, path):
    """Every opacity that was drawn has its outline in training; what is there is not made again."""
    assert cli("chex-phantom", "-o", tmp_path / "x", "--count", "40", "--size", "96", "96", "-q").code == 0
    for part in ("train", "test"):
        assert cli("chex-prep", tmp_path / f"x/{part}.csv", "-o", tmp_path / f"{part}.jsonl", "-q").code == 0
    (tmp_path / "looking.mk").write_text(RECIPE)
    given = ["TRUTH=x/gt_annotations_test.json", "SEEDS=3", "METHODS=gradcam", "FLOORS=centre", "STEPS=2", "SIZE=32"]

    def made(*options: str) -> subprocess.CompletedProcess:
        command = [need_tool("make"), "-f", "looking.mk", *given, *options]
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        return result

    first = made()
    head, *rows = (tmp_path / "looking/table.txt").read_text().splitlines()
    assert {"auroc-3", "gradcam-3", "centre-3"} <= set(head.split())
    assert {row.split()[0] for row in rows} == {"auroc", "hit", "iou"}
    drawn = json.loads((tmp_path / "looking/drawn/gt_annotations_train.json").read_text())
    count = sum(TASK in outlines for outlines in drawn.values())
    assert count and f"outlines of {count} of " in first.stderr
    assert "is up to date" in made().stdout
    another = made("-n", "SEEDS=3 4").stdout
    assert "--seed 4" in another and "--seed 3" not in another
