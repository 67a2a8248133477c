"""chex-eval: how well masks, heatmaps and points localise what radiologists outlined, with confidence intervals."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from chextools import bootstrap, overlap, records
from chextools.errors import InputError
from chextools.masks import Mask, intersection
from chextools.parallel import ordered_map
from chextools.records import Failure, Located, few
from chextools.results import AVERAGE, Evaluation, Table
from chextools.truth import Truth, masks_of

log = logging.getLogger(__name__)

METRICS = ("iou", "hit", "pixel", "count")


@dataclass(frozen=True)
class Settings:
    """What to measure: metrics of `METRICS` on these tasks, in this order."""

    metrics: frozenset[str]
    tasks: tuple[str, ...]
    slice: str = "positive"
    replicates: int = 1000
    seed: int = 0
    resample: str = "cxr"


@dataclass
class Row:
    """What was measured on one CXR: float64 [K] by task, NaN where it could not be.

    predicted, truth, both: areas in pixels; hit: 1, 0, or NaN where the truth is empty; lacks: no prediction was made.
    """

    id: str
    patient: str
    has_truth: bool
    has_prediction: bool
    scores: dict[str, float]
    pixels: float
    predicted: np.ndarray
    truth: np.ndarray
    both: np.ndarray
    hit: np.ndarray
    lacks: np.ndarray
    failed: dict[str, str]


def metrics_of(record: dict) -> frozenset[str]:
    """The metrics that a prediction like this one allows."""
    metrics = set()
    if "masks" in record or "outlines" in record:
        metrics |= {"iou", "pixel", "count"}
    if "heatmap" in record or "points" in record:
        metrics.add("hit")
    if not metrics:
        raise InputError('no "masks", "heatmap" or points to evaluate')
    return frozenset(metrics)


def measure(
    items: Iterable[Located | Failure], truth: Truth, settings: Settings, jobs: int = 1
) -> Iterator[Located | Failure]:
    """Measure each prediction; the records that come back hold "row", a `Row`, and "failed" by task.

    jobs: processes for what heatmaps cost; arithmetic on runs costs less than to hand masks to another process.
    """
    jobs = jobs if "hit" in settings.metrics else 1
    pairs = ((item, truth.records.get(item.record["id"]) if isinstance(item, Located) else None) for item in items)
    return ordered_map(partial(_measure, settings=settings), pairs, jobs)


def _measure(pair: tuple[Located | Failure, dict | None], settings: Settings) -> Located | Failure:
    item, truth = pair
    if isinstance(item, Failure):
        return item
    try:
        lacking = settings.metrics - metrics_of(item.record)
        if lacking:
            raise InputError(f"the record allows no {', '.join(sorted(lacking))}")
        row = _row(item.record, truth, settings)
    except InputError as error:
        return Failure(item.where, str(error))
    return Located(item.where, {"row": row, "failed": row.failed})


def _row(record: dict | None, truth: dict | None, settings: Settings) -> Row:
    """Measure a prediction against its truth; either may be missing, which counts as empty."""
    either = (truth or {}) | (record or {})
    predicted, true_area, both, hit = (np.full(len(settings.tasks), np.nan) for _ in range(4))
    lacks = np.zeros(len(settings.tasks), bool)
    pixels = np.nan
    trues, failed = masks_of(truth, settings.tasks)
    masks, unusable = masks_of(record, settings.tasks)
    failed |= unusable
    asked = [task for task, true in trues.items() if true is not None and true.area and "hit" in settings.metrics]
    prediction = _Prediction(record, asked) if record else None
    for k, task in enumerate(settings.tasks):
        if task in failed:
            continue
        true, mask = trues[task], masks[task]
        try:
            if mask is not None and true is not None and mask.size != true.size:
                raise InputError(f"the mask has the size {list(mask.size)}, its truth {list(true.size)}")
            if task in asked:
                hit[k] = prediction is not None and prediction.hits(task, true)
        except InputError as error:
            failed[task] = str(error)
            continue
        if true is not None:
            pixels = true.size[0] * true.size[1]
        true_area[k] = true.area if true is not None else 0
        predicted[k] = mask.area if mask is not None else 0
        both[k] = intersection(mask, true) if mask is not None and true is not None else 0
        lacks[k] = mask is None and not (prediction and prediction.has(task))
    return Row(
        either["id"], records.patient(either), truth is not None, record is not None, either.get("scores", {}),
        pixels, predicted, true_area, both, hit, lacks, failed,
    )  # fmt: skip


class _Prediction:
    """Where a prediction points, for the tasks of which it will be asked; read once, when it is."""

    def __init__(self, record: dict, tasks: Collection[str]):
        self._record, self._tasks = record, tasks
        self._heatmaps = None

    def has(self, task: str) -> bool:
        """Whether there is a point or heatmap of the task, if asked for; a human who drew no point has missed."""
        if self._heatmaps is None or task not in self._tasks:
            return "points" in self._record or "heatmap" in self._record
        return task in self._heatmaps.maps

    def hits(self, task: str, truth: Mask) -> bool:
        """Whether a point, or the heatmap's greatest pixel (the first in row-major order), lies in the truth."""
        if "points" in self._record:
            return overlap.point_hit(self._record["points"].get(task, ()), truth)
        from chextools import heatmaps
        from chextools.binarize import surface_of

        if self._heatmaps is None:
            self._heatmaps = heatmaps.of_record(self._record, self._tasks)
        loaded = self._heatmaps
        if loaded.size != truth.size:
            raise InputError(f"the heatmap is for an image of {list(loaded.size)}, its truth of {list(truth.size)}")
        if task in loaded.failed:
            raise InputError(loaded.failed[task])
        if task not in loaded.maps:
            return False
        return truth.contains(*surface_of(loaded.maps[task], loaded.size, input_size=loaded.input_size).argmax())


