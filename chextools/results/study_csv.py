"""The CSV files that the study's scripts write: names, columns, order and rounding, so that those scripts read on.

Numbers are written as pandas writes them: shortest form that reads back the same, nothing for an undefined one.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from chextools import tasks
from chextools.errors import InputError, encoded, quoted
from chextools.metrics import bootstrap
from chextools.plumbing import csvtext
from chextools.plumbing.files import atomic, check_target, make_folder
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.results.results import Evaluation, Table

_STEMS = {"iou": "iou", "hit": "hitmiss"}
_BENCHMARK = "_humanbenchmark"
_STUDY_FEATURES = {"num_instances": "n_instance"}

# The geometric features' files, and which feature each holds.
FEATURES_FILES = {f"{name}.csv": name for name in ("area_ratio", "elongation", "num_instances", "rec_area_ratio")}


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
        if metric not in _STEMS:
            continue
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


def metric_of(path: str) -> str | None:
    """The metric, "iou" or "hit", of which a file of values by CXR is, told by the prefix of its name."""
    name = Path(path).name
    return next((metric for metric, stem in _STEMS.items() if name.startswith((f"{stem}_", f"{metric}_"))), None)


def read_by_cxr(stream: BinaryIO, name: str, need_id: bool = True) -> Iterator[Located | Failure]:
    """Records {"id", "values": {task: number}} of a CSV with a column per task and a column img_id.

    A table of replicates has no img_id: unless one is needed, its records have no "id". An empty cell is NaN;
    a column that only numbers the rows is left out. Raises InputError if the whole cannot be read.
    """
    table = csvtext.read_table(stream, name)
    if need_id and "img_id" not in table.header:
        raise InputError(f"{name}: no column img_id; the study's files have one, and a column per task")
    columns = [column for column in table.header if column != "img_id" and not csvtext.is_index(column)]
    try:
        named = records.by_task(dict.fromkeys(columns), "the columns")
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    for where, cells in table.rows():
        try:
            if isinstance(cells, InputError):
                raise cells
            identifier = {"id": records.check_id(cells["img_id"])} if "img_id" in cells else {}
            values = {task: _value(cells[column]) for task, column in zip(named, columns)}
            yield Located(where, identifier | {"values": values})
        except InputError as error:
            yield Failure(where, str(error))


def _value(cell: str) -> float:
    try:
        number = float(cell or "nan")
    except ValueError:
        raise InputError(f"{quoted(cell)} is not a number") from None
    return number


def features_files(by_id: Mapping[str, Mapping[str, Mapping]], names: Iterable[str]) -> dict[str, str]:
    """File name to content of the study's geometric features, from id -> task -> feature -> number."""
    names = sorted(names)
    files = {}
    for file, feature in FEATURES_FILES.items():
        columns = [[values.get(task, {}).get(feature) for values in by_id.values()] for task in names]
        if feature == "area_ratio":  # the study's table starts with the integer 0, and stays so where nothing is found
            columns = [column if any(column) else [0 if value == 0 else None for value in column] for column in columns]
        files[file] = text([*names, "img_id"], zip(*columns, by_id))
    return files


def regression_name(metric: str, against: str, human: bool = False) -> str:
    """The file of a regression of `metric`, such as iou_diff, on "features" or "scores"; "" if not the study's."""
    kind, _, difference = metric.partition("_")
    stem = _STEMS.get(kind)
    if stem is None:
        return ""
    if against == "scores":
        return f"regression_modelprob_{stem}{'_diff' if difference else '_hb' if human else ''}.csv"
    return f"regression_features_{f'{stem}_diff' if difference else f'hb_{stem}' if human else f'pred_{stem}'}.csv"


def regression_files(rows: Iterable[dict], against: str, human: bool = False) -> dict[str, str]:
    """File name to content of the study's regressions, each on one feature or the scores of one task."""
    tables: dict[str, list[list]] = {}
    for row in rows:
        name = regression_name(row["metric"], against, human)
        if row["model"] != "single" or not name:
            continue
        slope = _estimate(row, "slope", "", row["p_bonferroni"])
        if against == "scores":
            cells = [row["task"], float(row["n"]), slope, _estimate(row, "spearman", "spearman_", row["spearman_p"])]
        else:
            cells = [row["task"], _STUDY_FEATURES.get(row["feature"], row["feature"]), slope]
        tables.setdefault(name, []).append(cells)
    scores = ["task", "n", "Linear regression coefficients", "Spearman correlations"]
    features = ["task", "feature", "Linear regression coefficients"]
    return {name: text(scores if against == "scores" else features, cells) for name, cells in tables.items()}


def _estimate(row: dict, name: str, prefix: str, p: float | None) -> str:
    """Estimate, interval, and a star for each of the levels 0.05, 0.01 and 0.001 that p is below."""
    numbers = (row[name], row[f"{prefix}lower"], row[f"{prefix}upper"])
    value, lower, upper = (math.nan if number is None else float(np.round(number, 3)) for number in numbers)
    return f"{value}, ({lower}, {upper})" + "*" * sum(p is not None and p < level for level in (0.05, 0.01, 0.001))


def tuning_file(curve: Sequence[dict]) -> str:
    """The study's tuning_results.csv or probability_tuning_results.csv, of the rows of all values tried."""
    if "cutoff" in curve[0]:
        return text(["prob_threshold", "mIoU", "task"], ([row["cutoff"], row["iou"], row["task"]] for row in curve))
    return text(["threshold", "task"], ([row["threshold"], row["task"]] for row in curve if row["best"]))


def write(folder: str | os.PathLike, files: dict[str, str], force: bool = False) -> None:
    """Write files into a folder, made where it does not exist; all are checked before the first is written."""
    folder = make_folder(folder)
    check(folder, files, force)
    for name, content in files.items():
        with atomic(folder / name, force) as stream:
            stream.write(encoded(content))


def check(folder: str | os.PathLike, names: Iterable[str], force: bool = False) -> None:
    """Raise InputError if one of the files cannot be made."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder}: is a file; name a folder")
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
