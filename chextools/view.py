"""chex-view: pictures of X-rays with heatmaps, outlines and points, and how well they agree.

    single    a picture per record and task; records stream
    sheet     many X-rays of one task on a page; a page's worth of records at a time
    grid      a picture per X-ray, methods side by side, tasks down; reads all records first

A selection reads all records first, too. What has to wait waits in a temporary file.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin

from chextools import __version__, tasks
from chextools.errors import InputError
from chextools.heatmaps.reading import heatmaps_of
from chextools.inputs import drawn, inputs
from chextools.inputs.truth import TruthSettings, settled, truth_of
from chextools.masks.drawing import KEY
from chextools.plumbing import files
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.viewing import render
from chextools.viewing.panels import Case, Subject, digest, legend_of
from chextools.viewing.render import Line
from chextools.xrays import images

SIZES = {"single": 800, "sheet": 320, "grid": 320}  # of an X-ray's longer side, unless the user says otherwise
SELECTIONS = {"worst": "worst first", "best": "best first", "random": "drawn at random"}

_STAMP = "chex-view"  # the text chunk that says what a PNG was made from
_SHEET, _SHEET_PIXELS = (5, 4), 8000  # columns and rows of a page, and pixels of its sides, at most
_CAPTION = {"single": 26, "sheet": 17, "grid": 17}  # how wide a caption is at least, in sizes of its text


@dataclass(frozen=True)
class Settings:
    """What is drawn.

    layout: single, sheet or grid. size: pixels of an X-ray's longer side; None for `SIZES`.
    sign: which evidence a signed heatmap shows (`signs.SIGNS`); None for the record's "sign", else the default.
    tasks: the tasks wanted; None for all.
    select: None or one of `SELECTIONS`; count: how many, of each task or, in a grid, of all X-rays. seed: of random.
    """

    layout: str = "single"
    size: int | None = None
    sign: str | None = None
    tasks: frozenset[str] | None = None
    select: str | None = None
    count: int = 20
    seed: int = 0

    @property
    def pixels(self) -> int:
        return self.size or SIZES[self.layout]

    @property
    def unit(self) -> float:
        """The size of text in pixels."""
        return max(12.0, self.pixels / (48 if self.layout == "single" else 24))

    @property
    def page(self) -> tuple[int, int]:
        """(columns, rows) of a sheet."""
        columns, rows = (max(1, min(most, _SHEET_PIXELS // self.pixels)) for most in _SHEET)
        return columns, rows

    @property
    def reads_all(self) -> bool:
        """Whether nothing is drawn before the last record is read."""
        return bool(self.select) or self.layout == "grid"

    def case(self, subject: Subject) -> Case:
        return Case(subject, self.pixels, self.tasks, self.sign)


@dataclass
class Known:
    """What is known beside the records: by id the truth's records, its points by task, and images; all its tasks."""

    truth: dict[str, dict] = field(default_factory=dict)
    points: dict[str, dict] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def subject(self, item: Located | Failure) -> Subject | Failure:
        """A record with what is known of it."""
        if isinstance(item, Failure):
            return item
        identifier = item.record["id"]
        if identifier in self.images:
            item.record.setdefault("image", self.images[identifier])
        truth = self.truth.get(identifier)
        if truth is not None and KEY in truth:  # drawn into the image as it is
            try:
                size = item.record.get("size") or images.measure(item.record["image"]).size
                truth = drawn.with_masks(truth, size=tuple(size))
                if truth.get("failed") and not truth["masks"]:
                    raise InputError(next(iter(truth["failed"].values())))
            except (InputError, KeyError) as error:
                return Failure(item.where, str(error))
        return Subject(item.where, item.record, truth, self.points.get(identifier))


def read_known(
    truth: Sequence[str], xrays: Iterable[Located | Failure], stdin: BinaryIO, settings: TruthSettings | None = None
) -> Known:
    """The truth in files of masks, annotations or points, told apart by content, and the images in image records."""
    known = Known()
    outlined = []
    items = itertools.chain.from_iterable(inputs.read_all([source], stdin) for source in truth)
    for item in settled(items, settings or TruthSettings(), stdin):
        found = item.record if isinstance(item, Located) else {}
        if "points" in found:
            known.points[found["id"]] = found["points"]
        if "points" not in found or "masks" in found:
            outlined.append(item)
    if outlined or (truth and not known.points):
        found = truth_of(records.unique(outlined), ", ".join(truth))
        known.truth, known.tasks, known.failures = found.records, found.tasks, found.failures
    for item in xrays:
        if isinstance(item, Located):
            known.images[item.record["id"]] = item.record["image"]
        else:
            known.failures.append(item)
    return known


