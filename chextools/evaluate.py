"""chex-eval: how well masks, heatmaps and points localise what radiologists outlined, with confidence intervals."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from chextools.errors import InputError
from chextools.inputs.truth import Truth, masks_of
from chextools.masks.mask import Mask, intersection
from chextools.metrics import bootstrap, overlap
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located, few
from chextools.results.results import AVERAGE, Evaluation, Table

log = logging.getLogger(__name__)

METRICS = ("iou", "hit", "pixel", "count")
_OF_MASKS, _OF_POINTS = {"iou", "pixel", "count"}, {"hit"}


@dataclass(frozen=True)
class Settings:
    """What to measure: metrics of `METRICS` on these tasks, in this order."""

    metrics: frozenset[str]
    tasks: tuple[str, ...]
    slice: str = "positive"
    replicates: int = 1000
    seed: int = 0
    resample: str = "cxr"


@dataclass(slots=True)
class Row:
    """What was measured on one CXR: float64 [K] by task, NaN where it could not be.

    measured: these in one array [6, K], as there may be many rows. pixels: of the image; predicted, truth, both: areas
    in pixels; hit: 1, 0, or NaN where the truth is empty. points: whether the prediction has a point or heatmap (NaN:
    nobody asked). lacks_mask: bool [K], whether it has no mask. failed_masks, failed_hits: by task, why areas and hits
    could not be measured.
    """

    id: str
    patient: str
    has_truth: bool
    has_prediction: bool
    scores: dict[str, float]
    measured: np.ndarray
    lacks_mask: np.ndarray
    failed_masks: dict[str, str]
    failed_hits: dict[str, str]

    pixels, predicted, truth, both, hit, points = (
        property(lambda row, place=place: row.measured[place]) for place in range(6)
    )

    @property
    def failed(self) -> dict[str, str]:
        return self.failed_masks | self.failed_hits


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


def metrics_for(record: dict, requested: Collection[str]) -> frozenset[str]:
    """The requested metrics, all that the prediction allows where none is. Raises InputError for one it does not."""
    allowed = metrics_of(record)
    impossible = sorted(set(requested) - allowed)
    if impossible:
        mend = "; make masks with chex-segment" if "heatmap" in record else ""
        raise InputError(f"{record['id']}: allows {', '.join(sorted(allowed))}, not {', '.join(impossible)}{mend}")
    return frozenset(requested) or allowed


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

    def measured(record: dict) -> dict:
        metrics_for(record, settings.metrics)
        row = _row(record, truth, settings)
        return {"row": row, "failed": row.failed}

    return records.applied(measured, item)


def _row(record: dict | None, truth: dict | None, settings: Settings) -> Row:
    """Measure a prediction against its truth; either may be missing, which counts as empty."""
    either = (truth or {}) | (record or {})
    trues, failed_hits = masks_of(truth, settings.tasks)
    masks, failed = masks_of(record, settings.tasks)
    failed |= failed_hits
    row = Row(
        either["id"],
        records.patient(either),
        truth is not None,
        record is not None,
        either.get("scores", {}),
        np.full((6, len(settings.tasks)), np.nan),
        np.zeros(len(settings.tasks), bool),
        failed,
        failed_hits,
    )
    asked = [task for task, true in trues.items() if true is not None and true.area and "hit" in settings.metrics]
    prediction = _Prediction(record, asked) if record else None
    for k, task in enumerate(settings.tasks):
        if task in asked:
            try:
                row.points[k] = prediction is not None and prediction.has(task)
                row.hit[k] = row.points[k] and prediction.hits(task, trues[task])
            except InputError as error:
                failed_hits[task] = str(error)
        if task in failed:
            continue
        true, mask = trues[task], masks[task]
        if mask is not None and true is not None and mask.size != true.size:
            failed[task] = f"the mask has the size {list(mask.size)}, its truth {list(true.size)}"
            continue
        size = (true or mask or Mask((0, 0), np.empty(0))).size
        row.pixels[k] = size[0] * size[1] or np.nan
        row.truth[k] = true.area if true is not None else 0
        row.predicted[k] = mask.area if mask is not None else 0
        row.both[k] = intersection(mask, true) if mask is not None and true is not None else 0
        row.lacks_mask[k] = mask is None
    return row


class _Prediction:
    """Where a prediction points, for the tasks of which it will be asked; read once, when it is."""

    def __init__(self, record: dict, tasks: Collection[str]):
        self._record, self._tasks = record, tasks
        self._heatmaps = None

    def has(self, task: str) -> bool:
        """Whether there is a point or heatmap of the task; a human who drew no point has missed."""
        if "points" in self._record:
            return True
        if self._heatmaps is None:
            from chextools.heatmaps.reading import heatmaps_of  # here, as most evaluations read none

            self._heatmaps = heatmaps_of(self._record, self._tasks)
        return task in self._heatmaps.maps or task in self._heatmaps.failed

    def hits(self, task: str, truth: Mask) -> bool:
        """Whether a point, or the heatmap's greatest pixel (the first in row-major order), lies in the truth."""
        if "points" in self._record:
            return overlap.point_hit(self._record["points"].get(task, ()), truth)
        from chextools.heatmaps.surface import surface_of

        loaded = self._heatmaps
        if loaded.size != truth.size:
            raise InputError(f"the heatmap is for an image of {list(loaded.size)}, its truth of {list(truth.size)}")
        if task in loaded.failed:
            raise InputError(loaded.failed[task])
        return truth.contains(*surface_of(loaded.maps[task], loaded.size, input_size=loaded.input_size).argmax())


