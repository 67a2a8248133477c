"""The leaderboard: runs ranked by mean IoU and hit rate, as rows, in words, and as a section of the page."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from chextools.metrics.catalogue import CLASSIFICATION, LOCALISATION, PROBED
from chextools.reporting import figures, ranking
from chextools.reporting.figures import Series
from chextools.reporting.page import Column, Figure, Name, Section, Table
from chextools.reporting.parts import MAIN, NAMES, ROLE_WORDS, count, listed, within
from chextools.reporting.rows import BESIDE
from chextools.reporting.runs import Run
from chextools.results import tables
from chextools.results.results import AVERAGE
from chextools.tasks import study_order

log = logging.getLogger(__name__)

RANKED = ("iou", "hit")  # the metrics that rank runs, the first of which orders them
MOST_RANKED = 25  # rows of the figures
_COLUMNS = (
    "run",
    "role",
    "iou",
    "iou_lower",
    "iou_upper",
    "iou_rank",
    "hit",
    "hit_lower",
    "hit_upper",
    "hit_rank",
    "auroc",
    "auroc_lower",
    "auroc_upper",
    "tasks",
    "failed",
)
_ROLES = (
    ("model", "run", "s0", "dot"),
    ("human", "human benchmark", "human", "diamond"),
    ("floor", "floor", "floor", "ring"),
)


def ranked(runs: Sequence[Run]) -> list[tuple[Run, dict[str, ranking.Place]]]:
    """The runs, best mean IoU first, with their places by metric; human benchmarks and floors stand among them
    without a rank, runs without a metric at the end."""
    takes_part = [run.role == "model" for run in runs]
    by_metric = {m: ranking.places([run.interval(m, AVERAGE) for run in runs], takes_part) for m in MAIN}
    found = [(run, {metric: by_metric[metric][k] for metric in MAIN}) for k, run in enumerate(runs)]

    def order(pair: tuple[Run, dict]) -> tuple:
        means = [pair[1][metric].mean for metric in MAIN]
        return tuple((mean is None, -(mean or 0)) for mean in means)

    return sorted(found, key=order)


def rows(runs: Sequence[Run]) -> list[dict]:
    """One row per run, as chex-report writes them to stdout."""
    found = []
    for run, places in ranked(runs):
        row: dict = {"run": run.name, "role": run.role}
        for metric in MAIN:
            place = places[metric]
            row |= {metric: place.mean, f"{metric}_lower": place.lower, f"{metric}_upper": place.upper}
            if metric in RANKED:
                row |= {f"{metric}_rank": place.rank, f"{metric}_overlaps_first": place.overlaps}
        tasks = {task for metric in MAIN for task in run.tasks(metric)}
        found.append(row | {"tasks": len(tasks), "failed": run.all_failed})
    return found


def rows_by_task(runs: Sequence[Run], metrics: Sequence[str] = MAIN) -> list[dict]:
    """One row per metric and task, then the average: under "runs" each run's mean, lower and upper, by its name."""
    found = []
    for metric in metrics:
        tasks = {task for run in runs for task in run.tasks(metric)}
        for task in [*study_order(tasks), AVERAGE] if tasks else []:
            intervals = {run.name: run.interval(metric, task) for run in runs}
            found.append(
                {
                    "metric": metric,
                    "task": task,
                    "runs": {name: dict(zip(("mean", "lower", "upper"), found)) for name, found in intervals.items()},
                }
            )
    return found


def rows_by_metric(runs: Sequence[Run]) -> list[dict]:
    """As `rows_by_task`, of every metric that a run has; beside a run's mean its CXRs ("n"), chance and floor."""
    had = {metric for run in runs for metric in run.by_metric}
    known = [*MAIN, *LOCALISATION, *CLASSIFICATION, *PROBED]
    found = rows_by_task(runs, sorted(had, key=lambda m: (known.index(m) if m in known else len(known), m)))
    for row in found:
        for run in runs:
            of_run = run.row(row["metric"], row["task"])
            row["runs"][run.name] |= {key: of_run.get(key) for key in ("n", *BESIDE)}
    return found


def text(runs: Sequence[Run], by: str, output_format: str) -> str:
    """The rows by "run", by "task" or by "metric", in one of `words.ROWS`."""
    if by == "run":
        return tables.write(rows(runs), output_format, _COLUMNS)
    found = rows_by_metric(runs) if by == "metric" else rows_by_task(runs)
    if output_format == "jsonl":
        return tables.write(found, output_format)
    flat = []
    for row in found:
        line = {"metric": row["metric"], "task": row["task"]}
        if by == "metric" and output_format == "table":
            line |= {key: _range([one[key] for one in row["runs"].values()]) for key in ("n", *BESIDE)}
        for name, one in row["runs"].items():
            if output_format == "csv":
                line |= {f"{name} {key}": value for key, value in one.items()}
            else:
                line |= {
                    f"{name} ": _spelled(one["mean"], one["lower"], one["upper"])
                }  # the space keeps a run's name from being a column of ours
        flat.append(line)
    return tables.write(flat, output_format, list(flat[0]) if flat else [])


def _spelled(mean: float | None, lower: float | None, upper: float | None) -> str | None:
    if mean is None or lower is None or upper is None:
        return None if mean is None else f"{mean:.3f}"
    return f"{mean:.3f} [{lower:.3f}, {upper:.3f}]"


