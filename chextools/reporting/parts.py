"""What the sections of a report share: names in words, the look of runs in figures, tables of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from chextools.reporting.figures import Series
from chextools.reporting.page import Column, Table
from chextools.reporting.runs import Run

MAIN = ("iou", "hit", "auroc")  # the metrics that figures show
NAMES = {
    "iou": "mIoU",
    "hit": "Hit rate",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "Calibration error",
    "dice": "Dice",
    "hd95": "95% Hausdorff distance",
    "assd": "Mean surface distance",
    "nsd": "Surface Dice",
    "froc": "FROC",
    "best-iou": "Best IoU",
    "pixel-auroc": "Pixel AUROC",
    "pixel-auprc": "Pixel AUPRC",
    "lesion-recall": "Lesion recall",
    "lesion-precision": "Lesion precision",
    "energy": "Energy inside",
    "border": "Energy in the border",
    "outside": "Energy outside the lungs",
    "rank": "Mass rank",
    "road": "ROAD",
    "sensitivity": "Sensitivity",
    "count": "Share with a mask",
    "iou_diff": "IoU difference",
    "hit_diff": "hit difference",
    "iou_hb": "IoU of the human benchmark",
    "hit_hb": "hits of the human benchmark",
}
OF_ONE = {"iou": "IoU", "hit": "hit"}  # a metric of one CXR
FEATURE_NAMES = {
    "num_instances": "Number of instances",
    "area_ratio": "Area ratio",
    "elongation": "Elongation",
    "irrectangularity": "Irrectangularity",
    "rec_area_ratio": "Rectangle ratio",
    "score": "Score",
}
ROLE_WORDS = {"model": "", "human": "human benchmark", "floor": "floor"}
MOST_MODELS = 5  # in one figure: a colour and a mark each
MOST_RUNS = 5  # whose own figures a section draws
_LOOKS = {
    "model": [("s0", "dot"), ("s1", "square"), ("s2", "triangle"), ("s3", "plus"), ("s4", "cross")],
    "human": [("human", "diamond"), ("human", "rhomb")],
    "floor": [("floor", "ring"), ("floor", "box")],
}


# Words


def name_of(metric: str) -> str:
    return NAMES.get(metric, metric.capitalize())


def within(metric: str) -> str:
    """A metric's name within a sentence: mIoU, AUROC, but hit rate."""
    name = name_of(metric)
    return name if name[1:2].isupper() else name.lower()


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`, or `a, b, c and 9 others`."""
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} others"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def beyond(having: Sequence[Run], most: int) -> str:
    return f"The first {most} of {len(having)} runs are drawn." if len(having) > most else ""


# Figures and tables


def series(having: Sequence[Run], runs: Sequence[Run], values: dict[str, dict]) -> list[Series]:
    """A series per run; a run looks alike in all figures of these runs."""
    looks: dict[str, tuple[str, str]] = {}
    for role, known in _LOOKS.items():
        looks |= {run.name: known[k % len(known)] for k, run in enumerate(r for r in runs if r.role == role)}
    return [Series(run.name, *looks[run.name], values[run.name]) for run in having]


def named(kind: str, what: str, run: Run, among: Sequence[Run]) -> str:
    """A figure's file name: of letters, digits and - only, whatever the run is called, and its number among several."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", what).strip("-")[:60]
    return f"{kind}_{plain}" + (f"_{among.index(run) + 1}" if len(among) > 1 else "")


def rows_table(name: str, caption: str, columns: Sequence[Column], runs: Iterable[Run], kind: str) -> Table:
    """The rows of a kind of all runs, in the columns that any row fills."""
    found = [{"run": run.name} | row for run in runs for row in run.rows[kind]]
    for row in found:
        row["metric"] = OF_ONE.get(row.get("metric", ""), row.get("metric"))
        row["feature"] = FEATURE_NAMES.get(row.get("feature", ""), row.get("feature"))
        row["note"] = row.get("note") or row.get("reason")
        row["best"] = "yes" if row.get("best") is True else None
    used = [c for c in columns if any(row.get(c.key) is not None for row in found)]
    used = [c for c in used if c.key != "run" or len({row["run"] for row in found}) > 1]
    return Table(name, caption, used, [[row.get(column.key) for column in used] for row in found])