def read_records(sources: Sequence[str], stdin: BinaryIO, layout: str) -> Iterator[Located | Failure]:
    """The records of all inputs. An id that comes twice is a failure; in a grid, with the same method and model."""
    if layout != "grid":
        yield from inputs.read_all(sources, stdin)
        return
    seen: dict[tuple, str] = {}
    for item in itertools.chain.from_iterable(inputs.read(source, stdin) for source in sources):
        if isinstance(item, Located):
            key = item.record["id"], *_column(item.record)
            if seen.setdefault(key, item.where) != item.where:
                item = Failure(item.where, f"duplicate id {key[0]!r} of one method, first at {seen[key]}")
        yield item


def select_tasks(
    items: Iterable[Located | Failure], requested: Sequence[str], known: Known
) -> tuple[Iterable[Located | Failure], frozenset[str] | None]:
    """The items, untouched, and the requested tasks, None for all. Raises InputError for a task nobody knows."""
    items = iter(items)
    first = list(itertools.islice(items, 1)) if requested else []
    if not first:
        return items, frozenset(map(tasks.canonical, requested)) or None
    record = first[0].record if isinstance(first[0], Located) else {}
    available = {*known.tasks, *itertools.chain(*(record.get(key, ()) for key in ("masks", "outlines", "points")))}
    if "heatmap" in record:
        with contextlib.suppress(InputError):  # said when it is drawn
            available |= heatmaps_of(record).maps.keys()
    return itertools.chain(first, items), frozenset(tasks.choose(requested, available, "the first record"))


@dataclass(frozen=True)
class Target:
    """Where pictures go: a folder that exists. force: replace files. resume: keep what is finished."""

    folder: str
    force: bool = False
    resume: bool = False

    def path(self, *parts: str) -> Path:
        return Path(self.folder, "_".join(parts) + ".png")

    def finished(self, path: Path, made_from: str) -> list[dict] | None:
        """What a former run found when it made this picture; None if it is to be made.

        Raises InputError for a file that must not be replaced.
        """
        if not os.path.lexists(path):
            return None
        stamp = _stamp_of(path) if self.resume else {}
        if stamp.get("digest") == made_from:
            return stamp["found"] if stamp["whole"] else None
        if self.force:
            return None
        if self.resume:
            raise InputError(f"{path}: made from another record, truth or setting; use --force to replace it")
        raise InputError(f"{path}: exists; use --force to replace it")

    def write(self, path: Path, picture: Image.Image, made_from: str, found: Sequence[dict]) -> None:
        """Write a picture with what was found in it; it is finished if nothing in it has failed."""
        whole = not any("failed" in each for each in found)
        stamp = PngImagePlugin.PngInfo()
        stamp.add_text(_STAMP, records.dumps({"digest": made_from, "whole": whole, "found": found}))
        with files.atomic(path, self.force or self.resume, clean=False) as stream:
            picture.save(stream, "PNG", pnginfo=stamp, compress_level=4)


def _stamp_of(path: Path) -> dict:
    """What one of our pictures says it was made from; empty for any other file."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, TypeError, KeyError):
        with Image.open(path, formats=["PNG"]) as image:
            stamp = json.loads(image.info[_STAMP])
        if isinstance(stamp["whole"], bool) and all(isinstance(each, dict) for each in stamp["found"]):
            return stamp
    return {}


def plain_name(task: str) -> str:
    """A task as part of a file's name: a folder or shell minds nothing in it, and no two tasks have the same."""
    plain = re.sub(r"[^A-Za-z0-9 .,()+-]", "-", render.legible(task))[:40]
    return plain if plain == task else f"{plain}-{hashlib.sha256(task.encode('utf-8', 'replace')).hexdigest()[:8]}"


def view(
    items: Iterable[Located | Failure], known: Known, settings: Settings, target: Target, jobs: int = 1
) -> Iterator[Located | Failure]:
    """Records with "views", each once its pictures are there; with a selection, only those that have one.

    views: by task {"picture": path, "iou", "hit", "score"}; in a sheet or grid also "tile", its [row, column] from 1.
    """
    files.remove_stale(target.folder)
    subjects = map(known.subject, items)
    if settings.layout == "single" and not settings.select:
        return ordered_map(partial(_draw_single, settings, target, None), subjects, jobs)
    return _Waiting(known, settings, target, jobs).results(subjects)


