"""How the contract's tests run each command. A new command joins by being named here."""

from __future__ import annotations

import atexit
import csv
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from conftest import DATA, ROOT
from PIL import Image

SMALL = DATA / "oracle-small"
CXRS = DATA / "cxr"  # eight small made-up X-rays in CheXpert's layout
COMPARED = ("tp/iou_results_per_cxr.csv", "hb/iou_humanbenchmark_results_per_cxr.csv")
TINY = f"{ROOT}/tests/small_networks.py:tiny"
GT = ["--truth", SMALL / "expected/gt.json"]


@dataclass(frozen=True)
class Case:
    """A command on the small oracle, run in a fresh folder.

    kind: "filter", "reducer" or "source".
    arguments: positional inputs, with which stdin is never read.
    options: what every run needs.
    lines: records for stdin, one JSON object per line, of the same work; none where the command reads no records.
    uses_torch: whether the command may import torch when it runs.
    seeded: options with which the seed matters, where it does not in every run.
    """

    kind: str
    arguments: list = field(default_factory=list)
    options: list = field(default_factory=list)
    lines: Callable[[], list[str]] = list
    uses_torch: bool = False
    seeded: list = field(default_factory=list)


@cache
def heatmap_lines() -> list[str]:
    """Records of the small oracle's pickles."""
    ids = sorted({path.name.rsplit("_", 2)[0] for path in (SMALL / "maps").iterdir()})
    return [json.dumps({"id": i, "heatmap": f"{SMALL / 'maps'}#{i}", "mine": [i]}) for i in ids]


@cache
def mask_lines() -> list[str]:
    masks = json.loads((SMALL / "expected/seg_otsu.json").read_text())
    return [json.dumps({"id": i, "masks": m}) for i, m in masks.items()]


