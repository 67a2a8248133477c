"""How well masks, heatmaps and points localise what radiologists outlined: tables and rows of all CXRs."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from chextools.errors import InputError
from chextools.evaluation.gathered import Gathered
from chextools.evaluation.looking import HAS_LOOK, PIXELS, Looked, looked_at, places_of
from chextools.evaluation.rows import drawn, groups_of, over_tasks
from chextools.evaluation.settings import EvaluationSettings
from chextools.inputs.truth import Truth
from chextools.metrics import bootstrap, overlap
from chextools.metrics.catalogue import LOCALISATION, MASKS, Metric
from chextools.records.ids import near_miss
from chextools.records.records import Located, few
from chextools.records.tally import Tally, unseen
from chextools.results.results import AVERAGE, Evaluation, Table
from chextools.results.rows import NO_TASK, interval_row

_Counted = tuple[np.ndarray, np.ndarray]  # [K] each: CXRs that have something, CXRs or patients to draw it from

_OF_NOTHING = {"precision": "nothing is predicted where there is a truth", "specificity": "the truth is everywhere"}

log = logging.getLogger(__name__)


def gathered(
    rows: Iterable[Looked], truth: Truth | None, settings: EvaluationSettings, tally: Tally | None = None
) -> Gathered:
    """All CXRs of predictions and truth, sorted by id; says which are on one side only.

    tally: counts truth that cannot be read and nobody predicted.
    """
    found = Gathered()
    for row in rows:
        found.add(row)
    if truth is not None:
        _add_missing(found, truth, settings, tally or Tally())
    found.sort()
    return found


def evaluation_of(
    rows: Gathered,
    truth: Truth | None,
    settings: EvaluationSettings,
    failed: int = 0,
    progress: Callable[..., Iterable] = unseen,
) -> Evaluation:
    """Tables, replicates and summary of all metrics.

    truth: None where no metric needs one. failed: records, predictions or truth, that could not be read; every summary
    row counts them, as they may have changed its number. progress: as of `Tally`.
    """
    if not rows.has_prediction.any():
        raise InputError("none of the predictions could be evaluated")
    kinds = []
    steps = iter(progress(range(settings.replicates * len(settings.localisation)), "replicates"))
    for of_masks in (True, False):
        metrics = [name for name in settings.localisation if (LOCALISATION[name].looks_at == MASKS) == of_masks]
        if metrics:
            kept = _with_masks(rows) if of_masks else _with_looks(rows)
            counted = rows.has_truth | (of_masks and settings.slice == "full")
            _say_lacking(rows, settings.tasks, kept, metrics, of_masks, counted)
            kinds.append(_Kind(rows, np.flatnonzero(kept).tolist(), of_masks, settings, failed, steps))
    if not any(kind.names for kind in kinds):
        raise InputError(f"the predictions have none of the truth's tasks: {', '.join(settings.tasks)}")
    result = Evaluation([], {}, rows, kinds[0].names or kinds[-1].names)
    for name in settings.localisation:
        for kind in kinds:
            if kind.names and kind.of_masks == (LOCALISATION[name].looks_at == MASKS):
                kind.add(name, result)
    if truth:
        _say_boxes(result, truth)
    return result


def _say_boxes(result: Evaluation, truth: Truth) -> None:
    """A model's region against boxes overlaps less than against outlines: rows that are of boxes say so."""
    kinds = {task: kind for task in result.tasks if (kind := truth.drawn_as(task))}
    whole = "boxes" if len(kinds) == len(result.tasks) and set(kinds.values()) == {"boxes"} else "boxes and outlines"
    for row in result.summary:
        kind = kinds.get(row["task"]) or (whole if kinds and row["task"] == AVERAGE else None)
        if kind and row["metric"] != "count":
            row["truth"] = kind


