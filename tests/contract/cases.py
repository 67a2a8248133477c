"""How the contract's tests run each command. A new command joins by being named here."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from conftest import DATA

SMALL = DATA / "oracle-small"
COMPARED = ("tp/iou_results_per_cxr.csv", "hb/iou_humanbenchmark_results_per_cxr.csv")
GT = ["--truth", SMALL / "expected/gt.json"]


@dataclass(frozen=True)
class Case:
    """A command on the small oracle.

    kind: "filter", "reducer" or "source".
    arguments: positional inputs, with which stdin is never read.
    options: what every run needs.
    lines: records for stdin, one JSON object per line, of the same work; none where the command reads no records.
    uses_torch: whether the command may import torch when it runs.
    """

    kind: str
    arguments: list = field(default_factory=list)
    options: list = field(default_factory=list)
    lines: Callable[[], list[str]] = list
    uses_torch: bool = False


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
    return [
        json.dumps({"id": row.pop("img_id"), "iou": {t: float(v) if v else None for t, v in row.items()}}) for row in rows
    ]


@cache
def outline_lines() -> list[str]:
    annotations = json.loads((SMALL / "gt_annotations.json").read_text())
    return [json.dumps({"id": i, "size": a.pop("img_size"), "outlines": a}) for i, a in annotations.items()]


CASES = {
    "chex-segment": Case("filter", [SMALL / "maps"], lines=heatmap_lines),
    "chex-eval": Case("reducer", [SMALL / "expected/seg_otsu.json"], GT, mask_lines),
    "chex-tune": Case("reducer", [SMALL / "maps"], [*GT, "--for", "threshold"], heatmap_lines),
    "chex-features": Case("reducer", [SMALL / "gt_annotations.json"], GT, outline_lines),
    "chex-regress": Case(
        "reducer", [SMALL / "expected/tp/iou_results_per_cxr.csv"], ["--features", SMALL / "expected"], result_lines
    ),
    "chex-compare": Case("reducer", [SMALL / "expected" / name for name in COMPARED]),
}