@cache
def result_lines() -> list[str]:
    """Per-image results, as chex-eval --per-image writes them, of the study's IoU table."""
    with (SMALL / "expected/full/iou_results_per_cxr.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    numbers = ((row.pop("img_id"), {task: float(v) if v else None for task, v in row.items()}) for row in rows)
    return [json.dumps({"id": identifier, "iou": values}) for identifier, values in numbers]


@cache
def outline_lines() -> list[str]:
    annotations = json.loads((SMALL / "gt_annotations.json").read_text())
    return [json.dumps({"id": i, "size": a.pop("img_size"), "outlines": a}) for i, a in annotations.items()]


@cache
def image_lines() -> list[str]:
    images = sorted(path for path in CXRS.rglob("*.*g"))
    return [json.dumps({"id": i.parts[-3], "image": str(i), "mine": [i.name]}) for i in images]


@cache
def picture_lines() -> list[str]:
    """Records as chex-view writes them; the X-rays themselves stand in for overlays."""
    images = sorted(CXRS.rglob("*.*g"))
    return [
        json.dumps({"id": i.parts[-3], "views": {"Edema": {"picture": str(i), "iou": k / 8, "hit": 1, "score": 0.5}}})
        for k, i in enumerate(images)
    ]


@cache
def overlay_lines() -> list[str]:
    """Records of X-rays with a mask, as chex-segment writes them: the left half of the image."""
    lines = []
    for line in image_lines():
        record = json.loads(line)
        with Image.open(record["image"]) as image:
            width, height = image.size
        half = {"size": [height, width], "counts": [0, height * (width // 2), height * (width - width // 2)]}
        lines.append(json.dumps(record | {"masks": {"Edema": half}}))
    return lines


@cache
def file_of(lines: Callable[[], list[str]]) -> str:
    path = scratch() / "records.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines()))
    return str(path)


class Made:
    """A path of what a function makes, when it is first asked for."""

    def __init__(self, make: Callable[..., str], *arguments: object):
        self.make, self.arguments = make, arguments

    def __str__(self) -> str:
        return self.make(*self.arguments)


def scratch() -> Path:
    """A new folder for the time of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="chextools-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def small_weights() -> str:
    """A state dict, drawn from a seed."""
    import torch
    from small_networks import tiny

    path = scratch() / "weights.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save({"state_dict": tiny(2).state_dict()}, path)
    return str(path)


@cache
def small_checkpoint() -> str:
    """The network with these weights, as chex-import makes it."""
    from chextools.importing import ImportSettings, import_network

    path = Path(small_weights()).with_name("small.pt")
    import_network(ImportSettings(source=small_weights(), arch=TINY, tasks="Cardiomegaly,Edema", size=32), path)
    return str(path)


@cache
def probe_lines() -> list[str]:
    """Records of the X-rays with heatmaps of two tasks, as chex-cam writes them."""
    import numpy as np

    from chextools.heatmaps.heatmaps import Heatmaps
    from chextools.heatmaps.npz import write_npz

    folder, lines = scratch(), []
    for number, line in enumerate(image_lines()):
        record = json.loads(line)
        with Image.open(record["image"]) as image:
            size = image.size[::-1]
        maps = np.random.default_rng(number).random((2, 4, 4)).astype(np.float32)
        made = Heatmaps(record["id"], size, dict(zip(("Cardiomegaly", "Edema"), maps)), input_size=(32, 32))
        write_npz(folder / f"{record['id']}.npz", made)
        lines.append(json.dumps(record | {"heatmap": str(folder / f"{record['id']}.npz")}))
    return lines


SCORING = ["--checkpoint", Made(small_checkpoint), "--batch-size", "1", "--device", "cpu"]
TRAINING = [
    "--valid",
    CXRS / "valid.csv",
    "-o",
    "RUN",
    "--resume",
    "--steps",
    "1",
    "--batch-size",
    "4",
    "--device",
    "cpu",
]

CASES = {
    "chex-phantom": Case("source", options=["-o", "phantoms", "-f", "--count", "4", "--size", "64", "64"]),
    "chex-prep": Case("filter", [CXRS / "valid.csv"], ["--split", "0.5,0.5"], image_lines),
    "chex-train": Case("reducer", [CXRS / "valid.csv"], [*TRAINING, "--arch", TINY, "--size", "32"], uses_torch=True),
    "chex-import": Case(
        "source",
        [Made(small_weights)],
        ["--arch", TINY, "--tasks", "Cardiomegaly,Edema", "--size", "32", "-o", "imported.pt", "-f"],
        uses_torch=True,
    ),
    "chex-predict": Case("filter", [CXRS / "valid.csv"], SCORING, image_lines, uses_torch=True),
    "chex-cam": Case(
        "filter",
        [CXRS / "valid.csv"],
        [*SCORING, "-o", "maps", "-f", "--method", "random"],
        image_lines,
        uses_torch=True,
    ),
    "chex-probe": Case(
        "filter", [Made(file_of, probe_lines)], [*SCORING, "--steps", "2"], probe_lines, uses_torch=True
    ),
    "chex-segment": Case("filter", [SMALL / "maps"], lines=heatmap_lines),
    "chex-eval": Case("reducer", [SMALL / "expected/seg_otsu.json"], GT, mask_lines),
    "chex-tune": Case("reducer", [SMALL / "maps"], [*GT, "--for", "threshold"], heatmap_lines),
    "chex-features": Case("reducer", [SMALL / "gt_annotations.json"], GT, outline_lines),
    "chex-regress": Case(
        "reducer", [SMALL / "expected/tp/iou_results_per_cxr.csv"], ["--features", SMALL / "expected"], result_lines
    ),
    "chex-compare": Case("reducer", [SMALL / "expected" / name for name in COMPARED]),
    "chex-view": Case(
        "filter",
        [Made(file_of, overlay_lines)],
        ["-o", "views", "-f", "--size", "64"],
        overlay_lines,
        seeded=["--select", "random", "--count", "3"],
    ),
    "chex-report": Case(
        "reducer", [SMALL / "expected" / name for name in ("tp", "hb", "")], ["-o", "page.html", "-f"], picture_lines
    ),
}
