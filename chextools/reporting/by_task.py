"""Sections of metrics by task: all runs together, and each run's details."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from chextools.reporting import figures
from chextools.reporting.leaderboard import ranked
from chextools.reporting.page import Column, Figure, Linked, Name, RunDetails, Section, Table
from chextools.reporting.parts import MAIN, MOST_MODELS, NAMES, ROLE_WORDS, name_of, rows_table, series
from chextools.reporting.runs import Run
from chextools.results.results import AVERAGE
from chextools.tasks import study_order

Links = Mapping[tuple[str, str], str]
NO_LINKS: Links = {}
MOST_BENCHMARKS = 2  # human benchmarks, and as many floors, in one figure


def shown_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs that figures by task show: a few models, the best first, beside human benchmarks and floors."""
    board = [run for run, _ in ranked(runs)]
    few = {"human": MOST_BENCHMARKS, "model": MOST_MODELS, "floor": MOST_BENCHMARKS}
    measured = [run for run in board if any(run.tasks(metric) for metric in MAIN)]
    return [run for role, most in few.items() for run in [r for r in measured if r.role == role][:most]]


def section(runs: Sequence[Run], links: Links = NO_LINKS) -> Section | None:
    """Figures of all runs by task and, of several, their numbers. links: by (run, task), to its pictures."""
    chosen = shown_runs(runs)
    made = task_figures(chosen, links=links)
    if not made:
        return None
    section = Section("tasks", "By task", figures=made, tables=matrices(runs, links))
    models = sum(run.role == "model" and any(run.tasks(metric) for metric in MAIN) for run in runs)
    shown = sum(run.role == "model" for run in chosen)
    if shown < models:
        section.notes.append(f"The first {shown} of {models} runs; each run's own figures are in its details below.")
    if not any(run.role == "human" for run in runs):
        section.notes.append("No human benchmark was given.")
    if not any(run.role == "floor" for run in runs):
        section.notes.append("No floor was given: nothing shows what a method reaches that does not look at the image.")
    return section


def matrices(runs: Sequence[Run], links: Links) -> list[Table]:
    """By metric, a row per run and a column per task; of several runs."""
    made = []
    for metric in MAIN:
        having = [run for run, _ in ranked(runs) if run.tasks(metric)]
        if len(having) < 2:
            continue
        tasks = [*study_order({task for run in having for task in run.tasks(metric)}), AVERAGE]
        columns = [Column("run", "Run", link=True)]
        columns += [Column(_key(task), task, 3, task=task if task != AVERAGE else "") for task in tasks]
        rows: list[list] = [
            [
                Name(run.name, ROLE_WORDS[run.role]),
                *(_linked(run.interval(metric, task)[0], links.get((run.name, task), "")) for task in tasks),
            ]
            for run in having
        ]
        made.append(
            Table(
                f"{metric}_by_run_and_task", f"{NAMES[metric]} by run and task", columns, rows, metric=name_of(metric)
            )
        )
    return made


def _key(task: str) -> str:
    """A task as a column of a CSV: nothing in it parts cells or begins a formula."""
    return re.sub(r"[^\w .()/-]+", "_", task, flags=re.ASCII).lstrip("- ") or "_"


def _linked(value: object, link: str) -> object:
    return Linked(value, link) if link and value is not None else value


def task_figures(runs: Sequence[Run], tips: bool = True, links: Links = NO_LINKS) -> list[Figure]:
    made = []
    for metric in MAIN:
        having = [run for run in runs if run.tasks(metric)]
        tasks = study_order(task for run in having for task in run.tasks(metric))
        if not tasks:
            continue
        values = {run.name: run.by_metric[metric] for run in having}
        drawn = figures.dot_intervals(
            f"{NAMES[metric]} by task",
            f"{NAMES[metric]}, 95% interval",
            [*tasks, AVERAGE],
            series(having, runs, values),
            last=[AVERAGE],
            least=0.0 if metric != "auroc" else None,
            greatest=1.0 if metric == "auroc" else None,
            reference=0.5 if metric == "auroc" else None,
            tips=tips,
            links=links,
        )
        note = "Dotted: chance." if metric == "auroc" else ""
        made.append(Figure(f"{metric}_by_task", NAMES[metric], drawn, note, name_of(metric)))
    return made


def details(runs: Sequence[Run], links: Links = NO_LINKS) -> Section | None:
    measured = [run for run in runs if run.rows["eval"]]
    if not measured:
        return None
    section = Section("runs", "Runs" if len(measured) > 1 else "Results")
    benchmarks = [run for role in ("human", "floor") for run in [r for r in measured if r.role == role][:1]]
    models = sum(run.role == "model" for run in measured)  # of one, the figures stand above
    for run in measured:
        shown = [b for b in benchmarks if b.role == "human" and b is not run] + [run]
        shown += [b for b in benchmarks if b.role == "floor" and b is not run]
        columns = [
            Column("metric", "Metric"),
            Column("task", "Task"),
            Column("mean", "Mean", 3),
            Column("lower", "Lower", 3),
            Column("upper", "Upper", 3),
            Column("chance", "Chance", 3),
            Column("floor", "Centre", 3),
            Column("n", "CXRs", 0),
            Column("positives", "Positives", 0),
            Column("misses_as_0", "Misses as 0", 3),
            Column("replicates", "Replicates", 0),
            Column("failed", "Failed", 0),
            Column("reason", "Note"),
        ]
        table = rows_table(f"{run.name}", f"Results of {run.name}", columns, [run], "eval")
        table.rows = [
            [_detail_cell(column.key, value, run, links) for column, value in zip(table.columns, row)]
            for row in table.rows
        ]
        made = task_figures(shown, tips=False) if run.role == "model" and models > 1 else []
        section.runs.append(RunDetails(run.name, ROLE_WORDS[run.role], made, table, is_open=len(measured) <= 3))
    return section


def _detail_cell(key: str, value: object, run: Run, links: Links) -> object:
    if key == "metric":
        return {"IoU": "mIoU", "hit": "Hit rate"}.get(str(value), name_of(str(value)))
    return _linked(value, links.get((run.name, str(value)), "")) if key == "task" else value