# A picture per record and task


def _draw_single(
    settings: Settings, target: Target, wanted: Collection[str] | None, subject: Subject | Failure
) -> Located | Failure:
    """The record with its pictures of the wanted tasks, None for all."""
    if isinstance(subject, Failure):
        return subject

    def drawn(record: dict) -> dict:
        case = settings.case(subject)
        views = {}
        for task in case.tasks:
            if wanted is None or task in wanted:
                path, made_from = target.path(case.id, plain_name(task)), digest([__version__, case.digest, task])
                found = target.finished(path, made_from)
                if found is None:
                    _ = case.image  # what is wrong with it is wrong for all tasks
                    try:
                        picture, found = _single(case, task, settings.unit)
                    except InputError as error:
                        case.failed[task] = str(error)
                        continue
                    target.write(path, picture, made_from, found)
                views[task] = {"picture": str(path)} | found[0]
        return _with_views(record, views, case.failed)

    return records.applied(drawn, Located(subject.where, subject.record))


def _single(case: Case, task: str, unit: float) -> tuple[Image.Image, list[dict]]:
    reading = case.read(task)
    panel, ends = case.panel(task, reading)
    drawn = render.draw_panel(panel)
    width = max(drawn.width, round(_CAPTION["single"] * unit))
    about = " · ".join(filter(None, [case.method, *case.notes(task, reading)]))
    head = render.text_block([Line(task, True, reading.badges), Line(about), Line(case.id)], width, unit)
    legend = render.draw_legend(legend_of([panel], [case], ends), width, 0.9 * unit)
    return render.stacked([head, drawn, legend], round(0.6 * unit), round(unit)), [reading.numbers]


def _with_views(record: dict, views: dict, failed: dict) -> dict:
    record = {key: value for key, value in record.items() if key not in ("views", "failed")}
    return records.ordered(record | ({"failed": failed} if failed else {})) | {"views": views}


# Several X-rays on a picture


@dataclass(frozen=True)
class _Page:
    """A picture of several X-rays.

    places: (row, column, which of the subjects, task) of each. columns, rows: what stands above them, if anything.
    """

    path: Path
    heading: Sequence[Line]
    subjects: Sequence[Subject]
    places: Sequence[tuple[int, int, int, str]]
    columns: Sequence[str] = ()
    rows: Sequence[str] = ()


def _draw_page(settings: Settings, target: Target, page: _Page) -> list[dict] | InputError:
    """Draw a page; the numbers of its places in order, of one that could not be drawn {"failed": reason}."""
    try:
        cases = [settings.case(subject) for subject in page.subjects]
        texts = [[line.text for line in page.heading], list(page.columns), list(page.rows), list(page.places)]
        made_from = digest([__version__, [case.digest for case in cases], texts])
        found = target.finished(page.path, made_from)
        if found is None:
            picture, found = _compose(cases, page, settings)
            target.write(page.path, picture, made_from, found)
        return found
    except InputError as error:
        return error
    except MemoryError:
        return InputError(f"{page.path}: out of memory")


def _compose(cases: Sequence[Case], page: _Page, settings: Settings) -> tuple[Image.Image, list[dict]]:
    unit = settings.unit
    gap, least = round(0.8 * unit), round(_CAPTION[settings.layout] * unit)
    height = 1 + max((row for row, *_ in page.places), default=0)
    width = max([len(page.columns), *(1 + column for _, column, *_ in page.places)])
    render.check_pixels(width * settings.pixels, height * settings.pixels)
    cells: dict[tuple[int, int], Image.Image] = {}
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
            cells[row, column] = render.text_block([Line("failed"), Line(str(error)), *name], least, unit)
            found.append({"failed": str(error)})
            continue
        drawn = render.draw_panel(panel)
        about = Line(" · ".join(case.notes(task, reading)), badges=reading.badges)
        caption = render.text_block([about, *name], max(drawn.width, least), unit)
        cells[row, column] = render.stacked([drawn, caption], 4, 0)
        panels.append(panel)
        found.append(reading.numbers)
    side = max((cell.width for cell in cells.values()), default=least)
    whole = width * (side + gap) - gap
    parts = [render.text_block(page.heading, whole, unit)]
    if page.columns:
        names = [[Line(part, True) for part in render.wrapped(name, 1.12 * unit, side)] for name in page.columns]
        heads = [render.text_block(lines, side, 0.8 * unit) for lines in names]
        blank = render.text_block([Line("no prediction")], side, unit)
        cells = dict.fromkeys(itertools.product(range(height), range(width)), blank) | cells
        parts.append(render.side_by_side(heads, side, gap))
    for row in range(height):
        if page.rows:
            parts.append(render.text_block([Line(page.rows[row], True)], whole, 0.9 * unit))
        parts.append(render.side_by_side([cells.get((row, column)) for column in range(width)], side, gap))
    parts.append(render.draw_legend(legend_of(panels, cases, ("least", "greatest")), whole, unit))
    return render.stacked(parts, round(0.5 * unit), round(unit)), found


