"""chex-segment: heatmaps and radiologists' outlines to masks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from chextools.heatmaps.masking import MaskingSettings, with_masks
from chextools.heatmaps.reading import open_heatmap
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tasks import CHEXPERT, canonical, choose


def select_tasks(
    items: Iterable[Located | Failure], requested: Sequence[str]
) -> tuple[Iterable[Located | Failure], frozenset[str] | None]:
    """The items, untouched, and the requested tasks, None for all. Raises InputError for a task nobody knows."""
    if not requested:
        return items, None
    items = iter(items)
    seen = []
    for item in items:
        seen.append(item)
        if isinstance(item, Located):
            break
    record = seen[-1].record if seen and isinstance(seen[-1], Located) else {}
    available = set(record.get("outlines", ()))
    if "heatmap" in record and not set(map(canonical, requested)) <= set(CHEXPERT):
        available |= open_heatmap(record["heatmap"]).maps.keys()
    return itertools.chain(seen, items), frozenset(choose(requested, available, "the first record"))


def segment(
    items: Iterable[Located | Failure], settings: MaskingSettings, jobs: int = 1
) -> Iterator[Located | Failure]:
    """Records with masks for records with heatmaps or outlines, in order; a task that fails goes to "failed"."""
    return ordered_map(partial(_segment, settings=settings), items, jobs)


def _segment(item: Located | Failure, settings: MaskingSettings) -> Located | Failure:
    return records.applied(lambda record: records.ordered(with_masks(record, settings)), item)
