"""Results made up for the tests of chex-report: rows as the commands write them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from PIL import Image

from chextools.metrics.catalogue import FEATURES
from chextools.tasks import STUDY

METHODS = {
    "gradcam": 0.43,
    "occlusion": 0.41,
    "eigencam": 0.33,
    "integrated-gradients": 0.24,
    "human": 0.55,
    "centre": 0.20,
    "random": 0.10,
}


def eval_rows(mean: float, tasks, metrics=("iou", "hit", "auroc"), half: float = 0.02) -> list[dict]:
    """Rows as chex-eval writes them, with means about `mean`, the same for the same task."""
    rows = []
    for metric in metrics:
        shift = {"iou": 0.0, "hit": 0.2, "auroc": 0.3}.get(metric, 0.1)
        means = {
            t: round(min(0.95, mean + shift) + (zlib.crc32(t.encode()) % 100 - 50) / 1000, 6) for t in sorted(tasks)
        }
        means["Average"] = sum(means.values()) / len(means)
        for task, value in means.items():
            width = half if task == "Average" else 4 * half
            rows.append(
                {
                    "metric": metric,
                    "task": task,
                    "mean": value,
                    "lower": max(0, value - width),
                    "upper": min(1, value + width),
                    "n": 40,
                    "replicates": 1000,
                    "failed": 0,
                    "positives": 40,
                    "resample": "cxr",
                    "seed": 0,
                }
            )
    return rows


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_runs(folder: Path, methods: dict[str, float], tasks, more=()) -> list[Path]:
    """A file per method; the human benchmark and the centre have no scores, so no AUROC."""
    paths = []
    for name, mean in methods.items():
        metrics = ("iou", "hit", *more) if name in ("human", "centre") else ("iou", "hit", "auroc", *more)
        paths.append(write(folder / f"{name}.jsonl", eval_rows(mean, tasks, metrics)))
    return paths


def write_pictures(folder: Path, count: int = 8) -> Path:
    """Records of chex-view: 8 pictures of 600 x 400 pixels, of IoU 0, 1/8, 2/8 and so on."""
    records = []
    for k in range(count):
        Image.new("RGB", (600, 400), (20 * k, 60, 90)).save(folder / f"{k}.png")
        view = {"picture": str(folder / f"{k}.png"), "iou": k / count, "hit": k % 2, "score": 0.5}
        records.append({"id": f"patient{k}_study1", "views": {STUDY[k]: view}})
    return write(folder / "pictures.jsonl", records)


def write_study(folder: Path) -> list[Path]:
    """Rows of the other commands, one file of each."""
    curve = [
        {
            "metric": "iou",
            "for": "threshold",
            "task": task,
            "threshold": g / 10,
            "iou": 0.5 - abs(g - 4) / 20,
            "lower": 0.2,
            "upper": 0.6,
            "n": 9,
            "best": g == 4,
        }
        for task in STUDY
        for g in range(2, 9)
    ]
    decrease = [
        {
            "metric": "iou",
            "task": task,
            "pred": 0.4,
            "ref": 0.5,
            "pct_decrease": 20.0 - 3 * k,
            "lower": -5.0 - k,
            "upper": 40.0,
            "p": 0.04,
            "p_holm": 0.4,
            "n": 9,
        }
        for k, task in enumerate([*STUDY, "Average"])
    ]
    shapes = [
        {
            "id": f"p{k}",
            "task": task,
            "num_instances": 1 + k % 3,
            "area_ratio": k / 100,
            "elongation": 1 + k / 10,
            "irrectangularity": k / 50,
            "rec_area_ratio": 1 - k / 50,
        }
        for task in STUDY
        for k in range(20)
    ]
    slopes = [
        {
            "metric": "iou",
            "task": "Overall",
            "feature": feature,
            "model": model,
            "n": 90,
            "slope": 0.2,
            "lower": -0.1,
            "upper": 0.5,
            "p": 0.2,
            "p_bonferroni": 0.8,
        }
        for feature in FEATURES
        for model in ("single", "joint")
    ]
    named = {"curve": curve, "decrease": decrease, "shapes": shapes, "slopes": slopes}
    return [write(folder / f"{name}.jsonl", rows) for name, rows in named.items()]
