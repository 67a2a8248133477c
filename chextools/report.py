"""chex-report: results of one or many runs as rows of a leaderboard, figures, and one HTML page that needs no network.

Figures are made of what the other commands wrote; no number is computed anew except quartiles and ranks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chextools.errors import InputError
from chextools.plumbing.files import atomic, check_target, make_folder
from chextools.records.records import Failure
from chextools.records.tally import unseen
from chextools.reporting import by_task, drawing, gallery, leaderboard, page, questions, studies
from chextools.reporting.drawing import Drawing
from chextools.reporting.leaderboard import rows, text
from chextools.reporting.page import Column, Section, Table
from chextools.reporting.parts import MAIN, count, listed, name_of
from chextools.reporting.runs import Run, Runs, read_runs

__all__ = [
    "Report",
    "Run",
    "Runs",
    "build",
    "build_card",
    "page_of",
    "plot_files",
    "read_runs",
    "rows",
    "text",
    "write_file",
    "write_plots",
]

CARD_PICTURES = 1  # best and worst of each task on a card
_UNKNOWN = (
    "What a saliency map cannot show: whether the network is right, why it errs, or what it would do with another "
    "hospital's images. A map that lies on the lesion need not be what the score rests on; the second question asks "
    "for that. Numbers hold for these images, these outlines and this threshold."
)


@dataclass
class Report:
    """What a page shows. items: pictures that could not be read, as failures. kind: report or card."""

    title: str
    lead: str
    sections: list[Section] = field(default_factory=list)
    items: list[Failure] = field(default_factory=list)
    kind: str = "report"

    @property
    def drawings(self) -> list[tuple[str, Drawing]]:
        """The figures, each with a name for its file; those inside a run's details are not among them."""
        return [(figure.name, figure.drawing) for section in self.sections for figure in section.figures]


def build(
    runs: Sequence[Run], title: str = "", pictures: int = 3, progress: Callable[..., Iterable] = unseen
) -> Report:
    """All sections for which there are results: the ranking first, settings last.

    pictures: best and worst overlays of each run and task, so many of each. progress: as of `Tally`.
    """
    names = listed([run.name for run in runs], 3)
    report = Report(title or ("Leaderboard" if leaderboard.is_board(runs) else names), _lead(runs))
    overlays, links = gallery.section(runs, pictures, report.items, progress)  # first: figures and tables lead to them
    report.sections = _present(
        leaderboard.section(runs),
        *(made(runs) for made in questions.SECTIONS),
        by_task.section(runs, links),
        studies.decrease(runs),
        studies.features(runs),
        studies.tuning(runs),
        studies.regressions(runs),
        overlays,
        by_task.details(runs, links),
        _settings(runs),
    )
    return report


def build_card(runs: Sequence[Run], title: str = "", progress: Callable[..., Iterable] = unseen) -> Report:
    """One run as a model's saliency card: what it is, the verdict, the three questions, tasks, pictures, limits.

    Human benchmarks and floors stand beside it. progress: as of `Tally`. Raises InputError where there is not exactly
    one other run.
    """
    models = [run for run in runs if run.role == "model"]
    if len(models) != 1:
        told = f"there are {len(models)} ({listed([run.name for run in models])})" if models else "there is none"
        raise InputError(f"a card is of one run beside human benchmarks and floors: {told}")
    report = Report(title or f"Saliency card: {models[0].name}", _lead(runs), kind="card")
    overlays, links = gallery.section(models, CARD_PICTURES, report.items, progress)
    report.sections = _present(
        *(made(runs) for made in questions.SECTIONS),
        by_task.section(runs, links),
        overlays,
        Section("limits", "Limits", [_UNKNOWN]),
        _settings(runs),
    )
    return report


def page_of(report: Report) -> str:
    return page.render(report.title, report.lead, report.sections, report.kind)


def _present(*sections: Section | None) -> list[Section]:
    return [section for section in sections if section is not None]


def _lead(runs: Sequence[Run]) -> str:
    measured = [run for run in runs if run.rows["eval"]] or runs
    by_role = {role: sum(run.role == role for run in measured) for role in ("model", "human", "floor")}
    tasks = {task for run in runs for metric in MAIN for task in run.tasks(metric)}
    parts = [count(by_role["model"], "run")] if by_role["model"] else []
    parts += [count(by_role["human"], "human benchmark")] if by_role["human"] else []
    parts += [count(by_role["floor"], "floor")] if by_role["floor"] else []
    return ", ".join(parts) + (f"; {count(len(tasks), 'task')}" if tasks else "")


def _settings(runs: Sequence[Run]) -> Section:
    columns = [
        Column("run", "Run", link=True),
        Column("role", "Role"),
        Column("metrics", "Metrics"),
        Column("resampled", "Resampled by"),
        Column("replicates", "Replicates", 0),
        Column("seed", "Seed"),
        Column("slice", "IoU slice"),
        Column("failed", "Failed", 0),
        Column("files", "Files"),
    ]
    table = []
    for run in runs:
        evaluated = run.rows["eval"]

        def said(key: str, of: Sequence[dict] = evaluated) -> str:
            return ", ".join(dict.fromkeys(str(row[key]) for row in of if row.get(key) is not None))

        kinds = {
            "shortcut": "shortcuts",
            "compare": "decrease",
            "tune": "tuning",
            "features": "features",
            "regress": "regression",
            "view": "pictures",
            "curves": "curves",
        }
        shown = [name_of(metric) for metric in run.by_metric] + [k for kind, k in kinds.items() if run.rows[kind]]
        table.append(
            [
                run.name,
                run.role,
                ", ".join(shown),
                said("resample"),
                max((row.get("replicates") or 0 for row in evaluated), default=0) or None,
                said("seed"),
                said("slice"),
                run.all_failed,
                ", ".join(run.sources),
            ]
        )
    notes = ["Intervals are 95% intervals of bootstrap replicates, as the commands wrote them."]
    notes += leaderboard.different_tasks(runs)
    return Section("settings", "Settings", notes, tables=[Table("settings", "Runs and settings", columns, table)])


# Files


def plot_files(report: Report, progress: Callable[..., Iterable] = unseen) -> dict[str, bytes]:
    """File name to content: each figure as SVG and as PNG. progress: as of `Tally`."""
    files: dict[str, bytes] = {}
    for name, made in progress(report.drawings, "figures"):
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:100]
        while f"{plain}.svg" in files:
            plain += "-2"
        files[f"{plain}.svg"] = drawing.svg(made).encode("utf-8") + b"\n"
        files[f"{plain}.png"] = drawing.png(made)
    return files


def write_plots(folder: str | os.PathLike, files: dict[str, bytes], force: bool = False) -> None:
    """Write the figures into a folder; all names are checked before the first is written."""
    target = make_folder(folder)
    for name in files:
        check_target(target / name, force)
    for name, content in files.items():
        write_file(target / name, content, force)


def write_file(path: str | os.PathLike, content: bytes, force: bool = False) -> None:
    with atomic(Path(path), force) as stream:
        stream.write(content)