def summarise(rows: Sequence[Row], truth: Truth, settings: Settings, failed: int = 0) -> Evaluation:
    """Tables, replicates and summary of all metrics.

    failed: records, predictions or truth, that could not be read; every summary row counts them, as they may have
    changed its number.
    """
    by_id = {row.id: row for row in rows}
    missing = sorted(truth.records.keys() - by_id.keys())
    strangers = [row.id for row in rows if not row.has_truth]
    if missing:
        log.warning("in the truth but not predicted, counted as empty masks and missed hits: %s", few(missing))
    if strangers:
        fate = "their truth counts as empty" if settings.slice == "full" else "left out"
        log.warning("predicted but not in the truth, %s: %s", fate, few(strangers))
    for identifier in missing:
        by_id[identifier] = _row(None, truth.records[identifier], settings)
    rows = [by_id[identifier] for identifier in sorted(by_id)]
    kept = _predicted_tasks(rows, settings.tasks)
    return _Summary(rows, [settings.tasks[k] for k in kept], kept, settings, failed).evaluation()


def _predicted_tasks(rows: Sequence[Row], names: Sequence[str]) -> list[int]:
    """Columns of the tasks of which there is any prediction. One predicted for some CXRs only counts for all."""
    lacks = np.array([row.lacks for row in rows if row.has_prediction])
    kept = [k for k in range(len(names)) if not lacks[:, k].all()]
    if not kept:
        raise InputError(f"the predictions have none of the truth's tasks: {', '.join(names)}")
    if len(kept) < len(names):
        left = [task for k, task in enumerate(names) if k not in kept]
        log.warning("no prediction of %s: left out", ", ".join(left))
    partly = {names[k]: int(lacks[:, k].sum()) for k in kept if lacks[:, k].any()}
    for task, number in partly.items():
        log.warning("%s: %d predictions lack it: counted as empty masks and missed hits", task, number)
    return kept


