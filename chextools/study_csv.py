"""The CSV files that the study's scripts write: their names, columns, order and rounding, so that those scripts read on.

Numbers are written as pandas writes them: shortest form that reads back the same, nothing for an undefined one.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from chextools import bootstrap, tasks
from chextools.evaluate import Evaluation, Table
from chextools.files import atomic, check_target, make_folder

_STEMS = {"iou": "iou", "hit": "hitmiss"}
_BENCHMARK = "_humanbenchmark"


def evaluation_names(metrics: Iterable[str], human: bool) -> list[str]:
    """The files that `evaluation_files` makes of these metrics."""
    suffix = _BENCHMARK if human else ""
    names = []
    for metric in metrics:
        if metric in _STEMS:
            parts = ("results_per_cxr", "bootstrap_results_per_cxr", "summary_results")
            names += [f"{_STEMS[metric]}{suffix}_{part}.csv" for part in parts]
        elif metric == "count":
            names.append("n_segs.csv")
        elif metric == "pixel":
            names.append(f"{'hb' if human else 'pred'}_precision_recall_specificity.csv")
    return names


def evaluation_files(evaluation: Evaluation, human: bool = False) -> dict[str, str]:
    """File name to content: eval, count_segs and the pixel metrics of the study."""
    files = {}
    suffix = _BENCHMARK if human else ""
    for metric, table in evaluation.tables.items():
        stem = _STEMS[metric] + suffix
        files[f"{stem}_results_per_cxr.csv"] = _per_cxr(table)
        files[f"{stem}_bootstrap_results_per_cxr.csv"] = _replicates(table)
        files[f"{stem}_summary_results.csv"] = _summary(table)
    rows = {(row["metric"], row["task"]): row for row in evaluation.summary}
    names = sorted(evaluation.tasks)
    if ("count", names[0]) in rows:
        files["n_segs.csv"] = text(["", "0"], ([task, rows["count", task]["count"]] for task in names))
    if ("precision", names[0]) in rows:
        pooled = ([rows[metric, task]["mean"] for metric in ("precision", "recall", "specificity")] for task in names)
        header = ["", "pathology", "precision", "recall/sensitivity", "specificity"]
        files[f"{'hb' if human else 'pred'}_precision_recall_specificity.csv"] = text(
            header, ([k, task, *values] for k, (task, values) in enumerate(zip(names, pooled)))
        )
    return files


def write(folder: str | os.PathLike, files: dict[str, str], force: bool = False) -> None:
    """Write files into a folder, made where it does not exist; all are checked before the first is written."""
    folder = make_folder(folder)
    check(folder, files, force)
    for name, content in files.items():
        with atomic(folder / name, force) as stream:
            stream.write(content.encode("utf-8"))


def check(folder: str | os.PathLike, names: Iterable[str], force: bool = False) -> None:
    """Raise InputError if one of the files cannot be made."""
    if Path(folder).exists():
        for name in names:
            check_target(Path(folder) / name, force)


def text(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """CSV with Unix line ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    return value


def _per_cxr(table: Table) -> str:
    order = sorted(range(len(table.tasks)), key=table.tasks.__getitem__)
    rows = ([*values[order].tolist(), identifier] for identifier, values in zip(table.ids, table.values))
    return text([*(table.tasks[k] for k in order), "img_id"], rows)


def _replicates(table: Table) -> str:
    order = [table.tasks.index(task) for task in tasks.study_order(table.tasks)]
    return text([table.tasks[k] for k in order], table.replicates[:, order].tolist())


def _summary(table: Table) -> str:
    def row(k: int) -> list:
        lower, upper, _ = bootstrap.interval(table.replicates[:, k])
        mean = float(bootstrap.nanmean(table.replicates[:, k]))
        return [table.tasks[k], *np.round([lower, mean, upper], 3).tolist()]

    order = sorted(range(len(table.tasks)), key=table.tasks.__getitem__)
    return text(["name", "lower", "mean", "upper"], map(row, order))
