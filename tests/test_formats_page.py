"""chextools-formats(7): its recipes run as they stand, on files with the names and heads of those downloaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import manual
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from chextools.results.words import MASKS
from chextools.tasks import CHEXPERT

PAGE = ROOT / "man/man7/chextools-formats.7"
BOXES = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000001_000.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661,,,
00000002_001.png,Effusion,100,600,200,150,,,
00000003_000.png,Infiltrate,300,200,150,300,,,
"""


def example(holding: str) -> str:
    (found,) = [text for text in manual.examples(PAGE) if holding in text]
    return found


def run(script: str, folder, path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["sh", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


def test_nih_from_its_own_files_to_a_table_against_floors(tmp_path, path):
    import torch

    from chextools.models import architectures, checkpoints

    (tmp_path / "BBox_List_2017.csv").write_text(BOXES)
    rng = np.random.default_rng(0)
    for number, name in enumerate(["00000001_000", "00000002_001", "00000003_000", "00000004_000"]):
        folder = tmp_path / f"images_00{number % 2 + 1}/images"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8))
        coarse.resize((1024, 1024)).save(folder / f"{name}.png")
    torch.manual_seed(0)
    network = architectures.build("resnet18", len(CHEXPERT), 64)
    checkpoints.save(tmp_path / "best.pt", checkpoints.Checkpoint("resnet18", list(CHEXPERT), 64, network, policy={}))
    result = run(example("BBox_List_2017.csv | cut"), tmp_path, path)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "boxed").iterdir())) == 3
    for method in ("gradcam", "random", "centre"):
        rows = [json.loads(line) for line in (tmp_path / f"results/{method}.jsonl").read_text().splitlines()]
        found = {row["task"]: row for row in rows if row["metric"] == "iou"}
        assert set(found) == {"Atelectasis", "Pleural Effusion", "Average"}  # the network has no Infiltration
        assert all(row["truth"] == "boxes" and row["failed"] == 0 for row in found.values())
    assert "centre" in result.stdout and "Pleural Effusion" in result.stdout


def test_conversions(small, tmp_path, path):
    (tmp_path / "BBox_List_2017.csv").write_text(BOXES)
    (tmp_path / "train-rle.csv").write_text("ImageId, EncodedPixels\n1.2.276.0.1, -1\n1.2.276.0.2,10 3 61 3 61 3\n")
    box = '<box label="Mass" xtl="2" ytl="3" xbr="6" ybr="8"/>'
    xml = f'<annotations><image id="0" name="a.png" width="50" height="40">{box}</image></annotations>'
    (tmp_path / "annotations.xml").write_text(xml)
    result = run(example("annotations.xml"), tmp_path, path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "masks/Pneumothorax/1.2.276.0.1.png").exists()
    (annotation,) = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert annotation["bbox"] == [2, 3, 4, 5] and annotation["area"] == 20
    records = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    assert [list(record["masks"]) for record in records] == [
        ["Atelectasis"],
        ["Pleural Effusion"],
        ["Airspace Opacity"],
    ]


def test_readers_of_vindr(small, tmp_path, path):
    """Of heatmaps that know the images' size, and of boxes alone."""
    shutil.copytree(small / "maps", tmp_path / "maps")
    name = sorted(path.name for path in (small / "maps").iterdir())[0].rpartition("_map")[0].rpartition("_")[0]
    head = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    rows = [f"{name},Edema,3,R{n},{10 + n},20,{60 + n},90" for n in range(3)]
    (tmp_path / "train.csv").write_text("\n".join([head, *rows]) + "\n")
    result = run(example("--readers"), tmp_path, path)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    pairs = [row["mean"] for row in rows if row.get("compared") == "pairs" and row["metric"] == "iou"]
    assert pairs[0] == pytest.approx((49 / 51 * 2 + 48 / 52) / 3)


def test_every_form_that_is_written_is_in_the_page():
    text = PAGE.read_text().partition(".SH WRITTEN")[2].replace("\\-", "-")
    assert all(f"\n{name}|" in text for name in MASKS)
