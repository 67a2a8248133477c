"""Whether one model classifies better than another on the same CXRs: the difference of their AUROC (DeLong)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from chextools.comparison.differences import difference_columns, shared_tasks, with_tail
from chextools.comparison.settings import ComparisonSettings
from chextools.evaluation import classification
from chextools.evaluation.classification import Scored
from chextools.inputs.inputs import read_some
from chextools.metrics import bootstrap
from chextools.metrics.delong import auroc_components, auroc_error
from chextools.metrics.paired import Clusters, Difference, holm
from chextools.metrics.student import upper_tail
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
    groups = bootstrap.groups_of([row.patient for row in labelled]) if settings.resample == "patient" else None
    clusters = Clusters(*groups) if groups else Clusters.of_rows(len(both))
    rows = list(_rows(scored, labels, names, clusters, settings))
    for row, p in zip(rows, holm([row["p"] for row in rows[:-1]])):
        row["p_holm"] = p
    tail = {"failed": failed, "paired": settings.resample, "test": "delong"}
    for row in rows:
        if "reason" in row:
            log.warning("%s: %s", row["task"], row["reason"])
    return [{"metric": "auroc"} | with_tail(row, tail) for row in rows]


def _rows(
    scored: Sequence[np.ndarray],
    labels: np.ndarray,
    names: Sequence[str],
    clusters: Clusters,
    settings: ComparisonSettings,
) -> Iterator[dict]:
    usable = ~np.isnan(labels) & ~np.isnan(scored[0]) & ~np.isnan(scored[1])
    areas = np.full((2, len(names)), np.nan)
    added = np.full((len(labels), len(names)), np.nan)
    for k, task in enumerate(names):
        rows = usable[:, k]
        positive = labels[rows, k] == 1
        parts = [auroc_components(side[rows, k], positive) for side in scored]
        areas[:, k] = [area for area, _ in parts]
        added[rows, k] = parts[0][1] - parts[1][1]
        yield _row(task, areas[:, k], added[:, k], clusters, settings) | {
            "n": int(rows.sum()),
            "positives": int(positive.sum()),
        }
    defined = ~np.isnan(areas).any(axis=0)
    means = areas[:, defined].mean(axis=1) if defined.any() else np.full(2, np.nan)
    together = np.nan_to_num(added[:, defined]).sum(axis=1) / max(int(defined.sum()), 1)
    together[~usable[:, defined].any(axis=1)] = np.nan
    row = _row(AVERAGE, means, together, clusters, settings)
    yield row | {"n": int(usable.sum()), "positives": int((labels[usable] == 1).sum()), "tasks": int(defined.sum())}


def _row(task: str, areas: np.ndarray, added: np.ndarray, clusters: Clusters, settings: ComparisonSettings) -> dict:
    """One difference; where neither area varies, as both are perfect, nothing can be said of its error."""
    nothing = np.nan, np.nan, np.nan
    difference = float(areas[0] - areas[1])
    error = auroc_error(added, clusters) if not np.isnan(difference) and not np.isnan(added).all() else math.nan
    count = int((~np.isnan(added)).sum())
    reason = "one class is missing" if np.isnan(difference) else "one CXR of a class: no interval"
    if not np.isnan(error):
        reason = "" if error else "the scores agree on all pairs, or leave no doubt: no interval"
    p = 1.0 if difference == 0 else _two_sided(difference, error)
    found = Difference(difference, error or math.nan, math.inf, nothing, count, p)
    row = {"task": task, "pred": float(areas[0]), "ref": float(areas[1])} | difference_columns(found, settings)
    if difference == 0:
        row["p"] = 1.0
    return row | ({"reason": reason} if reason else {})


def _two_sided(difference: float, error: float) -> float:
    return 2 * upper_tail(abs(difference) / error, math.inf) if error > 0 else math.nan
