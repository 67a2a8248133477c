"""chex-report: results of one or many runs as rows of a leaderboard, figures, and one HTML page that needs no network.

Figures are made of what the other commands wrote; no number is computed anew except quartiles and ranks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chextools.errors import InputError
from chextools.plumbing.files import atomic, check_target, make_folder
from chextools.records.records import Failure
from chextools.reporting import drawing, gallery, leaderboard, metrics, page, studies
from chextools.reporting.drawing import Drawing
from chextools.reporting.leaderboard import rows, text
from chextools.reporting.page import Column, Picture, Section, Table
from chextools.reporting.parts import MAIN, count, listed, name_of
from chextools.reporting.runs import Run, Runs, read

__all__ = [
    "Report",
    "Run",
    "Runs",
    "build",
    "page_of",
    "plot_files",
    "read",
    "rows",
    "text",
    "write_file",
    "write_plots",
]


@dataclass
class Report:
    """What a page shows. items: pictures that could not be read, as failures."""

    title: str
    lead: str
    sections: list[Section] = field(default_factory=list)
    items: list[Failure] = field(default_factory=list)

    @property
    def drawings(self) -> list[tuple[str, Drawing]]:
        """The figures, each with a name for its file; those inside a run's details are not among them."""
        return [(figure.name, figure.drawing) for section in self.sections for figure in section.figures]


def build(runs: Sequence[Run], title: str = "", pictures: int = 6) -> Report:
    """All sections for which there are results. pictures: best and worst overlays of each run, so many of each."""
    names = listed([run.name for run in runs], 3)
    report = Report(title or ("Leaderboard" if leaderboard.is_board(runs) else names), _lead(runs))
    overlays = _gallery(runs, pictures, report.items)  # first, as a picture that fails counts among the settings
    sections = [
        _settings(runs),
        leaderboard.section(runs),
        metrics.by_task(runs),
        studies.decrease(runs),
        studies.features(runs),
        studies.tuning(runs),
        studies.regressions(runs),
        overlays,
        metrics.details(runs),
    ]
    report.sections = [section for section in sections if section is not None]
    return report


def page_of(report: Report) -> str:
    return page.render(report.title, report.lead, report.sections)


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
            "compare": "decrease",
            "tune": "tuning",
            "features": "features",
            "regress": "regression",
            "view": "pictures",
        }
        metrics = [name_of(metric) for metric in run.by_metric] + [k for kind, k in kinds.items() if run.rows[kind]]
        table.append(
            [
                run.name,
                run.role,
                ", ".join(metrics),
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


def _gallery(runs: Sequence[Run], most: int, failures: list[Failure]) -> Section | None:
    having = [run for run in runs if run.rows["view"]]
    if not having or not most:
        return None
    share = max(1, min(most, gallery.MOST // (2 * min(len(having), gallery.MOST // 2))))
    section = Section(
        "gallery", "Gallery", ["The overlays that match the truth best and worst, by IoU where it is known."]
    )
    if share < most:
        section.notes.append(f"So many runs that only {share} best and {share} worst of each are shown.")
    for run in having[: gallery.MOST // 2]:
        views = gallery.views_of(run.rows["view"])
        for words, chosen in zip(("Best", "Worst"), gallery.extremes(views, share)):
            shown = []
            for view in chosen:
                try:
                    shown.append((view, *gallery.embedded(view.picture)))
                except InputError as error:
                    failures.append(Failure(f"{run.sources[0]}: {view.id}", str(error)))
                    run.failed += 1
            if shown:
                heading = words if len(having) == 1 else f"{words}, {run.name}"
                section.pictures.append(
                    (
                        heading,
                        [
                            Picture(uri, width, height, view.task, view.id, view.words)
                            for view, uri, width, height in shown
                        ],
                    )
                )
    return section if section.pictures else None


# Files


def plot_files(report: Report) -> dict[str, bytes]:
    """File name to content: each figure as SVG and as PNG."""
    files: dict[str, bytes] = {}
    for name, made in report.drawings:
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
