"""The rows that a report is made of, whatever file they come from: told apart by what is in them, and checked.

Rows of chex-eval, chex-probe, chex-compare, chex-tune, chex-features and chex-regress as JSON or CSV, pictures of
chex-view, curves of chex-probe, and the study's CSV files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from chextools.errors import InputError, printable
from chextools.metrics.catalogue import FEATURES
from chextools.plumbing import csvtext
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.results import study_csv
from chextools.tasks import canonical

KINDS = ("eval", "shortcut", "compare", "tune", "features", "regress", "view", "curves")
CURVES = ("deletion", "deletion_random", "deletion_centre", "insertion", "insertion_random", "insertion_centre")
BESIDE = ("chance", "floor")  # what stands beside a metric: of a map at random, and of one that looks at the centre
_BOUNDS = [tuple(f"{of}{bound}" for bound in ("lower", "upper")) for of in ("", "auroc_", "explained_", "difference_")]
MOST_LETTERS = 300  # of a name
MOST_POINTS = 10_000  # of a curve
GREATEST = 1e12  # number: no metric, percentage or slope is beyond


class NoResults(InputError):
    """A file without results: of another kind, or empty."""

    is_other = True


@dataclass(frozen=True, slots=True)
class Stranger:
    """An object that is no result at all: a failure among results, while a file of nothing else is of another kind."""

    where: str
    reason: str

    def as_failure(self) -> Failure:
        return Failure(self.where, self.reason)


def checked(item: Located | Failure) -> Located | Failure | Stranger:
    if isinstance(item, Failure):
        return item
    try:
        kind = _kind(item.record)
    except NoResults as error:
        return Stranger(item.where, str(error))
    except InputError as error:
        return Failure(item.where, str(error))
    try:
        return Located(item.where, {"kind": kind, "row": _CHECKS[kind](item.record)})
    except InputError as error:
        return Failure(item.where, str(error))


def _kind(row: dict) -> str:
    """What an object is a row of. Raises NoResults for one that is no result."""
    if "pct_decrease" in row:
        return "compare"
    if "slope" in row:
        return "regress"
    if "for" in row and "metric" in row:
        return "tune"
    if "metric" in row and "mean" in row:
        return "shortcut" if row["metric"] == "shortcut" else "eval"
    if "metric" in row:
        what = "replicates" if "means" in row else "not a row of results"
        raise NoResults(f"{what}; give the rows that chex-eval writes to stdout")
    if {"id", "task", "area_ratio"} <= row.keys():
        return "features"
    if "id" not in row and row and all(isinstance(value, dict) for value in row.values()):
        raise NoResults("neither results nor records")
    records.checked(dict(row))
    if "views" in row:
        return "view"
    if "curves" in row:
        return "curves"
    what = "per-image results" if {"iou", "hit"} & row.keys() else "a record without results"
    raise NoResults(f"{what}; give the rows that chex-eval and others write, or chex-view's records")


def _name(row: dict, key: str) -> str:
    """A name of the row, such as its task: text that is not too long."""
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f'"{key}" must be a string that is not empty')
    if len(value) > MOST_LETTERS:
        raise InputError(f'"{key}" has more than {MOST_LETTERS} letters')
    return canonical(value) if key == "task" else value


def _numbers(row: dict, names: Sequence[str]) -> dict[str, float | None]:
    """Numbers of the row, None where null or absent."""
    found = {name: records.number(row.get(name), name) for name in names}
    for name, value in found.items():
        if abs(value) > GREATEST:
            raise InputError(f'"{name}" is {value:g}, which is no result')
    for lower, upper in (name for name in _BOUNDS if found.keys() >= set(name)):
        if found[lower] > found[upper]:
            raise InputError(f'"{lower}" is {found[lower]:g}, above "{upper}", {found[upper]:g}')
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _details(row: dict, names: Sequence[str]) -> dict:
    """What else the row says under these names, as far as it is a number, short text, true or false."""
    found: dict[str, str | float] = {}
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            found[name] = value[:MOST_LETTERS]
        elif isinstance(value, (bool, int)) and abs(value) < 2**53 or isinstance(value, float) and math.isfinite(value):
            found[name] = value
    if not isinstance(found.get("failed", 0), int):
        raise InputError('"failed" must be a whole number')
    return found


def _eval(row: dict) -> dict:
    start = {"metric": _name(row, "metric"), "task": _name(row, "task")}
    details = (
        "n",
        "replicates",
        "failed",
        "observed",
        "dice",
        "pooled_iou",
        "positives",
        "misses_as_0",
        "count",
        "tasks",
        "slice",
        "score_threshold",
        "resample",
        "seed",
        "border",
        "reason",
    )
    numbers = ["mean", "lower", "upper", *(name for name in BESIDE if name in row)]
    return start | _numbers(row, numbers) | _details(row, details)


def _shortcut(row: dict) -> dict:
    start = {"metric": "shortcut", "task": _name(row, "task"), "by": _name(row, "by")}
    numbers = ("mean", "lower", "upper", "auroc", "explained", "explained_lower", "explained_upper", "floor")
    details = ("n", "replicates", "strata", "positives", "failed", "resample", "seed", "reason")
    own = [name for name in ("auroc_lower", "auroc_upper") if name in row]
    return start | _numbers(row, (*numbers, *own, "spearman", "pairs")) | _details(row, details)


def _compare(row: dict) -> dict:
    start = {"metric": _name(row, "metric"), "task": _name(row, "task")}
    numbers = (
        "pct_decrease",
        "lower",
        "upper",
        "pred",
        "ref",
        "difference",
        "difference_lower",
        "difference_upper",
        "p",
        "p_holm",
    )
    details = ("n", "replicates", "failed", "paired", "seed", "note", "reason")
    return start | _numbers(row, numbers) | _details(row, details)


def _tune(row: dict) -> dict:
    start = {"metric": _name(row, "metric"), "for": _name(row, "for"), "task": _name(row, "task")}
    numbers = [n for n in ("threshold", "cutoff", "score_threshold") if n in row]
    numbers += [n for n in ("iou", "dice", "sensitivity", "specificity", "youden") if n in row]
    if not numbers:
        raise InputError('neither "threshold" nor "cutoff" nor "score_threshold"')
    details = ("n", "positives", "replicates", "best", "failed", "seed", "reason")
    return start | _numbers(row, [*numbers, "lower", "upper"]) | _details(row, details)


def _features(row: dict) -> dict:
    start = {"id": records.check_id(row.get("id")), "task": _name(row, "task")}
    return start | _numbers(row, FEATURES) | _details(row, ("feature", "failed"))


def _regress(row: dict) -> dict:
    start = {name: _name(row, name) for name in ("metric", "task", "feature", "model")}
    numbers = ["slope", "lower", "upper", "p", "p_bonferroni"]
    numbers += [n for n in ("spearman", "spearman_lower", "spearman_upper", "spearman_p") if n in row]
    return start | _numbers(row, numbers) | _details(row, ("n", "patients", "failed", "reason"))


def _view(row: dict) -> dict:
    views = records.by_task(row["views"], "views")
    found = {}
    for task, view in views.items():
        if not isinstance(view, dict) or not isinstance(view.get("picture"), str):
            raise InputError(f'"views": {task} names no picture')
        found[task] = {"picture": view["picture"]} | _numbers(view, ("iou", "hit", "score"))
    return {"id": records.check_id(row["id"]), "views": found}


def _curves(row: dict) -> dict:
    """The scores as pixels go or come, by task under the names that are drawn."""
    curves = row["curves"]
    if not isinstance(curves, dict):
        raise InputError('"curves" must be an object')
    found: dict[str, dict[str, list[float]]] = {}
    for key in CURVES:
        by_task = curves.get(key, {})
        for task, points in by_task.items() if isinstance(by_task, dict) else ():
            whole = isinstance(points, list) and 2 <= len(points) <= MOST_POINTS
            if not whole or not all(isinstance(p, (int, float)) and abs(p) <= GREATEST for p in points):
                raise InputError(f'"curves": {key} of {printable(task)[:40]} is no list of numbers')
            found.setdefault(key, {})[canonical(task)[:MOST_LETTERS]] = points
    return {"id": records.check_id(row["id"]), "curves": found}


_CHECKS: dict[str, Callable[[dict], dict]] = {
    "eval": _eval,
    "shortcut": _shortcut,
    "compare": _compare,
    "tune": _tune,
    "features": _features,
    "regress": _regress,
    "view": _view,
    "curves": _curves,
}


# CSV: ours, which have the keys of the rows as columns, and the study's


def from_csv(stream: BinaryIO, name: str) -> Iterator[Located | Failure | Stranger]:
    table = csvtext.read_table(stream, name)
    of_row = _study_reader(table.header, name) or (lambda row: [row])
    for where, cells in table.rows():
        try:
            if isinstance(cells, InputError):
                raise cells
            made = of_row({c: (cell or None) if c in _TEXTS else _value(cell) for c, cell in cells.items()})
        except InputError as error:
            yield Failure(where, str(error))
        else:
            yield from (checked(Located(where, row)) for row in made)


_TEXTS = {
    "",
    "metric",
    "task",
    "by",
    "id",
    "img_id",
    "name",
    "for",
    "feature",
    "model",
    "slice",
    "resample",
    "paired",
    "reason",
    "note",
    "Linear regression coefficients",
    "Spearman correlations",
}


def _value(text: str) -> object:
    """What a cell holds: a number, true or false, None where it is empty or not finite, else text."""
    if text in ("True", "False"):
        return text == "True"
    try:
        number = int(text) if re.fullmatch(r"-?\d{1,15}", text) else float(text or "nan")
    except ValueError:
        return text
    return number if math.isfinite(number) else None


def _study_reader(header: list[str], name: str) -> Callable[[dict], list[dict]] | None:
    """What makes rows of a row of one of the study's files, told by its columns; None for a file of our own.

    Raises NoResults for what no report shows.
    """
    metric = study_csv.metric_of(name) or ("hit" if "hit" in PurePath(name).name else "iou")
    columns = {column for column in header if not csvtext.is_index(column)}
    if columns == {"name", "lower", "mean", "upper"}:
        return lambda row: [{"metric": metric, "task": row["name"]} | row]
    if columns >= {"hb", "pred", "pct_diff", "pct_diff_lower", "pct_diff_upper"}:
        return lambda row: [_study_decrease(row, metric)]
    if columns == {"threshold", "task"}:
        return lambda row: [{"metric": "iou", "for": "threshold", "best": True} | row]
    if columns == {"prob_threshold", "mIoU", "task"}:
        return lambda row: [
            {"metric": "iou", "for": "cutoff", "task": row["task"], "cutoff": row["prob_threshold"], "iou": row["mIoU"]}
        ]
    if "Linear regression coefficients" in columns:
        return lambda row: [_study_regression(row, name, metric)]
    if "img_id" in columns:
        feature = study_csv.FEATURES_FILES.get(PurePath(name).name.removesuffix(".gz"))
        if feature is None:
            raise NoResults(f"{name}: per-image results; give the summary")
        return lambda row: _study_features(row, feature)
    if columns & {"metric", "id"}:
        return None
    raise NoResults(f"{name}: no columns of results ({printable(', '.join(header))[:80]})")


def _study_decrease(row: dict, metric: str) -> dict:
    return {
        "metric": metric,
        "task": next((value for column, value in row.items() if csvtext.is_index(column)), None),
        "pct_decrease": row["pct_diff"],
        "pred": row["pred"],
        "ref": row["hb"],
        "lower": row["pct_diff_lower"],
        "upper": row["pct_diff_upper"],
    }


_ESTIMATE = re.compile(r"(\S+), \((\S+), (\S+)\)\**")


def _study_regression(row: dict, name: str, metric: str) -> dict:
    """A row such as `Overall,area_ratio,"0.156, (-0.1, 0.413)*"`; the file's name says of which metric."""
    stem = PurePath(name).name
    metric += "_diff" if "_diff" in stem else "_hb" if "_hb" in stem else ""
    found = {"metric": metric, "task": row.get("task"), "feature": row.get("feature", "score"), "model": "single"}
    found["feature"] = {"n_instance": "num_instances"}.get(found["feature"], found["feature"])
    if isinstance(row.get("n"), (int, float)):
        found["n"] = int(row["n"])
    for column, names in (
        ("Linear regression coefficients", ("slope", "lower", "upper")),
        ("Spearman correlations", ("spearman", "spearman_lower", "spearman_upper")),
    ):
        if column in row:
            parts = _ESTIMATE.fullmatch(str(row[column]))
            if not parts:
                raise InputError(f"{str(row[column])[:40]!r} is not an estimate with its interval")
            found |= {key: _finite(part) for key, part in zip(names, parts.groups())}
    return found


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{text[:40]!r} is not a number") from None
    return value if math.isfinite(value) else None


def _study_features(row: dict, feature: str) -> list[dict]:
    """A row per task with this one feature: of each CXR and task there are four such rows, one from each file."""
    rows = []
    for task, value in row.items():
        if task != "img_id" and not csvtext.is_index(task):
            if feature == "rec_area_ratio" and isinstance(value, float):
                value, name = 1 - value, "irrectangularity"
            else:
                name = feature.replace("rec_area_ratio", "irrectangularity")
            rows.append({"id": row["img_id"], "task": task, "area_ratio": None, "feature": name, name: value})
    return rows
