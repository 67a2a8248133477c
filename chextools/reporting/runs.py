"""Results of runs, as a report takes them: the rows of their files, and what is read off them.

A file is the results of one run, a folder those of one run in several files; the run is named after it.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import BinaryIO

from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.plumbing import streams
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.records.tally import unseen
from chextools.reporting.rows import KINDS, MOST_LETTERS, NoResults, Stranger, checked, from_csv
from chextools.results.results import AVERAGE

log = logging.getLogger(__name__)

SUMMARIES = (AVERAGE, "Competition")  # rows over several tasks, and no task's
MOST_ROWS = 500_000  # of a file

_EXTENSIONS = (".jsonl", ".json", ".csv")
_FLOORS = {"random", "centre", "center", "mean", "filesize", "exposure", "thumbnail"}  # methods that look at no lesion
_HUMANS = {"human", "humans", "humanbenchmark", "hb", "radiologist", "radiologists"}
_BENCHMARK = "_humanbenchmark"


@dataclass
class Run:
    """One run.

    role: model, human or floor. rows: by kind. sources: the files. failed: lines of them that could not be used.
    """

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

    def row(self, metric: str, task: str) -> dict:
        """The row of chex-eval or chex-probe; empty where there is none."""
        return next((row for row in self.rows["eval"] if (row["metric"], row["task"]) == (metric, task)), {})

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


def read_runs(
    sources: Iterable[str],
    stdin: BinaryIO,
    humans: Sequence[str] = (),
    floors: Sequence[str] = (),
    progress: Callable[..., Iterable] = unseen,
) -> Runs:
    """The runs of files, folders and stdin (`-`).

    humans, floors: names of runs that are a human benchmark or a floor; those that are so by their names where none is
    given. progress: as of `Tally`. Raises InputError where a source cannot be used, or a named run is not there.
    """
    parts: list[tuple[str, str, Run]] = []  # source, name, run
    items: list[Located | Failure] = []
    steps = progress(itertools.repeat(None), "rows")
    for source in sources:
        if source != "-" and os.path.isdir(source):
            parts += [(source, run.name, run) for run in _folder(source, items, steps)]
        else:
            run = Run(_stem(source), sources=["stdin" if source == "-" else source])
            _read_into(run, source, stdin, items, steps)
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


def _folder(folder: str, items: list, steps: Iterable[None]) -> list[Run]:
    """The run of a folder's result files, and that of the human benchmark where some are named so."""
    runs = {name: Run(name) for name in (_stem(folder), f"{_stem(folder)} human benchmark")}
    model, human = runs.values()
    for path in sorted(Path(folder).iterdir()):
        plain = path.name.removesuffix(".gz")
        if path.name.startswith(".") or not plain.endswith(_EXTENSIONS) or not path.is_file():
            continue
        run = human if _BENCHMARK in path.name else model
        try:
            _read_into(run, str(path), io.BytesIO(), items, steps)
            run.sources.append(str(path))
        except NoResults as error:
            log.log(logging.INFO if error.is_other else logging.WARNING, "%s; left out", error)
    if not any(run.sources for run in runs.values()):
        raise InputError(f"{folder}: no results in it")
    return [run for run in runs.values() if run.sources]


def _read_into(run: Run, source: str, stdin: BinaryIO, items: list, steps: Iterable[None]) -> None:
    """Add a file's rows to a run. steps: moves on by one with each. Raises NoResults if it holds none."""
    name = "stdin" if source == "-" else source
    with streams.open_source(source, stdin) as stream:
        rows: Iterator[Located | Failure | Stranger]
        if streams.is_json(stream):
            rows = (checked(item) for item in inputs.objects(stream, name))
        else:
            rows = from_csv(stream, name)
        found = [item for item, _ in zip(itertools.islice(rows, MOST_ROWS + 1), steps)]
    if len(found) > MOST_ROWS:
        raise InputError(f"{name}: more than {MOST_ROWS} rows")
    if not found:
        error = NoResults(f"{name}: no records")
        error.is_other = False
        raise error
    stranger = next((item for item in found if isinstance(item, Stranger)), None)
    if stranger and not any(isinstance(item, Located) for item in found):
        raise NoResults(f"{stranger.where}: {stranger.reason}")
    _, usable = records.peek([item.as_failure() if isinstance(item, Stranger) else item for item in found], name)
    for item in usable:
        if isinstance(item, Located):
            kind, row = item.record["kind"], item.record["row"]
            key = _key(kind, row)
            if key in run.places:
                item = Failure(item.where, f"duplicate {_called(row)}, first at {run.places[key]}")
            else:
                run.places[key] = item.where
                run.rows[kind].append(row)
        if isinstance(item, Failure):
            run.failed += 1
        items.append(item)


def _key(kind: str, row: dict) -> tuple:
    names = ("metric", "task", "by", "id", "feature", "model", "for", "threshold", "cutoff", "score_threshold")
    return (kind, *(row.get(name) for name in names))


def _called(row: dict) -> str:
    if "id" in row:
        return f"id {row['id']!r}"
    return " ".join(str(row[name]) for name in ("metric", "task", "by", "feature") if row.get(name) is not None)