class _Summary:
    """The rows as arrays [n, K], and every metric made of them."""

    def __init__(self, rows: list[Row], names: list[str], columns: list[int], settings: Settings, failed: int):
        def stack(name: str) -> np.ndarray:
            return np.array([getattr(row, name)[columns] for row in rows]).reshape(len(rows), len(columns))

        self.rows, self.names, self.settings = rows, names, settings
        self.predicted, self.truth, self.both, self.hit = map(stack, ("predicted", "truth", "both", "hit"))
        self.pixels = np.array([row.pixels for row in rows])[:, None]
        self.in_truth = np.array([row.has_truth for row in rows])
        self.is_predicted = np.array([row.has_prediction for row in rows])
        self.failed = failed + np.array([sum(task in row.failed for row in rows) for task in names])
        self.summary: list[dict] = []
        self.tables: dict[str, Table] = {}

    def evaluation(self) -> Evaluation:
        for metric in METRICS:
            if metric in self.settings.metrics:
                getattr(self, f"_{metric}")()
        return Evaluation(self.summary, self.tables, self.rows, self.names)

    def _iou(self) -> None:
        full = self.settings.slice == "full"
        chosen = np.ones(len(self.rows), bool) if full else self.in_truth
        both, predicted, truth = self.both[chosen], self.predicted[chosen], self.truth[chosen]
        values = overlap.iou(both, predicted, truth, self.settings.slice)
        dice = overlap.dice(both, predicted, truth, self.settings.slice)
        defined = ~np.isnan(values)
        both, union = (np.where(defined, a, 0).sum(axis=0) for a in (both, predicted + truth - both))
        positive = truth > 0
        extras = {
            "observed": bootstrap.nanmean(values),
            "dice": bootstrap.nanmean(dice),
            "pooled_iou": np.divide(both, union, out=np.full(len(union), np.nan), where=union > 0),
            "positives": positive.sum(axis=0),
            "misses_as_0": bootstrap.nanmean(np.where(positive, np.nan_to_num(values), np.nan)),
        }
        self._tabulate("iou", chosen, values, extras, slice=self.settings.slice)

    def _hit(self) -> None:
        values = self.hit[self.in_truth]
        self._tabulate("hit", self.in_truth, values, {"observed": bootstrap.nanmean(values)})

    def _tabulate(self, metric: str, chosen: np.ndarray, values: np.ndarray, extras: dict, **settings) -> None:
        groups = self._groups(chosen)
        replicates = bootstrap.means(values, self.settings.replicates, self.settings.seed, groups)
        ids = [row.id for row, taken in zip(self.rows, chosen) if taken]
        self.tables[metric] = Table(ids, self.names, values, replicates)
        self._rows(metric, bootstrap.nanmean(replicates), replicates, (~np.isnan(values)).sum(axis=0), extras, settings)

    def _pixel(self) -> None:
        chosen = self.in_truth
        areas = [self.both, self.predicted, self.truth, np.broadcast_to(self.pixels, self.truth.shape)]
        areas = np.stack([a[chosen] for a in areas], axis=1)  # [n, 4, K]
        n = (~np.isnan(areas).any(axis=1)).sum(axis=0)
        areas = np.where(np.isnan(areas).any(axis=1, keepdims=True), 0, areas)
        flat = areas.reshape(len(areas), -1)
        sums = bootstrap.sums(flat, self.settings.replicates, self.settings.seed, self._groups(chosen))
        replicates = sums.reshape(-1, *areas.shape[1:])
        for metric, ratio in overlap.PIXEL_METRICS.items():
            pooled = ratio(*areas.sum(axis=0))
            self._rows(metric, pooled, ratio(*replicates.transpose(1, 0, 2)), n, {}, {})

    def _count(self) -> None:
        chosen = self.is_predicted
        predicted = self.predicted[chosen]
        values = np.where(np.isnan(predicted), np.nan, predicted > 0)
        replicates = bootstrap.means(values, self.settings.replicates, self.settings.seed, self._groups(chosen))
        count = np.nansum(values, axis=0).astype(int)
        n = (~np.isnan(values)).sum(axis=0)
        self._rows("count", bootstrap.nanmean(values), replicates, n, {"count": count}, {})

    def _groups(self, chosen: np.ndarray) -> tuple[np.ndarray, int] | None:
        if self.settings.resample == "cxr":
            return None
        return bootstrap.groups_of([row.patient for row, taken in zip(self.rows, chosen) if taken])

    def _rows(self, metric: str, mean, replicates, n, extras: dict, settings: dict) -> None:
        """One summary row per task, sorted by name as in the study, and their average."""
        for k in sorted(range(len(self.names)), key=self.names.__getitem__):
            self._row(metric, self.names[k], mean[k], replicates[:, k], n[k], self.failed[k],
                      {name: value[k] for name, value in extras.items()}, settings)  # fmt: skip
        average = {
            name: value.sum() if value.dtype.kind == "i" else bootstrap.nanmean(value) for name, value in extras.items()
        }
        self._row(metric, AVERAGE, bootstrap.nanmean(mean), bootstrap.nanmean(replicates, axis=1), n.sum(),
                  self.failed.max(), average, settings)  # fmt: skip

    def _row(self, metric: str, task: str, mean, replicates, n, failed, extras: dict, settings: dict) -> None:
        lower, upper, count = bootstrap.interval(replicates)
        self.summary.append(
            {"metric": metric, "task": task, "mean": float(mean), "lower": lower, "upper": upper, "n": int(n)}
            | {"replicates": count, "failed": int(failed)}
            | {name: value.item() for name, value in extras.items()}
            | settings
            | {"resample": self.settings.resample, "seed": self.settings.seed}
        )


def per_image(evaluation: Evaluation) -> Iterator[dict]:
    """One record per CXR with its value of each metric by task; null where undefined."""
    found = {metric: dict(zip(table.ids, table.values)) for metric, table in evaluation.tables.items()}
    for row in evaluation.rows:
        record = {"id": row.id, "patient": row.patient}
        for metric, values in found.items():
            if row.id in values:
                record[metric] = dict(zip(evaluation.tasks, values[row.id].tolist()))
        if row.scores:
            record["scores"] = row.scores
        yield record | ({"failed": row.failed} if row.failed else {})


def replicate_rows(evaluation: Evaluation) -> Iterator[dict]:
    """One object per metric and replicate: its mean by task."""
    for metric, table in evaluation.tables.items():
        for number, values in enumerate(table.replicates.tolist()):
            yield {"metric": metric, "replicate": number, "means": dict(zip(table.tasks, values))}
