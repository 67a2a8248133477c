"""chex-view: pictures of X-rays with heatmaps, outlines and points, and how well they agree.

    single    a picture per record and task; records stream
    sheet     many X-rays of one task on a page; a page's worth of records at a time
    grid      a picture per X-ray, methods side by side, tasks down; reads all records first

A selection reads all records first, too. What has to wait waits in a temporary file.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import BinaryIO

from chextools import tasks
from chextools.errors import InputError
from chextools.heatmaps.reading import heatmaps_of
from chextools.inputs import inputs
from chextools.plumbing import files
from chextools.plumbing.parallel import ordered_map
from chextools.records.records import Failure, Located
from chextools.viewing.known import Known, read_known
from chextools.viewing.pages import draw_single
from chextools.viewing.settings import ViewSettings
from chextools.viewing.target import Target
from chextools.viewing.waiting import Waiting, column_of

__all__ = ["Known", "Target", "ViewSettings", "draw", "read_known", "read_records", "select_tasks"]


def read_records(sources: Sequence[str], stdin: BinaryIO, layout: str) -> Iterator[Located | Failure]:
    """The records of all inputs. An id that comes twice is a failure; in a grid, with the same method and model."""
    if layout != "grid":
        yield from inputs.read_all(sources, stdin)
        return
    seen: dict[tuple, str] = {}
    for item in itertools.chain.from_iterable(inputs.read(source, stdin) for source in sources):
        if isinstance(item, Located):
            key = item.record["id"], *column_of(item.record)
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


def draw(
    items: Iterable[Located | Failure], known: Known, settings: ViewSettings, target: Target, jobs: int = 1
) -> Generator[Located | Failure]:
    """Records with "views", each once its pictures are there; with a selection, only those that have one.

    views: by task {"picture": path, "iou", "hit", "score"}; in a sheet or grid also "tile", its [row, column] from 1.
    """
    files.remove_stale(target.folder)
    subjects = map(known.subject, items)
    if settings.layout == "single" and not settings.select:
        return ordered_map(partial(draw_single, settings, target, None), subjects, jobs)
    return Waiting(known, settings, target, jobs).results(subjects)
