"""chex-segment: heatmaps and radiologists' outlines to masks.

from chextools import segment
for record in segment.run(["maps"], segment.SegmentationSettings(threshold=0.5)):
    record["masks"]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from chextools.errors import InputError
from chextools.heatmaps.masking import MaskingSettings, with_masks
from chextools.heatmaps.reading import open_heatmap
from chextools.inputs.inputs import read_all
from chextools.inputs.truth import TruthSettings, settled
from chextools.masks.mask import Mask
from chextools.plumbing.parallel import default_jobs, keep_memory, ordered_map
from chextools.records import records
from chextools.records.record import DRAWING
from chextools.records.records import Failure, Located
from chextools.records.tally import Tally
from chextools.results import thresholds
from chextools.tasks import CHEXPERT, canonical, choose


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings:
    """How heatmaps become masks, and of which records.

    threshold: "otsu", a number in [0, 1] for all tasks, or a file with one by task.
    cutoff: a file with the score by task below which the mask is empty.
    smooth: side in pixels of a box filter; 1 is none.
    sign: which evidence counts; None for what the record or its heatmap says.
    tasks: those wanted; none for all.
    truth_settings: what files of truth do not say. renamed: names of tasks for findings.
    shard: (I, N) to take only part I of N of the records.
    jobs: processes; None for as many as are ours to use.
    """

    threshold: str | float = "otsu"
    cutoff: str | None = None
    smooth: int = 1
    sign: str | None = None
    tasks: Sequence[str] = ()
    truth_settings: TruthSettings = TruthSettings()
    renamed: Mapping[str, str] = field(default_factory=dict)
    shard: tuple[int, int] | None = None
    jobs: int | None = None


def run(
    inputs: Sequence[str],
    settings: SegmentationSettings | None = None,
    *,
    stdin: BinaryIO | None = None,
    tally: Tally | None = None,
) -> Iterator[dict]:
    """The records of inputs (paths, or `-` for `stdin`) with "masks", as they are made; what fails is in "failed".

    tally: counts what fails, and shows progress. Raises InputError before the first where nothing can be done.
    """
    settings, tally = settings or SegmentationSettings(), tally or Tally()
    threshold = thresholds.threshold_of(settings.threshold)
    cutoffs = thresholds.read_cutoffs(settings.cutoff) if settings.cutoff else {}
    everything = records.select_shard(_read(inputs, stdin or sys.stdin.buffer, settings), settings.shard)
    items, wanted = _of_tasks(everything, settings.tasks)
    masking = MaskingSettings(
        threshold=threshold, cutoffs=cutoffs, smooth=settings.smooth, sign=settings.sign, tasks=wanted
    )
    keep_memory()  # each map's pixels take the place of the last one's
    made = ordered_map(partial(_with_masks, settings=masking), items, settings.jobs or default_jobs())
    return tally.passing(tally.progress(made, "images"))


def _read(inputs: Sequence[str], stdin: BinaryIO, settings: SegmentationSettings) -> Iterator[Located | Failure]:
    items = settled(read_all(inputs, stdin), settings.truth_settings, stdin)
    if not settings.renamed:
        return items
    from chextools.inputs import drawn  # here, as most records have nothing drawn

    return (records.applied(partial(drawn.renamed, names=settings.renamed), item) for item in items)


def _of_tasks(
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
    available = {
        *record.get("outlines", ()),
        *record.get("masks", ()),
        *(record[DRAWING].names if DRAWING in record else ()),
    }
    names = set(map(canonical, requested))
    if "heatmap" in record and not names <= available:
        try:
            found = open_heatmap(record["heatmap"])
            available |= found.maps.keys() | found.failed.keys()
        except InputError:
            if not names <= set(CHEXPERT):
                raise
            available |= names  # nobody knows; the record is about to fail
    return itertools.chain(seen, items), frozenset(choose(requested, available, "the first record"))


def _with_masks(item: Located | Failure, settings: MaskingSettings) -> Located | Failure:
    return records.applied(lambda record: records.ordered(_masked(record, settings)), item)


def _masked(record: dict, settings: MaskingSettings) -> dict:
    """Masks that are there stay, of the tasks wanted, unless there is what they were made from."""
    if DRAWING in record:
        from chextools.inputs import drawn

        return drawn.with_masks(record, settings.tasks)
    if "masks" not in record or "heatmap" in record or "outlines" in record:
        return with_masks(record, settings)
    wanted = {task: rle for task, rle in record["masks"].items() if settings.tasks is None or task in settings.tasks}
    if wanted and not record.get("size"):
        record["size"] = list(Mask.from_rle(next(iter(wanted.values()))).size)
    return record | {"masks": wanted}
