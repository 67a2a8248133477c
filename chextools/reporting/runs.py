"""Results of runs, as a report takes them: rows of chex-eval, chex-compare, chex-tune, chex-features and chex-regress,
pictures of chex-view, and the study's CSV files, all told apart by what is in them.

A file is the results of one run, a folder those of one run in several files; the run is named after it.
"""

from __future__ import annotations

import io
import itertools
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import BinaryIO

from chextools.errors import InputError, printable
from chextools.inputs import inputs
from chextools.metrics.catalogue import FEATURES
from chextools.plumbing import csvtext, streams
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.results import study_csv
from chextools.results.results import AVERAGE
from chextools.tasks import canonical

log = logging.getLogger(__name__)

KINDS = ("eval", "compare", "tune", "features", "regress", "view")
ROLES = ("model", "human", "floor")
SUMMARIES = (AVERAGE, "Competition")  # rows over several tasks, and no task's
MOST_ROWS = 500_000  # of a file
MOST_LETTERS = 300  # of a name
GREATEST = 1e12  # number: no metric, percentage or slope is beyond

_EXTENSIONS = (".jsonl", ".json", ".csv")
_FLOORS = {"random", "centre", "center", "mean", "filesize", "thumbnail"}  # methods that look at no lesion
_HUMANS = {"human", "humans", "humanbenchmark", "hb", "radiologist", "radiologists"}
_BENCHMARK = "_humanbenchmark"


