"""How alike two sets of heatmaps are: of two trainings (repeatability) or two architectures (reproducibility).

SSIM and Spearman's correlation by CXR and task (Arun et al. 2021).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import BinaryIO

import numpy as np

from chextools.comparison.settings import ComparisonSettings
from chextools.comparison.sides import patients_of
from chextools.errors import InputError
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.reading import heatmaps_of
from chextools.heatmaps.surface import surface_of
from chextools.inputs.inputs import read_some
from chextools.metrics import bootstrap
from chextools.metrics.similarity import spearman, ssim
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.records.tally import Tally
from chextools.results.results import AVERAGE, join
from chextools.results.rows import interval_row
from chextools.tasks import choose

_SIDES = "patient of pred", "patient of ref"
SIDE = 224  # pixels at which maps of any resolution are compared

log = logging.getLogger(__name__)


def rows_of(
    inputs: Sequence[str], settings: ComparisonSettings, stdin: BinaryIO, tally: Tally, jobs: int
) -> list[dict]:
    """One row per task, and one for the mean over tasks: the mean likeness of the maps that both sides have.

    Raises InputError where the two have no CXR in common.
    """
    sides: list[dict[str, Located]] = []
    steps = tally.progress(repeat(None), "records")
    for source in inputs[::-1]:
        _, items = read_some([source], stdin)
        failures = []
        side = {}
        for item, _ in zip(items, steps):
            if isinstance(item, Failure):
                failures.append(item)
            else:
                side[item.record["id"]] = item
        tally.take(failures)
        sides.append(side)
    del steps  # what is read is no longer shown
    ref, pred = sides
    both = join(pred, inputs[0], ref, inputs[1])
    work = ((pred[i], ref[i]) for i in both)
    measured = ordered_map(partial(_alike, settings=settings), work, jobs)
    found = list(tally.passing(item for item, _ in zip(measured, tally.progress(both, "CXRs"))))
    names = choose(settings.tasks, {task for record in found for task in record["alike"]}, "the heatmaps")
    table = np.array([[record["alike"].get(task, np.nan) for task in names] for record in found], float)
    table = table.reshape(len(found), len(names))
    if not names:
        raise InputError(f"{inputs[0]} and {inputs[1]}: no CXR has a heatmap of one task on both sides")
    patients: Sequence[str] = ()
    if settings.resample == "patient":
        patients = patients_of([r["id"] for r in found], *({r["id"]: r[side] for r in found} for side in _SIDES))
    return list(_rows(table, names, patients, settings, tally.failed))


def _rows(
    table: np.ndarray, names: Sequence[str], patients: Sequence[str], settings: ComparisonSettings, failed: int
) -> Iterator[dict]:
    assert settings.metric is not None
    groups = bootstrap.groups_of(patients) if settings.resample == "patient" else None
    replicates = bootstrap.means(table, settings.replicates, settings.seed, groups)
    has = ~np.isnan(table)
    n, drawable = has.sum(axis=0), bootstrap.drawable(has, groups)
    means = bootstrap.nanmean(table)
    columns = [(task, means[k], replicates[:, k], n[k], drawable[k]) for k, task in enumerate(names)]
    unit = "CXR" if settings.resample == "cxr" else "patient"
    columns.append((AVERAGE, bootstrap.nanmean(means), bootstrap.nanmean(replicates, axis=1), n.sum(), drawable.max()))
    for task, mean, drawn, count, units in columns:
        row = interval_row(settings.metric, task, mean, drawn, count, failed, units) | {"paired": settings.resample}
        reason = "" if units > 1 else f"one {unit}: no interval"
        if not count:
            reason = "no CXR with a map on both sides that varies"
        if reason:
            log.warning("%s: %s", task, reason)
        yield row | {"seed": settings.seed} | ({"reason": reason} if reason else {})


def _alike(pair: tuple[Located, Located], settings: ComparisonSettings) -> Located | Failure:
    """How alike the maps of one CXR are, by task."""
    one, other = pair

    def compared(record: dict) -> dict:
        pred, ref = heatmaps_of(record), heatmaps_of(other.record)
        if pred.size != ref.size:
            raise InputError(f"the heatmaps are for images of {list(pred.size)} and {list(ref.size)}")
        wanted = set(settings.tasks) or {*pred.maps, *pred.failed}
        shared = [task for task in wanted if task in {*ref.maps, *ref.failed} and task in {*pred.maps, *pred.failed}]
        failed = {t: side.failed[t] for side in (pred, ref) for t in shared if t in side.failed}
        alike = {t: _likeness(pred, ref, t, settings) for t in shared if t not in failed}
        whose = dict(zip(_SIDES, map(records.patient, (record, other.record))))
        return {"id": record["id"]} | whose | {"alike": alike, "failed": failed}

    return records.applied(compared, one)


def _likeness(pred: Heatmaps, ref: Heatmaps, task: str, settings: ComparisonSettings) -> float:
    """SSIM of the maps, each scaled to [0, 1], or Spearman's correlation; NaN where one is flat."""
    maps = []
    for side in (pred, ref):
        sign = settings.sign or side.sign
        surface = surface_of(side.maps[task], (SIDE, SIDE), input_size=side.input_size, sign=sign)
        if surface.is_flat:
            return float("nan")
        dense = surface.dense().astype(np.float64)
        maps.append((dense - dense.min()) / np.ptp(dense))
    return float((ssim if settings.metric == "ssim" else spearman)(*maps))