def summarise(rows: Sequence[Row], truth: Truth, settings: Settings, failed: int = 0) -> Evaluation:
    """Tables, replicates and summary of all metrics.

    failed: records, predictions or truth, that could not be read; every summary row counts them, as they may have
    changed its number.
    """
    by_id = {row.id: row for row in rows}
    if by_id and truth.records.keys().isdisjoint(by_id):
        raise InputError(
            f"no id of the predictions is in the truth: they have {min(by_id)}, that has {min(truth.records)}"
        )
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
    if not any(row.has_prediction for row in rows):
        raise InputError("none of the predictions could be evaluated")
    summary: list[dict] = []
    tables: dict[str, Table] = {}
    kinds = []
    for metrics, kept in ((_OF_MASKS, _with_masks(rows)), (_OF_POINTS, _with_points(rows))):
        if settings.metrics & metrics:
            _say_lacking(rows, settings.tasks, kept, " and ".join(sorted(settings.metrics & metrics)))
            kinds.append((metrics, _Summary(rows, np.flatnonzero(kept), metrics == _OF_POINTS, settings, failed)))
    if not any(kind.names for _, kind in kinds):
        raise InputError(f"the predictions have none of the truth's tasks: {', '.join(settings.tasks)}")
    for metric in METRICS:
        for metrics, kind in kinds:
            if metric in metrics & settings.metrics and kind.names:
                getattr(kind, f"_{metric}")()
                summary += kind.summary
                tables |= kind.tables
                kind.summary = []
    return Evaluation(summary, tables, rows, kinds[0][1].names or kinds[-1][1].names)


def _with_masks(rows: Sequence[Row]) -> np.ndarray:
    """Of which tasks there is any mask, bool [K]; what failed counts, as somebody tried."""
    return ~np.all([row.lacks_mask for row in rows if row.has_prediction], axis=0)


def _with_points(rows: Sequence[Row]) -> np.ndarray:
    """Of which tasks there is any point or heatmap, or nobody asked, as there is no truth to hit: bool [K]."""
    points = np.array([row.points for row in rows if row.has_prediction])
    return np.isnan(points).all(axis=0) | (points == 1).any(axis=0)


