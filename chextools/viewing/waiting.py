"""Layouts and selections for which records have to wait for others."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from chextools import tasks
from chextools.errors import InputError
from chextools.plumbing import jsontext
from chextools.plumbing.parallel import ordered_map
from chextools.records.records import Failure, Located
from chextools.viewing.known import Known
from chextools.viewing.pages import Page, draw_page, draw_single, with_views
from chextools.viewing.panels import Subject, digest
from chextools.viewing.settings import SELECTIONS, ViewSettings
from chextools.viewing.sketch import Line
from chextools.viewing.target import Target, plain_name
from chextools.xrays import images


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is kept of a record: ranks (`Reading.rank`) and failures by task, and its column in a grid."""

    id: str
    ranks: dict[str, float | None]
    failed: dict[str, str]
    column: tuple[str, str, str]


def _measured(settings: ViewSettings, subject: Subject | Failure) -> tuple[Subject, _Measured] | Failure:
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
        return subject, _Measured(case.id, ranks, case.failed, (*column_of(case.record), case.method))
    except InputError as error:
        return Failure(subject.where, str(error))
    except MemoryError:
        return Failure(subject.where, "out of memory")


def column_of(record: dict) -> tuple[str, str]:
    """What tells records of one X-ray apart."""
    return str(record.get("method") or ""), str(record.get("model") or "")


def _headings(columns: Iterable[tuple[str, str, str]]) -> list[str]:
    """What stands above a grid's columns: the method, with the model where that alone tells two apart."""
    names = [name for _, _, name in columns]
    return [f"{name} · {model[:8]}" if names.count(name) > 1 else name for _, model, name in columns]


class Waiting:
    """Layouts and selections for which records wait; what they are meanwhile drawn from lies in a temporary file."""

    def __init__(self, known: Known, settings: ViewSettings, target: Target, jobs: int):
        self.known, self.settings, self.target, self.jobs = known, settings, target, jobs
        self.pages: dict[str, int] = {}  # of each task so far
        self.kept: list[_Measured] = []
        self.places: list[tuple[int, int]] = []  # of each kept record in the file

    def results(self, subjects: Iterable[Subject | Failure]) -> Generator[Located | Failure]:
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
        line = jsontext.dumps([subject.where, subject.record]).encode()
        self.places.append((self.file.tell(), len(line)))
        self.file.write(line)
        self.kept.append(measured)

    def _again(self, number: int) -> Subject | Failure:
        """A kept record; a failure where what it was measured from cannot be read any more."""
        start, length = self.places[number]
        self.file.seek(start)
        return self.known.subject(Located(*json.loads(self.file.read(length))))

    def _subject(self, number: int) -> Subject:
        subject = self._again(number)
        if isinstance(subject, Failure):
            raise InputError(f"{subject.where}: {subject.reason}")
        return subject

    def _drawn(self) -> Iterator[Located | Failure]:
        """Draw what is kept; the records in order."""
        if self.settings.layout == "single":
            chosen: dict[int, set[str]] = {}
            for task, numbers in self._by_task().items():
                for number in numbers:
                    chosen.setdefault(number, set()).add(task)
            work = ((self._again(number), chosen.get(number, set())) for number in self._worth_saying(chosen))
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
            subject = self._again(number)
            if number in refused:
                yield Failure(subject.where, refused[number])
            elif isinstance(subject, Failure):
                yield subject
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
        known = {number: rank for number, rank in ranks.items() if rank is not None}
        order: dict[int, str] | dict[int, float]
        if select == "random":
            order = {n: digest([self.settings.seed, ids[n], task]) for n in (known if self.known.truth else ranks)}
        else:
            order = {n: rank if select == "worst" else -rank for n, rank in known.items()}
        return sorted(order, key=lambda n: (order[n], ids[n]))[: self.settings.count]

    def _sheets(self, planned: list[list[int]]) -> Iterator[Page]:
        columns, rows = self.settings.page
        for task, numbers in self._by_task().items():
            for first in range(0, len(numbers), columns * rows):
                part = numbers[first : first + columns * rows]
                self.pages[task] = page = self.pages.get(task, 0) + 1
                said = f"{SELECTIONS[self.settings.select]} · " if self.settings.select else ""
                planned.append(part)
                yield Page(
                    self.target.path(plain_name(task), f"{page:03d}"),
                    [Line(task, True), Line(f"{said}page {page}")],
                    [self._subject(number) for number in part],
                    [(*divmod(place, columns), place, task) for place in range(len(part))],
                )

    def _grids(self, planned: list[list[int]]) -> Iterator[Page]:
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
            yield Page(path, heading, subjects, places, _headings(columns), rows)


def _draw_with(settings: ViewSettings, target: Target, page: Page) -> tuple[Path, Sequence, list[dict] | InputError]:
    return page.path, page.places, draw_page(settings, target, page)


def _draw_chosen(settings: ViewSettings, target: Target, work: tuple[Subject | Failure, set[str]]) -> Located | Failure:
    subject, wanted = work
    if isinstance(subject, Failure):
        return subject
    drawn = draw_single(settings, target, wanted, subject)
    return drawn if isinstance(drawn, Failure) or wanted else _finished(subject, None, drawn.record["failed"])


def _finished(subject: Subject, views: dict | None, failed: dict) -> Located | Failure:
    """The record with its views; a failure where it was not chosen, and only says what failed."""
    if views is None:
        return Failure(subject.where, "; ".join(f"{task}: {why}" for task, why in failed.items()))
    return Located(subject.where, with_views(subject.record, views, failed))
