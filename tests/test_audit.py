"""chextools-audit(7): one command line from a model and X-rays to a page, run as it stands."""

from __future__ import annotations

import csv
import os
import subprocess

import manual
from conftest import ROOT, need_tool
from test_cam import checkpoint

(RECIPE,) = [text for text in manual.examples(ROOT / "man/man7/chextools-audit.7") if "METHODS =" in text]
TASKS = ["Airspace Opacity", "Pleural Effusion"]


def test_from_a_model_and_a_folder_to_a_page(cli, tmp_path, path):
    """What is made once is not made again; a truth that changes is evaluated again, and no heatmap is made for it."""
    assert cli("chex-phantom", "-o", tmp_path / "xrays", "--count", "30", "--size", "96", "96", "-q").code == 0
    checkpoint(tmp_path / "mine.pt", tasks=TASKS)
    (tmp_path / "audit.mk").write_text(RECIPE)
    truth = tmp_path / "xrays/gt_annotations_test.json"
    given = ["MODEL=mine.pt", "IMAGES=xrays/test.csv", f"TRUTH={truth}", "HUMAN=xrays/hb_annotations_test.json"]
    given += ["FIT=xrays/train.csv", "FITTED=exposure", "SHORTCUTS=view"]
    few = ["METHODS=gradcam", "FLOORS=random", "FOLLOWS=deletion", "LOOKS=iou hit energy border"]

    def made(*options: str) -> str:
        command = [need_tool("make"), "-f", "audit.mk", *given, *few, *options]
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "chex-probe" in made("-n") and "chex-probe" not in made("-n", "FOLLOWS=")
    table = made()
    assert "gradcam" in table and "human" in table and "random" in table
    page = (tmp_path / "audit/page.html").read_text()
    assert "energy" in page.lower() and "deletion" in page.lower()
    assert "Can the AUROC be trusted?" in page and "exposure" in page and "in the border of 10%" in page
    assert list((tmp_path / "audit/pictures/gradcam").iterdir())
    assert (tmp_path / "audit/table.txt").read_text() in table
    head, *rows = csv.reader((tmp_path / "audit/table.csv").open())
    assert {"gradcam lower", "human mean", "random n"} <= set(head) and "deletion" in {row[0] for row in rows}
    assert "is up to date" in made()
    os.utime(truth)
    again = made()
    assert "chex-eval" in again and "chex-cam" not in again and "chex-probe" not in again
    another = made("-n", "METHODS=gradcam ig")
    assert "--method ig" in another and "--method gradcam" not in another