def _add_missing(rows: Gathered, truth: Truth, settings: EvaluationSettings, tally: Tally) -> None:
    """Add the CXRs that were not predicted."""
    known = set(rows.ids)
    if known and truth.records.keys().isdisjoint(known):
        raise InputError(
            f"no id of the predictions is in the truth: they have {min(known)}, that has {min(truth.records)}"
            + near_miss(rows.ids, truth.records)
        )
    missing = sorted(identifier for identifier in truth.records if identifier not in known)
    strangers = [identifier for identifier in rows.ids if identifier not in truth.records]
    if missing:
        log.warning("in the truth but not predicted, counted as empty masks and missed hits: %s", few(missing))
    if strangers:
        fate = "their truth counts as empty" if settings.slice == "full" else "left out"
        log.warning("predicted but not in the truth, %s: %s", fate, few(strangers, missing))
    for identifier in missing:
        row = looked_at(None, truth.records[identifier], settings)
        rows.add(row)
        if row.failed:
            tally.take([Located(f"{truth.where}: {identifier}", {"failed": row.failed})])


def _with_masks(rows: Gathered) -> np.ndarray:
    """Of which tasks there is any mask, bool [K]; what failed counts, as somebody tried."""
    return ~rows.lacks_mask[rows.has_prediction].all(axis=0)


def _with_looks(rows: Gathered) -> np.ndarray:
    """Of which tasks there is any point or heatmap, or nobody asked, as there is no truth to hit: bool [K]."""
    points = rows.measured[:, HAS_LOOK][rows.has_prediction]
    return np.isnan(points).all(axis=0) | (points == 1).any(axis=0)


def _say_lacking(
    rows: Gathered, names: Sequence[str], kept: np.ndarray, metrics: Sequence[str], of_masks: bool, counted: np.ndarray
) -> None:
    """A task that no prediction has is left out; one that only some have counts for all that are counted, bool [n]."""
    left = [task for task, is_kept in zip(names, kept) if not is_kept]
    if left:
        log.warning("%s: no prediction of %s: left out", " and ".join(sorted(metrics)), ", ".join(left))
    lacks = rows.lacks_mask if of_masks else rows.measured[:, HAS_LOOK] == 0
    for k in np.flatnonzero(kept).tolist():
        lacking = np.flatnonzero(lacks[:, k] & rows.has_prediction & counted).tolist()
        if lacking:
            fate = "no mask, counted as empty" if of_masks else "no heatmap, counted as missed"
            log.warning("%s: %s: %s", names[k], fate, few([rows.ids[number] for number in lacking]))