def _range(values: Sequence[float | None]) -> str | None:
    """From the least to the most of several runs' values in a cell; one number where these are written alike."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    least, most = (f"{end:.3f}" if isinstance(end, float) else str(end) for end in (min(known), max(known)))
    return least if least == most else f"{least} to {most}"


def leaders(metric: str, board: Sequence[tuple[Run, dict[str, ranking.Place]]]) -> str:
    """In words: who leads, and whose intervals overlap with the leader's."""
    models = [(run, places[metric]) for run, places in board if places[metric].rank]
    models.sort(key=lambda pair: pair[1].rank or 0)
    if len(models) < 2:
        return ""
    (first, place), rest = models[0], models[1:]
    name = within(metric)
    numbers = figures.spelled((place.mean, place.lower, place.upper), 3)
    ties = [run.name for run, other in rest if other.rank == 1]
    start = f"By {name}, {first.name} comes first: {numbers}."
    if ties:
        start = f"By {name}, {listed([first.name, *ties])} share the first place: {numbers}."
    overlapping = [run.name for run, other in rest if other.overlaps]
    unknown = [run.name for run, other in rest if other.overlaps is None and other.rank != 1]
    if place.lower is None or place.upper is None:
        return f"{start} It has no interval, so nothing says how sure that is."
    said = []
    if overlapping:
        told = "the two" if len(overlapping) == 1 and not ties else "these runs"
        verb = "interval of" if len(overlapping) == 1 else "intervals of"
        does = "overlaps" if len(overlapping) == 1 else "overlap"
        said.append(f"The {verb} {listed(overlapping)} {does} with that: these CXRs do not clearly tell {told} apart.")
    elif len(unknown) + len(ties) < len(rest):
        said.append("No other interval overlaps with that.")
    if unknown:
        said.append(f"{listed(unknown)} {'has' if len(unknown) == 1 else 'have'} no interval to compare.")
    return " ".join([start, *said])


def is_board(runs: Sequence[Run]) -> bool:
    return sum(run.role == "model" and any(run.tasks(metric) for metric in MAIN) for run in runs) > 1


def section(runs: Sequence[Run]) -> Section | None:
    if not is_board(runs):
        return None
    board = [(run, places) for run, places in ranked(runs) if any(places[m].mean is not None for m in MAIN)]
    metrics = [m for m in MAIN if any(places[m].mean is not None for _, places in board)]
    columns = [Column("run", "Run", link=True)]
    columns += [Column(m, NAMES[m], 3, ("", "_lower", "_upper", "_rank", "_compared")) for m in metrics]
    columns.append(Column("failed", "Failed", 0))
    table = [[Name(run.name, ROLE_WORDS[run.role]), *(p[m] for m in metrics), run.all_failed] for run, p in board]
    section = Section("leaderboard", "Ranking", [s for s in (leaders(m, board) for m in metrics) if s])
    section.notes.append(
        "Means over tasks, with 95% intervals. “Overlaps” and “apart” say whether the interval of a run overlaps with "
        "that of the first in its column. Runs whose intervals overlap may still differ: chex-compare tests a pair on "
        "the same CXRs."
    )
    section.tables.append(Table("leaderboard", "Runs by mIoU, hit rate and AUROC", columns, table, sortable=True))
    for metric in metrics:
        known = [(run, p[metric]) for run, p in board if p[metric].mean is not None]
        known.sort(key=lambda pair: -(pair[1].mean or 0))
        models = [run.name for run, _ in known if run.role == "model"][:MOST_RANKED]
        shown = [(run, place) for run, place in known if run.role != "model" or run.name in models]
        series = [
            Series(words, ink, mark, {r.name: (p.mean, p.lower, p.upper) for r, p in shown if r.role == role})
            for role, words, ink, mark in _ROLES
            if any(r.role == role for r, _ in shown)
        ]
        made = figures.dot_intervals(
            f"{NAMES[metric]} of runs, mean over tasks",
            f"{NAMES[metric]}, mean over tasks, 95% interval",
            [run.name for run, _ in shown],
            series,
            least=0.0 if metric != "auroc" else None,
            stacked=False,
            reference=0.5 if metric == "auroc" else None,
        )
        beyond = sum(run.role == "model" for run, _ in known) - len(models)
        note = f"The first {MOST_RANKED} runs; the table has {beyond} more." if beyond > 0 else ""
        section.figures.append(Figure(f"leaderboard_{metric}", NAMES[metric], made, note))
    return section


def different_tasks(runs: Sequence[Run]) -> list[str]:
    """What makes averages of runs incomparable: that they are over different tasks or slices."""
    found = []
    for metric in MAIN:
        by_tasks: dict[tuple, list[str]] = {}
        for run in runs:
            if run.tasks(metric):
                by_tasks.setdefault(tuple(study_order(run.tasks(metric))), []).append(run.name)
        if len(by_tasks) > 1:
            counts = "; ".join(f"{count(len(tasks), 'task')} in {listed(names)}" for tasks, names in by_tasks.items())
            found.append(f"Averages of {within(metric)} are over different tasks and do not compare: {counts}.")
    slices = {row["slice"] for run in runs for row in run.rows["eval"] if row.get("slice")}
    if len(slices) > 1:
        found.append("IoU is of different slices, positive and full: do not compare those.")
    for line in found:
        log.warning("%s", line)
    return found
