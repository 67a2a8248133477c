"""How well readers of one set agree with each other: in pairs, and each with the consensus of the others.

The latter is the human benchmark that a model can be compared with, where a set has several readers.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from chextools.errors import InputError
from chextools.evaluation.rows import drawn, groups_of
from chextools.evaluation.settings import EvaluationSettings
from chextools.inputs.drawn import drawing_of
from chextools.inputs.truth import Truth
from chextools.masks.consensus import agreed
from chextools.masks.drawing import Drawing
from chextools.masks.mask import Mask, intersection
from chextools.metrics import agreement, bootstrap, overlap
from chextools.records import records
from chextools.records.records import Failure, Located, few
from chextools.results.results import AVERAGE, Evaluation, Table
from chextools.results.rows import NO_TASK, interval_row

log = logging.getLogger(__name__)

METRICS = ("iou", "dice", "hit", "kappa")
PAIRS, LEFT_OUT = "pairs", "leave-one-out"

_VALUES = METRICS[:3]


@dataclass
class Compared:
    """How readers of one CXR agree, float64 by task [K], NaN where undefined.

    values: [2, 3, K] of pairs and left out ones, of `_VALUES`, means over readers. counts: [4, K], `presence` of pairs.
    readers: their names.
    """

    id: str
    patient: str
    readers: tuple[str, ...]
    values: np.ndarray
    counts: np.ndarray
    scores: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(truth: Truth, settings: EvaluationSettings) -> Iterator[Located | Failure]:
    """Compare the readers of each CXR; records that come back hold "row", a `Compared`, and "failed" by task."""

    alone = []
    for identifier, record in truth.records.items():
        item = Located(f"{truth.where}: {identifier}", record)
        try:
            drawing = drawing_of(record)
            if drawing is None or len(drawing.readers) < 2:
                alone.append(identifier)
                continue
            row = _compared(record, drawing, settings)
            yield Located(item.where, {"row": row, "failed": row.failed})
        except InputError as error:
            yield Failure(item.where, str(error))
    if alone:
        log.warning("read by one alone, left out: %s", few(alone))


def _compared(record: dict, drawing: Drawing, settings: EvaluationSettings) -> Compared:
    names = tuple(sorted(drawing.readers))
    shape = len(settings.tasks)
    row = Compared(
        record["id"], records.patient(record), names, np.full((2, len(_VALUES), shape), np.nan), np.zeros((4, shape))
    )
    row.failed = {task: str(why) for task, why in record.get("failed", {}).items()}
    frame = None if drawing.size or drawing.target else drawing.least_size  # agreement needs no image
    for k, task in enumerate(settings.tasks):
        if task in row.failed or task not in drawing.names:
            continue
        try:
            by_reader = drawing.by_reader(task, frame)
        except InputError as error:
            row.failed[task] = str(error)
            continue
        masks = [by_reader[name] for name in names]
        pairs = list(itertools.combinations(masks, 2))
        if not any(mask.bounds.size for mask in masks):  # most findings of most images
            row.counts[3, k] = len(pairs)
            continue
        row.values[0, :, k] = _means([*pairs, *((b, a) for a, b in pairs)], settings.slice)
        row.values[1, :, k] = _means(list(_left_out(masks, drawing.rule)), settings.slice)
        row.counts[:, k] = np.sum([agreement.presence(a, b) for a, b in pairs], axis=0)
    return row


def _left_out(masks: Sequence[Mask], rule: str) -> Iterator[tuple[Mask, Mask]]:
    """Each reader's mask and the consensus of the others'."""
    for k, mask in enumerate(masks):
        yield mask, agreed([*masks[:k], *masks[k + 1 :]], rule)


def _means(pairs: Sequence[tuple[Mask, Mask]], slice_: str) -> np.ndarray:
    """Means of IoU, Dice and hit over pairs of masks, seen and true; NaN where all are undefined."""
    both, seen, true = np.array([(intersection(a, b), a.area, b.area) for a, b in pairs], np.float64).T
    found = [hit for a, b in pairs for hit in (agreement.hits([a], b) if b.bounds.size else [np.nan])]
    values = np.array([overlap.iou(both, seen, true, slice_), overlap.dice(both, seen, true, slice_), found])
    return bootstrap.nanmean(values, axis=1)


def evaluation_of(rows: Sequence[Compared], settings: EvaluationSettings, failed: int = 0) -> Evaluation:
    """A row per metric, task and way to compare. Its tables are those of the readers left out: the human benchmark.

    Raises InputError if no CXR has several readers.
    """
    if not rows:
        raise InputError("no CXR has several readers: give --truth several times, or a file that has readers")
    rows = sorted(rows, key=lambda row: row.id)
    result = Evaluation([], {}, list(rows), list(settings.tasks))
    groups = groups_of([row.patient for row in rows], settings)
    readers = sorted({name for row in rows for name in row.readers})
    more = {"readers": len(readers), "slice": settings.slice} | drawn(settings)
    broken = failed + np.array([sum(task in row.failed for row in rows) for task in settings.tasks])
    values = np.array([row.values for row in rows])  # [n, 2, 3, K]
    for m, metric in enumerate(_VALUES):
        if settings.metrics and metric not in settings.metrics:
            continue
        for way, name in enumerate((PAIRS, LEFT_OUT)):
            table = values[:, way, m]
            replicates = bootstrap.means(table, settings.replicates, settings.seed, groups)
            has = ~np.isnan(table)
            told = {"compared": name} | more
            mean = bootstrap.nanmean(table)
            result.summary += _rows(metric, settings.tasks, mean, replicates, has, groups, broken, told)
            if name == LEFT_OUT and metric != "hit":  # of several readers a hit is no longer yes or no
                result.tables[metric] = Table([row.id for row in rows], list(settings.tasks), table, replicates)
    if not settings.metrics:
        counts = np.array([row.counts for row in rows])  # [n, 4, K]
        flat = counts.reshape(len(rows), -1)
        sums = bootstrap.sums(flat, settings.replicates, settings.seed, groups).reshape(-1, *counts.shape[1:])
        kappa = agreement.cohen_kappa if len(readers) == 2 else agreement.fleiss_kappa
        has = counts.sum(axis=1) > 0
        told = {"compared": PAIRS} | {key: value for key, value in more.items() if key != "slice"}
        mean = kappa(counts.sum(axis=0))
        result.summary += _rows("kappa", settings.tasks, mean, kappa(sums), has, groups, broken, told)
    return result


def _rows(
    metric: str,
    names: Sequence[str],
    mean: np.ndarray,
    replicates: np.ndarray,
    has: np.ndarray,
    groups: tuple[np.ndarray, int] | None,
    failed: np.ndarray,
    told: dict[str, object],
) -> Iterator[dict]:
    """A row per task, sorted by name, and their average. has: which CXRs have something, bool [n, K]."""
    n, drawable = has.sum(axis=0), bootstrap.drawable(has, groups)
    for k in sorted(range(len(names)), key=names.__getitem__):
        row = interval_row(metric, names[k], mean[k], replicates[:, k], n[k], failed[k], drawable[k]) | told
        if np.isnan(mean[k]):
            row["reason"] = "nothing to tell readers apart" if n[k] else "defined for no CXR"
        yield row
    over = bootstrap.nanmean(replicates, axis=1)
    row = interval_row(metric, AVERAGE, float(bootstrap.nanmean(mean)), over, n.sum(), failed.max(), drawable.max())
    yield row | told | ({"reason": NO_TASK} if np.isnan(mean).all() else {})