# What has to wait for other records


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is kept of a record: ranks (`Reading.rank`) and failures by task, and its column in a grid."""

    id: str
    ranks: dict[str, float | None]
    failed: dict[str, str]
    column: tuple[str, str, str]


def _measured(settings: Settings, subject: Subject | Failure) -> tuple[Subject, _Measured] | Failure:
    if isinstance(subject, Failure):
        return subject
    try:
        case = settings.case(subject)
        images.measure(subject.record["image"])
        ranks = {}
        for task in case.tasks:
            try:
                ranks[task] = case.read(task).rank
            except InputError as error:
                case.failed[task] = str(error)
        return subject, _Measured(case.id, ranks, case.failed, (*_column(case.record), case.method))
    except InputError as error:
        return Failure(subject.where, str(error))
    except MemoryError:
        return Failure(subject.where, "out of memory")


def _column(record: dict) -> tuple[str, str]:
    """What tells records of one X-ray apart."""
    return str(record.get("method") or ""), str(record.get("model") or "")


def _headings(columns: Iterable[tuple[str, str, str]]) -> list[str]:
    """What stands above a grid's columns: the method, with the model where that alone tells two apart."""
    names = [name for _, _, name in columns]
    return [f"{name} · {model[:8]}" if names.count(name) > 1 else name for _, model, name in columns]


