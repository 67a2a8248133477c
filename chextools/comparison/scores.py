"""Whether one model classifies better than another on the same CXRs: the difference of their AUROC (DeLong)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from chextools.comparison.differences import difference_columns, shared_tasks, with_tail
from chextools.comparison.settings import ComparisonSettings
from chextools.comparison.sides import patients_of
from chextools.evaluation import classification
from chextools.evaluation.classification import Scored
from chextools.inputs.inputs import read_some
from chextools.metrics import bootstrap
from chextools.metrics.delong import auroc_components, auroc_error, auroc_freedom
from chextools.metrics.paired import Clusters, Difference, holm
from chextools.metrics.student import upper_tail
from chextools.records.records import few
from chextools.records.tally import Tally
from chextools.results.results import AVERAGE, join

log = logging.getLogger(__name__)


def read_scores(
    source: str, settings: ComparisonSettings, stdin: BinaryIO, tally: Tally, steps: Iterable[None]
) -> list[Scored]:
    """The scores and labels of each record. steps: moves on by one with each. Raises InputError if there are none."""
    labels = classification.read_labels(settings.truth, stdin) if settings.truth else None
    _, items = read_some([source], stdin)
    return [record["row"] for record, _ in zip(tally.passing(classification.measure(items, labels)), steps)]


def rows_of(
    pred: Sequence[Scored],
    pred_name: str,
    ref: Sequence[Scored],
    ref_name: str,
    settings: ComparisonSettings,
    failed: int,
) -> list[dict]:
    """One row per task that both sides score, and one for the mean over tasks, over the CXRs that both score.

    Labels are PRED's, or REF's where PRED has none. Raises InputError where the two cannot be compared.
    """
    by_id = [{row.id: row for row in side} for side in (pred, ref)]
    both = join(by_id[0], pred_name, by_id[1], ref_name)
    sides = [[side[i] for i in both] for side in by_id]
    known = [sorted({task for row in side for task in row.scores}) for side in sides]
    names = shared_tasks(known[0], pred_name, known[1], ref_name, settings.tasks)
    scored = [np.array([[row.scores.get(t, np.nan) for t in names] for row in side]) for side in sides]
    labelled = [one if one.labels is not None else other for one, other in zip(*sides)]
    labels = classification.labels_of(labelled, names, settings.uncertain, settings.missing)
    _tell_other_labels(sides[0], sides[1], names, ref_name)
    clusters = Clusters.of_rows(len(both))
    if settings.resample == "patient":
        clusters = Clusters(*bootstrap.groups_of(patients_of(both, *({r.id: r.patient for r in s} for s in sides))))
    rows = list(_rows(scored, labels, names, clusters, settings))
    for row, p in zip(rows, holm([row["p"] for row in rows[:-1]])):
        row["p_holm"] = p
    tail = {"failed": failed, "paired": settings.resample, "test": "delong"}
    for row in rows:
        if "reason" in row:
            log.warning("%s: %s", row["task"], row["reason"])
    return [{"metric": "auroc"} | with_tail(row, tail) for row in rows]


def _tell_other_labels(pred: Sequence[Scored], ref: Sequence[Scored], names: Sequence[str], ref_name: str) -> None:
    """Say how many CXRs REF labels otherwise than PRED, whose labels are those taken."""

    def differ(one: Scored, other: Scored) -> bool:
        mine, theirs = one.labels or {}, other.labels or {}
        return any(task in mine and task in theirs and mine[task] != theirs[task] for task in names)

    if others := [one.id for one, other in zip(pred, ref) if differ(one, other)]:
        log.warning("%s labels otherwise, PRED's labels are taken: %s", ref_name, few(others))


def _rows(
    scored: Sequence[np.ndarray],
    labels: np.ndarray,
    names: Sequence[str],
    clusters: Clusters,
    settings: ComparisonSettings,
) -> Iterator[dict]:
    usable = ~np.isnan(labels) & ~np.isnan(scored[0]) & ~np.isnan(scored[1])
    positive = labels == 1
    areas = np.full((2, len(names)), np.nan)
    added = np.full((len(labels), len(names)), np.nan)
    for k, task in enumerate(names):
        rows = usable[:, k]
        parts = [auroc_components(side[rows, k], positive[rows, k]) for side in scored]
        areas[:, k] = [area for area, _ in parts]
        added[rows, k] = parts[0][1] - parts[1][1]
        counts = {"n": int(rows.sum()), "positives": int(positive[rows, k].sum())}
        yield _row(task, areas[:, k], added[:, [k]], positive[:, [k]], usable[:, [k]], clusters, settings) | counts
    defined = np.flatnonzero(~np.isnan(areas).any(axis=0))
    means = areas[:, defined].mean(axis=1) if defined.size else np.full(2, np.nan)
    row = _row(AVERAGE, means, added[:, defined], positive[:, defined], usable[:, defined], clusters, settings)
    yield row | {"n": int(usable.sum()), "positives": int((labels[usable] == 1).sum()), "tasks": len(defined)}


def _row(
    task: str,
    areas: np.ndarray,
    added: np.ndarray,
    positive: np.ndarray,
    usable: np.ndarray,
    clusters: Clusters,
    settings: ComparisonSettings,
) -> dict:
    """The difference of the mean over columns, [n, K] each; where no area varies, nothing can be said of its error."""
    nothing = np.nan, np.nan, np.nan
    difference = float(areas[0] - areas[1])
    together = np.where(usable.any(axis=1), np.nan_to_num(added).sum(axis=1) / max(added.shape[1], 1), np.nan)
    freedom = auroc_freedom(np.where(usable, np.nan_to_num(added), np.nan), positive, clusters)
    error = auroc_error(together, clusters)
    unit = "CXR" if settings.resample == "cxr" else "patient"
    reason = ""
    if np.isnan(difference):
        reason = "one class is missing" if usable.any() else "no CXR with a label and a score on both sides"
        if task == AVERAGE:
            reason = "no task with both classes"
    elif np.isnan(freedom):
        reason = f"{'a task with ' * (task == AVERAGE)}one {unit} of a class: no interval"
    elif error < 1e-12:  # what is left by rounding
        reason = "the scores agree on all pairs, or leave no doubt: no interval"
    if reason:
        error = math.nan
    p = 1.0 if difference == 0 else _two_sided(difference, error, freedom)
    found = Difference(difference, error, freedom, nothing, int(usable.sum()), p, most=1.0)
    row = {"task": task, "pred": float(areas[0]), "ref": float(areas[1])} | difference_columns(found, settings)
    if difference == 0:
        row["p"] = 1.0
    return row | ({"reason": reason} if reason else {})


def _two_sided(difference: float, error: float, freedom: float) -> float:
    return 2 * upper_tail(abs(difference) / error, freedom) if error > 0 else math.nan