class _Kind:
    """The CXRs as arrays [n, K] of those tasks that have masks, or heatmaps and points, and the metrics of these."""

    def __init__(
        self,
        rows: Gathered,
        columns: list[int],
        of_masks: bool,
        settings: EvaluationSettings,
        failed: int,
        steps: Iterator,
    ):
        self.rows, self.of_masks, self.settings, self.steps = rows, of_masks, settings, steps
        self.names = [settings.tasks[k] for k in columns]
        self.measured = rows.measured  # [n, parts, K]
        if len(columns) < len(settings.tasks):
            self.measured = self.measured[:, :, columns]
        self.places = places_of(settings)
        self.in_truth, self.is_predicted = rows.has_truth, rows.has_prediction
        self.failed = failed + np.array([len(rows.failures(of_masks, task)) for task in self.names])

    def add(self, name: str, result: Evaluation) -> None:
        """A metric's rows, and its table where it has a value per CXR."""
        metric, before = LOCALISATION[name], len(result.summary)
        if name in ("iou", "dice"):
            self._overlap(name, result)
        elif name == "pixel":
            self._pixel(result)
        elif name == "count":
            self._count(result)
        elif metric.counts:
            self._pooled(name, metric, result)
        else:
            self._per_image(name, metric, result)
        self._explain(result.summary[before:], metric)

    def _areas(self, chosen: np.ndarray) -> np.ndarray:
        """Areas [4, n, K] of pixels of the image, predicted, truth and both."""
        return self._parts(slice(0, 4), chosen)

    def _parts(self, place: slice, chosen: np.ndarray) -> np.ndarray:
        """What was measured of the chosen CXRs, [parts, n, K]."""
        parts = self.measured[:, place]
        return (parts if chosen.all() else parts[chosen]).transpose(1, 0, 2)

    def _chosen(self) -> np.ndarray:
        """CXRs over which metrics of masks are taken."""
        return np.ones(len(self.rows), bool) if self.settings.slice == "full" else self.in_truth

    def _overlap(self, name: str, result: Evaluation) -> None:
        slice_ = self.settings.slice
        chosen = self._chosen()
        pixels, predicted, truth, both = self._areas(chosen)
        of_areas = {"iou": overlap.iou, "dice": overlap.dice}
        values = of_areas[name](both, predicted, truth, slice_)
        extras = {"observed": bootstrap.nanmean(values)}
        if name == "iou":
            defined = ~np.isnan(values)
            inside, union = (np.where(defined, a, 0).sum(axis=0) for a in (both, predicted + truth - both))
            extras["dice"] = bootstrap.nanmean(overlap.dice(both, predicted, truth, slice_))
            extras["pooled_iou"] = np.divide(inside, union, out=np.full(len(union), np.nan), where=union > 0)
        else:
            extras["chance"] = bootstrap.nanmean(overlap.dice(predicted * truth / pixels, predicted, truth, slice_))
        extras |= _silent(values, truth)
        self._tabulate(name, chosen, values, extras, {"slice": slice_}, result)

    def _per_image(self, name: str, metric: Metric, result: Evaluation) -> None:
        """A metric with a value per CXR, the mean of which is taken."""
        chosen = self._chosen() if self.of_masks else self.in_truth
        pixels, _, truth, _ = self._areas(chosen)
        parts = self._parts(self.places[name], chosen)
        values = parts[0]
        extras = {"observed": bootstrap.nanmean(values)}
        if metric.chance == "share":
            extras["chance"] = bootstrap.nanmean(np.where(np.isnan(values), np.nan, truth / pixels))
        elif metric.chance:
            extras["chance"] = np.where(np.isnan(extras["observed"]), np.nan, float(metric.chance))
        if metric.floor:
            extras["floor"] = bootstrap.nanmean(np.where(np.isnan(values), np.nan, parts[1 + len(metric.extras)]))
        extras |= {extra: bootstrap.nanmean(part) for extra, part in zip(metric.extras, parts[1:])}
        if self.of_masks:
            silent = _silent(values, truth)
            extras |= {"positives": silent["positives"]} if metric.is_distance else silent
        told = {"slice": self.settings.slice} if self.of_masks else {}
        told |= {option: getattr(self.settings, option) for option in metric.options}
        if "spacing" in told:
            told["unit"] = PIXELS if told["spacing"] in (None, PIXELS) else "mm"
            if told["unit"] == PIXELS:
                del told["spacing"]
        self._tabulate(name, chosen, values, extras, {k: v for k, v in told.items() if v}, result)

    def _tabulate(
        self,
        name: str,
        chosen: np.ndarray,
        values: np.ndarray,
        extras: Mapping[str, np.ndarray],
        told: Mapping[str, object],
        result: Evaluation,
    ) -> None:
        replicates = self._means(values, chosen)
        ids = list(itertools.compress(self.rows.ids, chosen))
        result.tables[name] = Table(ids, self.names, values, replicates)
        has = self._counted(~np.isnan(values), chosen)
        result.summary += self._rows(name, bootstrap.nanmean(replicates), replicates, has, extras, told)

    def _pixel(self, result: Evaluation) -> None:
        areas = self._areas(self.in_truth)[[3, 1, 2, 0]].transpose(1, 0, 2)  # [n, 4, K]: both, predicted, truth, pixels
        total, replicates, has = self._summed(areas, self.in_truth)
        pooled, drawn_anew = overlap.pixel_ratios(*total), overlap.pixel_ratios(*replicates.transpose(1, 0, 2))
        for metric, values in pooled.items():
            result.summary += self._rows(metric, values, drawn_anew[metric], has, {}, {})

    def _pooled(self, name: str, metric: Metric, result: Evaluation) -> None:
        """A metric of counts that are summed over CXRs."""
        counts = self._parts(self.places[name], self.in_truth).transpose(1, 0, 2)
        total, replicates, has = self._summed(counts[:, : metric.counts], self.in_truth)
        summary = metric.load("summary")
        told = {option: getattr(self.settings, option) for option in metric.options}
        mean, extras = summary(total, **told)
        if metric.floor:
            extras = {"floor": summary(np.nansum(counts[:, metric.counts :], axis=0), **told)[0]} | extras
        result.summary += self._rows(name, mean, summary(replicates, **told)[0], has, extras, told)

    def _summed(self, counts: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Counted]:
        """Sums of counts [n, C, K] over CXRs, [C, K]; of each replicate, [R, C, K]; CXRs that have them."""
        unknown = np.isnan(counts).any(axis=1)
        counts = np.where(unknown[:, None], 0, counts)
        flat = counts.reshape(len(counts), -1)
        sums = bootstrap.sums(flat, self.settings.replicates, self.settings.seed, self._groups(chosen), self.steps)
        return counts.sum(axis=0), sums.reshape(-1, *counts.shape[1:]), self._counted(~unknown, chosen)

    def _count(self, result: Evaluation) -> None:
        chosen = self.is_predicted
        predicted = self._areas(chosen)[1]
        values = np.where(np.isnan(predicted), np.nan, predicted > 0)
        replicates = self._means(values, chosen)
        count = np.nansum(values, axis=0).astype(int)
        has = self._counted(~np.isnan(values), chosen)
        result.summary += self._rows("count", bootstrap.nanmean(values), replicates, has, {"count": count}, {})

    def _means(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Replicate means of a table [n, K] of the chosen CXRs."""
        replicates, seed = self.settings.replicates, self.settings.seed
        return bootstrap.means(values, replicates, seed, self._groups(chosen), self.steps)

    def _counted(self, has: np.ndarray, chosen: np.ndarray) -> _Counted:
        """Of bool [n, K], which of the chosen CXRs have something."""
        return has.sum(axis=0), bootstrap.drawable(has, self._groups(chosen))

    def _groups(self, chosen: np.ndarray) -> tuple[np.ndarray, int] | None:
        return groups_of(list(itertools.compress(self.rows.patients, chosen)), self.settings)

    def _rows(
        self,
        metric: str,
        mean: np.ndarray,
        replicates: np.ndarray,
        has: _Counted,
        extras: Mapping[str, np.ndarray],
        told: Mapping[str, object],
    ) -> list[dict]:
        """One summary row per task, sorted by name as in the study, and their average."""
        rows = []
        tail = dict(told) | drawn(self.settings)
        n, drawable = has
        for k in sorted(range(len(self.names)), key=self.names.__getitem__):
            row = interval_row(metric, self.names[k], mean[k], replicates[:, k], n[k], self.failed[k], drawable[k])
            rows.append(row | {name: values[k].item() for name, values in extras.items()} | tail)
        over = bootstrap.nanmean(replicates, axis=1)
        failed, most = self.failed.max(), drawable.max()
        row = interval_row(metric, AVERAGE, float(bootstrap.nanmean(mean)), over, n.sum(), failed, most)
        return [*rows, row | over_tasks(extras) | tail]

    def _explain(self, rows: Sequence[dict], metric: Metric) -> None:
        """Why a task has no value, into its row."""
        for row in rows:
            if np.isnan(row["mean"]):
                row["reason"] = NO_TASK if row["task"] == AVERAGE else self._reason(row["metric"], row["task"], metric)

    def _reason(self, name: str, task: str, metric: Metric) -> str:
        positive = self.in_truth & (self.measured[:, 2, self.names.index(task)] > 0)
        failures = self.rows.failures(self.of_masks, task)
        if failures and positive.sum() == positive[failures].sum():
            return f"no CXR with a truth could be measured: {len(failures)} failed"
        if not positive.any():
            return "no CXR with a truth"
        return _OF_NOTHING.get(name) or metric.undefined or f"undefined for all {positive.sum()} CXRs with a truth"


def _silent(values: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """What shows that a mask was left empty: CXRs with a truth, and the mean over them with 0 where undefined."""
    positive = truth > 0
    misses = np.where(positive, np.nan_to_num(values), np.nan)
    return {"positives": positive.sum(axis=0), "misses_as_0": bootstrap.nanmean(misses)}