class _Waiting:
    """Layouts and selections for which records wait; what they are meanwhile drawn from lies in a temporary file."""

    def __init__(self, known: Known, settings: Settings, target: Target, jobs: int):
        self.known, self.settings, self.target, self.jobs = known, settings, target, jobs
        self.pages: dict[str, int] = {}  # of each task so far
        self.kept: list[_Measured] = []
        self.places: list[tuple[int, int]] = []  # of each kept record in the file

    def results(self, subjects: Iterable[Subject | Failure]) -> Iterator[Located | Failure]:
        columns, rows = self.settings.page
        measured = ordered_map(partial(_measured, self.settings), subjects, self.jobs)
        while part := list(itertools.islice(measured, 1)):
            rest = None if self.settings.reads_all else columns * rows - 1
            with tempfile.TemporaryFile() as self.file:
                self.kept, self.places = [], []
                for entry in itertools.chain(part, itertools.islice(measured, rest)):
                    if isinstance(entry, Failure):
                        yield entry
                    else:
                        self._keep(*entry)
                yield from self._drawn()

    def _keep(self, subject: Subject, measured: _Measured) -> None:
        line = records.dumps([subject.where, subject.record]).encode()
        self.places.append((self.file.tell(), len(line)))
        self.file.write(line)
        self.kept.append(measured)

    def _subject(self, number: int) -> Subject:
        start, length = self.places[number]
        self.file.seek(start)
        return self.known.subject(Located(*json.loads(self.file.read(length))))

    def _drawn(self) -> Iterator[Located | Failure]:
        """Draw what is kept; the records in order."""
        if self.settings.layout == "single":
            chosen: dict[int, set[str]] = {}
            for task, numbers in self._by_task().items():
                for number in numbers:
                    chosen.setdefault(number, set()).add(task)
            work = ((self._subject(number), chosen.get(number, set())) for number in self._worth_saying(chosen))
            yield from ordered_map(partial(_draw_chosen, self.settings, self.target), work, self.jobs)
            return
        planned: list[list[int]] = []
        pages = self._grids(planned) if self.settings.layout == "grid" else self._sheets(planned)
        views: dict[int, dict] = {}
        failed = {number: dict(entry.failed) for number, entry in enumerate(self.kept)}
        refused: dict[int, str] = {}
        drawn = ordered_map(partial(_draw_with, self.settings, self.target), pages, self.jobs)
        for index, (path, places, found) in enumerate(drawn):
            numbers, planned[index] = planned[index], []
            for number in numbers:
                views.setdefault(number, {})
            if isinstance(found, InputError):
                refused |= dict.fromkeys(numbers, str(found))
                continue
            for (row, column, which, task), each in zip(places, found):
                if "failed" in each:
                    failed[numbers[which]][task] = each["failed"]
                else:
                    place = {"picture": str(path), "tile": [row + 1, column + 1]}
                    views[numbers[which]][task] = place | each
        for number in self._worth_saying(views):
            subject = self._subject(number)
            if number in refused:
                yield Failure(subject.where, refused[number])
            else:
                yield _finished(subject, views.get(number), failed[number])

    def _worth_saying(self, chosen: Collection[int]) -> list[int]:
        """Records that are chosen, or have failed; without a selection all."""
        select = self.settings.select
        return [n for n, entry in enumerate(self.kept) if not select or n in chosen or entry.failed]

    def _by_task(self) -> dict[str, list[int]]:
        """The chosen records of each task, in order."""
        names = tasks.study_order(itertools.chain.from_iterable(entry.ranks for entry in self.kept))
        having = {task: [n for n, entry in enumerate(self.kept) if task in entry.ranks] for task in names}
        return {t: self._chosen({n: self.kept[n].ranks[t] for n in having[t]}, t) for t in names}

    def _chosen(self, ranks: dict[int, float | None], task: str) -> list[int]:
        """Records by rank; with a selection as many as asked, where there is truth of those it outlines."""
        select, ids = self.settings.select, {number: self.kept[number].id for number in ranks}
        if not select:
            return list(ranks)
        if select != "random" or self.known.truth:
            ranks = {number: rank for number, rank in ranks.items() if rank is not None}
        if select == "random":
            order = {n: digest([self.settings.seed, ids[n], task]) for n in ranks}
        else:
            order = {n: rank if select == "worst" else -rank for n, rank in ranks.items()}
        return sorted(ranks, key=lambda n: (order[n], ids[n]))[: self.settings.count]

    def _sheets(self, planned: list[list[int]]) -> Iterator[_Page]:
        columns, rows = self.settings.page
        for task, numbers in self._by_task().items():
            for first in range(0, len(numbers), columns * rows):
                part = numbers[first : first + columns * rows]
                self.pages[task] = page = self.pages.get(task, 0) + 1
                said = f"{SELECTIONS[self.settings.select]} · " if self.settings.select else ""
                planned.append(part)
                yield _Page(
                    self.target.path(plain_name(task), f"{page:03d}"),
                    [Line(task, True), Line(f"{said}page {page}")],
                    [self._subject(number) for number in part],
                    [(*divmod(place, columns), place, task) for place in range(len(part))],
                )

    def _grids(self, planned: list[list[int]]) -> Iterator[_Page]:
        groups: dict[str, list[int]] = {}
        for number, entry in enumerate(self.kept):
            groups.setdefault(entry.id, []).append(number)
        columns = list(dict.fromkeys(entry.column for entry in self.kept))
        means = {}
        for numbers in groups.values():
            ranks = [r for number in numbers for r in self.kept[number].ranks.values() if r is not None]
            means[numbers[0]] = sum(ranks) / len(ranks) if ranks else None
        for number in sorted(self._chosen(means, "")):
            numbers = groups[self.kept[number].id]
            entries = [self.kept[n] for n in numbers]
            rows = tasks.study_order(itertools.chain.from_iterable((*e.ranks, *e.failed) for e in entries))
            places = [
                (row, columns.index(entry.column), which, task)
                for row, task in enumerate(rows)
                for which, entry in enumerate(entries)
                if task in entry.ranks or task in entry.failed
            ]
            planned.append(numbers)
            subjects = [self._subject(n) for n in numbers]
            path, heading = self.target.path(entries[0].id), [Line(entries[0].id, True)]
            yield _Page(path, heading, subjects, places, _headings(columns), rows)


def _draw_with(settings: Settings, target: Target, page: _Page) -> tuple[Path, Sequence, list[dict] | InputError]:
    return page.path, page.places, _draw_page(settings, target, page)


def _draw_chosen(settings: Settings, target: Target, work: tuple[Subject, set[str]]) -> Located | Failure:
    subject, wanted = work
    drawn = _draw_single(settings, target, wanted, subject)
    return drawn if isinstance(drawn, Failure) or wanted else _finished(subject, None, drawn.record["failed"])


def _finished(subject: Subject, views: dict | None, failed: dict) -> Located | Failure:
    """The record with its views; a failure where it was not chosen, and only says what failed."""
    if views is None:
        return Failure(subject.where, "; ".join(f"{task}: {why}" for task, why in failed.items()))
    return Located(subject.where, _with_views(subject.record, views, failed))