@dataclass
class Run:
    """One run. role: of `ROLES`. rows: by kind. sources: the files. failed: lines of them that could not be used."""

    name: str
    role: str = "model"
    rows: dict[str, list[dict]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    sources: list[str] = field(default_factory=list)
    failed: int = 0
    places: dict[tuple, str] = field(default_factory=dict)  # where each row was read

    def interval(self, metric: str, task: str) -> tuple[float | None, float | None, float | None]:
        """(mean, lower, upper) of a metric of a task, None where undefined."""
        return self.by_metric.get(metric, {}).get(task, (None, None, None))

    @property
    def by_metric(self) -> dict[str, dict[str, tuple]]:
        """metric -> task -> (mean, lower, upper)."""
        if not hasattr(self, "_by_metric"):
            self._by_metric: dict[str, dict[str, tuple]] = {}
            for row in self.rows["eval"]:
                self._by_metric.setdefault(row["metric"], {})[row["task"]] = (row["mean"], row["lower"], row["upper"])
            for by_task in self._by_metric.values():
                means = [mean for mean, _, _ in by_task.values() if mean is not None]
                if means:  # the study's summary has no row of the average, so it has no interval
                    by_task.setdefault(AVERAGE, (sum(means) / len(means), None, None))
        return self._by_metric

    def tasks(self, metric: str) -> list[str]:
        """The tasks that have a value of a metric."""
        found = self.by_metric.get(metric, {})
        return [task for task, (mean, _, _) in found.items() if mean is not None and task not in SUMMARIES]

    @property
    def all_failed(self) -> int:
        """Lines that failed here, and records that failed when the results were made."""
        return self.failed + max((row.get("failed") or 0 for rows in self.rows.values() for row in rows), default=0)


@dataclass
class Runs:
    """All runs, in the order given, and the failures among their lines."""

    runs: list[Run]
    items: list[Located | Failure]


class NoResults(InputError):
    """A file without results: of another kind, or empty."""

    is_other = True


def read(sources: Sequence[str], stdin: BinaryIO, humans: Sequence[str] = (), floors: Sequence[str] = ()) -> Runs:
    """The runs of files, folders and stdin (`-`).

    humans, floors: names of runs that are a human benchmark or a floor; those that are so by their names where none is
    given. Raises InputError where a source cannot be used, or a named run is not there.
    """
    parts: list[tuple[str, str, Run]] = []  # source, name, run
    items: list[Located | Failure] = []
    for source in sources:
        if source != "-" and os.path.isdir(source):
            for run in _folder(source, items):
                parts.append((source, run.name, run))
        else:
            run = Run(_stem(source), sources=["stdin" if source == "-" else source])
            _read_into(run, source, stdin, items)
            parts.append((source, run.name, run))
    names = distinct([source for source, _, _ in parts], [name for _, name, _ in parts])
    runs = [run for _, _, run in parts]
    for run, name in zip(runs, names):
        run.name = name
    for role, wanted in (("human", humans), ("floor", floors)):
        for name in wanted:
            if name not in names:
                raise InputError(f"--{role}-run {name}: no run of that name; there are {', '.join(names[:10])}")
    for run in runs:
        run.role = _role(run, humans, floors)
    return Runs(runs, items)


def distinct(sources: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names, with the folders before them as far as they are needed to tell equal ones apart."""
    found = list(names)
    for depth in range(1, 20):
        again = {name for name in found if found.count(name) > 1}
        if not again:
            return found
        for k, name in enumerate(found):
            folders = [part for part in PurePath(os.path.abspath(sources[k])).parent.parts if part != "/"]
            if name in again and depth <= len(folders):
                found[k] = "/".join([*folders[-depth:], names[k]])
    return [f"{name} ({found[: k + 1].count(name)})" if found.count(name) > 1 else name for k, name in enumerate(found)]


def _stem(source: str) -> str:
    """A run's name from a path: without folders, .gz and the extension."""
    if source == "-":
        return "stdin"
    name = PurePath(os.path.abspath(source)).name.removesuffix(".gz")
    for extension in _EXTENSIONS:
        name = name.removesuffix(extension) or name
    return name[:MOST_LETTERS] or "run"


def _role(run: Run, humans: Sequence[str], floors: Sequence[str]) -> str:
    words = re.split(r"[^a-z]+", run.name.lower())
    last = run.name.rpartition("/")[2].lower()
    is_human = run.name in humans if humans else bool(_HUMANS.intersection(words)) or _BENCHMARK in run.name.lower()
    is_floor = run.name in floors if floors else "floor" in words or last in _FLOORS
    return "human" if is_human else "floor" if is_floor else "model"


def _folder(folder: str, items: list) -> list[Run]:
    """The run of a folder's result files, and that of the human benchmark where some are named so."""
    runs = {name: Run(name) for name in (_stem(folder), f"{_stem(folder)} human benchmark")}
    model, human = runs.values()
    for path in sorted(Path(folder).iterdir()):
        plain = path.name.removesuffix(".gz")
        if path.name.startswith(".") or not plain.endswith(_EXTENSIONS) or not path.is_file():
            continue
        run = human if _BENCHMARK in path.name else model
        try:
            _read_into(run, str(path), io.BytesIO(), items)
            run.sources.append(str(path))
        except NoResults as error:
            log.log(logging.INFO if error.is_other else logging.WARNING, "%s; left out", error)
    if not any(run.sources for run in runs.values()):
        raise InputError(f"{folder}: no results in it")
    return [run for run in runs.values() if run.sources]


def _read_into(run: Run, source: str, stdin: BinaryIO, items: list) -> None:
    """Add a file's rows to a run. Raises NoResults if it holds none."""
    name = "stdin" if source == "-" else source
    with streams.open_source(source, stdin) as stream:
        if streams.is_json(stream):
            found = (_checked(item) for item in inputs.objects(stream, name))
        else:
            found = _from_csv(stream, name)
        found = list(itertools.islice(found, MOST_ROWS + 1))
    if len(found) > MOST_ROWS:
        raise InputError(f"{name}: more than {MOST_ROWS} rows")
    if not found:
        error = NoResults(f"{name}: no records")
        error.is_other = False
        raise error
    stranger = next((item for item in found if isinstance(item, _Stranger)), None)
    if stranger and not any(isinstance(item, Located) for item in found):
        raise NoResults(f"{stranger.where}: {stranger.reason}")
    _, found = records.peek(found, name)
    for item in found:
        if isinstance(item, Located):
            kind, row = item.record["kind"], item.record["row"]
            key = _key(kind, row)
            if key in run.places:
                item = Failure(item.where, f"duplicate {_called(kind, row)}, first at {run.places[key]}")
            else:
                run.places[key] = item.where
                run.rows[kind].append(row)
        if isinstance(item, Failure):
            run.failed += 1
        items.append(item)


class _Stranger(Failure):
    """An object that is no result at all."""


def _key(kind: str, row: dict) -> tuple:
    names = ("metric", "task", "id", "feature", "model", "for", "threshold", "cutoff", "score_threshold")
    return (kind, *(row.get(name) for name in names))


def _called(kind: str, row: dict) -> str:
    if "id" in row:
        return f"id {row['id']!r}"
    return " ".join(str(row[name]) for name in ("metric", "task", "feature") if row.get(name) is not None)


# Rows, checked


def _checked(item: Located | Failure) -> Located | Failure:
    if isinstance(item, Failure):
        return item
    try:
        kind = _kind(item.record)
    except NoResults as error:
        return _Stranger(item.where, str(error))
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
        return "eval"
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
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _details(row: dict, names: Sequence[str]) -> dict:
    """What else the row says under these names, as far as it is a number, short text, true or false."""
    found = {}
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
        "reason",
    )
    return start | _numbers(row, ("mean", "lower", "upper")) | _details(row, details)


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


_CHECKS: dict[str, Callable[[dict], dict]] = {
    "eval": _eval,
    "compare": _compare,
    "tune": _tune,
    "features": _features,
    "regress": _regress,
    "view": _view,
}


# CSV: ours, which have the keys of the rows as columns, and the study's


def _from_csv(stream: BinaryIO, name: str) -> Iterator[Located | Failure]:
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
            yield from (_checked(Located(where, row)) for row in made)


_TEXTS = {
    "",
    "metric",
    "task",
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