def _say_lacking(rows: Sequence[Row], names: Sequence[str], kept: np.ndarray, what: str) -> None:
    """A task that no prediction has is left out; one that only some have counts for all."""
    left = [task for task, is_kept in zip(names, kept) if not is_kept]
    if left:
        log.warning("%s: no prediction of %s: left out", what, ", ".join(left))
    predicted = [row for row in rows if row.has_prediction]
    for k in np.flatnonzero(kept):
        lacking = [row.id for row in predicted if (row.points[k] == 0 if what == "hit" else row.lacks_mask[k])]
        if lacking:
            fate = "no heatmap, counted as missed" if what == "hit" else "no mask, counted as empty"
            log.warning("%s: %s: %s", names[k], fate, few(lacking))


class _Summary:
    """The rows as arrays [n, K] of some tasks, and the metrics made of them."""

    def __init__(self, rows: list[Row], columns: np.ndarray, of_points: bool, settings: Settings, failed: int):
        def stack(name: str) -> np.ndarray:
            return np.array([getattr(row, name)[columns] for row in rows]).reshape(len(rows), len(columns))

        self.rows, self.names, self.settings = rows, [settings.tasks[k] for k in columns], settings
        self.predicted, self.truth, self.both, self.hit = map(stack, ("predicted", "truth", "both", "hit"))
        self.pixels = stack("pixels")
        self.in_truth = np.array([row.has_truth for row in rows])
        self.is_predicted = np.array([row.has_prediction for row in rows])
        reasons = [row.failed_hits if of_points else row.failed_masks for row in rows]
        self.failed = failed + np.array([sum(task in by_task for by_task in reasons) for task in self.names])
        self.summary: list[dict] = []
        self.tables: dict[str, Table] = {}

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
        share = np.where(np.isnan(values), np.nan, self.truth[self.in_truth] / self.pixels[self.in_truth])
        extras = {"observed": bootstrap.nanmean(values), "chance": bootstrap.nanmean(share)}
        self._tabulate("hit", self.in_truth, values, extras)

    def _tabulate(self, metric: str, chosen: np.ndarray, values: np.ndarray, extras: dict, **settings) -> None:
        groups = self._groups(chosen)
        replicates = bootstrap.means(values, self.settings.replicates, self.settings.seed, groups)
        ids = [row.id for row, taken in zip(self.rows, chosen) if taken]
        self.tables[metric] = Table(ids, self.names, values, replicates)
        self._rows(metric, bootstrap.nanmean(replicates), replicates, (~np.isnan(values)).sum(axis=0), extras, settings)

    def _pixel(self) -> None:
        chosen = self.in_truth
        areas = [self.both, self.predicted, self.truth, self.pixels]
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
            self._row(
                metric,
                self.names[k],
                mean[k],
                replicates[:, k],
                n[k],
                self.failed[k],
                {name: value[k] for name, value in extras.items()},
                settings,
            )
        average = {
            name: value.sum() if value.dtype.kind == "i" else bootstrap.nanmean(value) for name, value in extras.items()
        }
        self._row(
            metric,
            AVERAGE,
            bootstrap.nanmean(mean),
            bootstrap.nanmean(replicates, axis=1),
            n.sum(),
            self.failed.max(),
            average,
            settings,
        )

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
    found = {metric: dict(zip(table.ids, table.values.tolist())) for metric, table in evaluation.tables.items()}
    for row in evaluation.rows:
        record = {"id": row.id, "patient": row.patient}
        for metric, values in found.items():
            if row.id in values:
                record[metric] = dict(zip(evaluation.tables[metric].tasks, values[row.id]))
        if row.scores:
            record["scores"] = row.scores
        yield record | ({"failed": row.failed} if row.failed else {})


def replicate_rows(evaluation: Evaluation) -> Iterator[dict]:
    """One object per metric and replicate: its mean by task."""
    for metric, table in evaluation.tables.items():
        for number, values in enumerate(table.replicates.tolist()):
            yield {"metric": metric, "replicate": number, "means": dict(zip(table.tasks, values))}
