"""Pictures: of one record and task, and of several X-rays on a page."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from chextools import __version__
from chextools.errors import InputError
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.viewing import legend, sketch
from chextools.viewing.overlay import Panel
from chextools.viewing.panels import Case, Subject, digest, legend_of
from chextools.viewing.settings import ViewSettings
from chextools.viewing.sketch import Line, Sketch
from chextools.viewing.target import Target, plain_name
from chextools.viewing.text import wrapped

CAPTION = {"single": 26, "sheet": 17, "grid": 17}  # how wide a caption is at least, in sizes of its text


# A picture per record and task


def draw_single(
    settings: ViewSettings, target: Target, wanted: Collection[str] | None, subject: Subject | Failure
) -> Located | Failure:
    """The record with its pictures of the wanted tasks, None for all."""
    if isinstance(subject, Failure):
        return subject

    def drawn(record: dict) -> dict:
        case = settings.case(subject)
        views = {}
        for task in case.tasks:
            if wanted is None or task in wanted:
                path = target.path(case.id, plain_name(task))
                made_from = digest([__version__, case.digest, task, settings.original, target.theme])
                found = target.finished(path, made_from)
                if found is None:
                    _ = case.image  # what is wrong with it is wrong for all tasks
                    try:
                        picture, found = _single(case, task, settings)
                    except InputError as error:
                        case.failed[task] = str(error)
                        continue
                    target.write(path, picture, made_from, found)
                views[task] = {"picture": str(path)} | found[0]
        return with_views(record, views, case.failed)

    return records.applied(drawn, Located(subject.where, subject.record))


def _single(case: Case, task: str, settings: ViewSettings) -> tuple[Sketch, list[dict]]:
    reading, unit = case.read(task), settings.unit
    panel, ends = case.panel(task, reading)
    drawn = _beside_original(case, sketch.of_panel(panel), settings)
    width = max(drawn.width, round(CAPTION["single"] * unit))
    about = " · ".join(filter(None, [case.method, *case.notes(task, reading)]))
    head = sketch.text_block([Line(task, True, reading.badges), Line(about), Line(case.id)], width, unit)
    signs = legend.drawn(legend_of([panel], [case], ends), width, 0.9 * unit)
    return sketch.stacked([head, drawn, signs], round(0.6 * unit), round(unit)), [reading.numbers]


def _beside_original(case: Case, drawn: Sketch, settings: ViewSettings) -> Sketch:
    """With the X-ray alone at its left, where that is asked for."""
    if not settings.original:
        return drawn
    return sketch.side_by_side([_original(case), drawn], drawn.width, max(2, drawn.width // 100))


def _original(case: Case) -> Sketch:
    size, pixels = case.image
    return sketch.of_panel(Panel(pixels, size))


def with_views(record: dict, views: dict, failed: dict) -> dict:
    record = {key: value for key, value in record.items() if key not in ("views", "failed")}
    return records.ordered(record | ({"failed": failed} if failed else {})) | {"views": views}


# Several X-rays on a picture


@dataclass(frozen=True)
class Page:
    """A picture of several X-rays.

    places: (row, column, which of the subjects, task) of each. columns, rows: what stands above them, if anything.
    """

    path: Path
    heading: Sequence[Line]
    subjects: Sequence[Subject]
    places: Sequence[tuple[int, int, int, str]]
    columns: Sequence[str] = ()
    rows: Sequence[str] = ()


def draw_page(settings: ViewSettings, target: Target, page: Page) -> list[dict] | InputError:
    """Draw a page; the numbers of its places in order, of one that could not be drawn {"failed": reason}."""
    try:
        cases = [settings.case(subject) for subject in page.subjects]
        texts = [[line.text for line in page.heading], list(page.columns), list(page.rows), list(page.places)]
        made_from = digest([__version__, [case.digest for case in cases], texts, settings.original, target.theme])
        found = target.finished(page.path, made_from)
        if found is None:
            picture, found = _compose(cases, page, settings)
            target.write(page.path, picture, made_from, found)
        return found
    except InputError as error:
        return error
    except MemoryError:
        return InputError(f"{page.path}: out of memory")


def _compose(cases: Sequence[Case], page: Page, settings: ViewSettings) -> tuple[Sketch, list[dict]]:
    unit = settings.unit
    gap, least = round(0.8 * unit), round(CAPTION[settings.layout] * unit)
    height = 1 + max((row for row, *_ in page.places), default=0)
    width = max([len(page.columns), *(1 + column for _, column, *_ in page.places)])
    sketch.check_pixels(width * settings.pixels, height * settings.pixels)
    cells: dict[tuple[int, int], Sketch] = {}
    originals: dict[int, Sketch] = {}
    panels, found = [], []
    for row, column, number, task in page.places:
        case = cases[number]
        name = [] if page.columns else [Line(case.id)]
        try:
            if task in case.failed:
                raise InputError(case.failed[task])
            reading = case.read(task)
            panel, _ = case.panel(task, reading)
        except InputError as error:
            cells[row, column] = sketch.text_block([Line("failed"), Line(str(error)), *name], least, unit)
            found.append({"failed": str(error)})
            continue
        drawn = sketch.of_panel(panel)
        if settings.original and page.columns:
            originals.setdefault(row, _original(case))
        else:
            drawn = _beside_original(case, drawn, settings)
        about = Line(" · ".join(case.notes(task, reading)), badges=reading.badges)
        caption = sketch.text_block([about, *name], max(drawn.width, least), unit)
        cells[row, column] = sketch.stacked([drawn, caption], 4, 0)
        panels.append(panel)
        found.append(reading.numbers)
    names = list(page.columns)
    if originals:  # the first column of a grid
        cells = {(row, column + 1): cell for (row, column), cell in cells.items()}
        cells |= {(row, 0): cell for row, cell in originals.items()}
        names, width = ["X-ray", *names], width + 1
    side = max((cell.width for cell in cells.values()), default=least)
    whole = width * (side + gap) - gap
    parts = [sketch.text_block(page.heading, whole, unit)]
    if page.columns:
        titles = [[Line(part, True) for part in wrapped(name, 1.12 * unit, side)] for name in names]
        heads = [sketch.text_block(lines, side, 0.8 * unit) for lines in titles]
        blank = sketch.text_block([Line("no prediction")], side, unit)
        cells = dict.fromkeys(itertools.product(range(height), range(width)), blank) | cells
        parts.append(sketch.side_by_side(heads, side, gap))
    for row in range(height):
        if page.rows:
            parts.append(sketch.text_block([Line(page.rows[row], True)], whole, 0.9 * unit))
        parts.append(sketch.side_by_side([cells.get((row, column)) for column in range(width)], side, gap))
    parts.append(legend.drawn(legend_of(panels, cases, ("least", "greatest")), whole, unit))
    return sketch.stacked(parts, round(0.5 * unit), round(unit)), found
