"""chex-regress: what explains how well a CXR is localised, the shape of the truth or the model's score?

The regressions are those of Saporta et al. 2022 (Methods): ordinary least squares on one feature at a time. Beyond
them there is one model of all features, whose errors allow for patients with several CXRs and tasks.

    from chextools import regress
    rows = regress.run(["per_image.jsonl"], regress.RegressionSettings(features="features.jsonl"))
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.reading import open_heatmap
from chextools.inputs import inputs
from chextools.metrics.catalogue import BY_IMAGE, FEATURES
from chextools.metrics.regression import FEW, FEW_FREEDOM, joint, scaled, single, spearman
from chextools.plumbing import streams
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.records.tally import Tally
from chextools.results import study_csv
from chextools.results.measured import read_measured
from chextools.results.results import join
from chextools.tasks import canonical, choose

log = logging.getLogger(__name__)

OVERALL = "Overall"


@dataclass(frozen=True, kw_only=True)
class RegressionSettings:
    """What to regress results on.

    features: rows of chex-features, or a folder of the study's four CSV files; or
    scores: records or results that have scores, or a folder of heatmaps. Each is a path, or - for stdin.
    minus: other results, to regress the difference.
    metric: of `catalogue.BY_IMAGE`; None for all that the results have.
    tasks: those wanted; none for all.
    """

    features: str | None = None
    scores: str | None = None
    minus: str | None = None
    metric: str | None = None
    tasks: Sequence[str] = ()

    @property
    def against(self) -> str:
        """What the results are regressed on."""
        return "scores" if self.features is None else "features"


@dataclass
class Results:
    """Per-image results: metric -> id -> task -> value, NaN where undefined; and whose images they are.

    A metric is one of `BY_IMAGE`, or of their differences, such as iou_diff.
    """

    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)

    def minus(self, other: Results) -> Results:
        """The difference, CXR by CXR, of the metrics that both have. Raises InputError if there are none."""
        shared = [metric for metric in self.values if metric in other.values]
        if not shared:
            raise InputError(
                f"nothing to subtract: the results have {', '.join(self.values)}, the others {', '.join(other.values)}"
            )
        difference = Results(patients=self.patients)
        for metric in shared:
            left, right = self.values[metric], other.values[metric]
            both = join(left, "the results", right, "those to subtract")
            difference.values[f"{metric}_diff"] = {
                i: {task: value - right[i].get(task, math.nan) for task, value in left[i].items()} for i in both
            }
        return difference


def run(
    inputs: Sequence[str],
    settings: RegressionSettings,
    *,
    stdin: BinaryIO | None = None,
    tally: Tally | None = None,
    known: Callable[[list[str]], object] | None = None,
) -> list[dict]:
    """A row per metric and feature, or metric and task, of results: paths, or `-` for `stdin`.

    tally: counts what fails, and shows progress. known: called with the metrics (such as iou_diff) once they are known,
    before the work. Raises InputError where there is nothing to regress.
    """
    stdin, tally = stdin or sys.stdin.buffer, tally or Tally()
    if (settings.features is None) == (settings.scores is None):
        raise InputError("results are regressed on features or on scores")
    results = _results_of(inputs, settings.metric, stdin, tally)
    if settings.minus is not None:
        results = results.minus(_results_of([settings.minus], settings.metric, stdin, tally))
    if known:
        known(list(results.values))
    names = {task for values in results.values.values() for row in values.values() for task in row}
    wanted = choose(settings.tasks, names, "the results")
    chosen = wanted if settings.tasks else ()
    if settings.features is not None:
        given = list(_explanations(read_features(settings.features, stdin), settings.features, tally))
        return list(on_features(results, given, chosen, tally.failed))
    scored = _explanations(read_scores(str(settings.scores), stdin), str(settings.scores), tally)
    scores = {record["id"]: record["scores"] for record in tally.progress(scored, "CXRs")}
    return list(on_scores(results, scores, chosen, tally.failed))


def _results_of(sources: Sequence[str], metric: str | None, stdin: BinaryIO, tally: Tally) -> Results:
    where = "stdin" if sources[0] == "-" else sources[0]
    _, items = records.peek(read_results(sources, stdin, metric), where)
    return collect(tally.passing(items), where, metric)


def _explanations(items: Iterable[Located | Failure], source: str, tally: Tally) -> Iterator[dict]:
    """What results are regressed on: as records these do not count, unless they fail."""
    _, items = records.peek(items, "stdin" if source == "-" else source)
    for item in items:
        if isinstance(item, Failure):
            tally.take([item])
        else:
            yield item.record


def read_results(sources: Sequence[str], stdin: BinaryIO, metric: str | None = None) -> Iterator[Located | Failure]:
    """Per-image results as records: chex-eval's, or of the study's CSV, whose metric is its name's prefix or `metric`.

    Raises InputError where an input as a whole cannot be used.
    """
    seen: dict[tuple[str, str], str] = {}
    for source in sources:
        for item in read_measured(source, stdin, metric, need_metric=True):
            if isinstance(item, Located) and "id" not in item.record:
                item = Failure(item.where, "replicates, not per-image results")
            yield _once(item, seen)


def _once(item: Located | Failure, seen: dict[tuple[str, str], str]) -> Located | Failure:
    """The item, unless its id had a value of the metric before."""
    if isinstance(item, Located):
        for key in [(item.record["id"], metric) for metric in BY_IMAGE if metric in item.record["values"]]:
            if key in seen:
                return Failure(item.where, f"duplicate id {key[0]!r}, first at {seen[key]}")
            seen[key] = item.where
    return item


def collect(items: Iterable[dict], where: str, metric: str | None = None) -> Results:
    """Results of all records, of one metric if it is given. Raises InputError if there are none."""
    results = Results()
    for record in items:
        results.patients[record["id"]] = record["patient"]
        for name in BY_IMAGE:
            if name in record["values"] and metric in (None, name):
                results.values.setdefault(name, {})[record["id"]] = record["values"][name]
    if not results.values:
        raise InputError(f"{where}: no results{f' of {metric}' if metric and results.patients else ''}")
    return results


# What the results are regressed on


def read_features(source: str, stdin: BinaryIO) -> Iterator[Located | Failure]:
    """Rows {"id", "task", and a number or None per feature}, of chex-features or the study's folder of four CSVs."""
    if source != "-" and os.path.isdir(source):
        items = _study_features(source)
    else:
        items = _feature_rows(source, stdin)
    seen: dict[tuple[str, str], str] = {}
    for item in items:
        if isinstance(item, Located):
            key = item.record["id"], item.record["task"]
            first = seen.setdefault(key, item.where)
            if first != item.where:
                item = Failure(item.where, f"{key[1]} of {key[0]!r} comes twice, first at {first}")
        yield item


def _feature_rows(source: str, stdin: BinaryIO) -> Iterator[Located | Failure]:
    name = "stdin" if source == "-" else source
    with streams.open_source(source, stdin) as stream:
        if not streams.is_json(stream):
            raise InputError(f"{name}: neither chex-features' JSON Lines nor a folder of the study's CSV files")
        for item in inputs.objects(stream, name):
            if isinstance(item, Located):
                try:
                    item = Located(item.where, _checked_features(item.record))
                except InputError as error:
                    item = Failure(item.where, str(error))
            yield item


def _checked_features(row: dict) -> dict:
    lacking = [key for key in ("id", "task", *FEATURES) if key not in row]
    if lacking:
        raise InputError(f'no "{lacking[0]}" key: not a row of chex-features')
    records.check_id(row["id"])
    if not isinstance(row["task"], str):
        raise InputError('"task" must be a string')
    numbers = {feature: records.number(row[feature], feature) for feature in FEATURES}
    upstream = row.get("failed", 0)
    upstream = upstream if type(upstream) is int else 0
    return {"id": row["id"], "task": canonical(row["task"])} | numbers | {"upstream": upstream}


def _study_features(folder: str) -> Iterator[Located | Failure]:
    rows: dict[tuple[str, str], dict] = {}
    for file, feature in study_csv.FEATURES_FILES.items():
        path = os.path.join(folder, file)
        with streams.open_input(path, named=False) as stream:
            for item in study_csv.read_by_cxr(stream, path):
                if isinstance(item, Failure):
                    yield item
                    continue
                for task, value in item.record["values"].items():
                    row = rows.setdefault((item.record["id"], task), {"id": item.record["id"], "task": task})
                    if feature in row:
                        yield Failure(item.where, f"duplicate id {item.record['id']!r}")
                        break
                    row[feature] = value if math.isfinite(value) else math.nan
    for (identifier, task), row in rows.items():
        where = f"{folder}: {identifier}: {task}"
        lacking = [file for file, feature in study_csv.FEATURES_FILES.items() if feature not in row]
        if lacking:
            yield Failure(where, f"not in {lacking[0]}")
        else:
            yield Located(where, row | {"irrectangularity": 1 - row["rec_area_ratio"]})


def read_scores(source: str, stdin: BinaryIO) -> Iterator[Located | Failure]:
    """Records {"id", "scores"}: of records or per-image results that have scores, else from their heatmaps."""
    for item in inputs.read_all([source], stdin):
        if isinstance(item, Located):
            try:
                item = Located(item.where, {"id": item.record["id"], "scores": _scores_of(item.record)})
            except InputError as error:
                item = Failure(item.where, str(error))
        yield item


def _scores_of(record: dict) -> dict[str, float]:
    scores = record.get("scores")
    if scores is None and "heatmap" in record:
        scores = open_heatmap(record["heatmap"]).scores
    if not scores:
        raise InputError("no scores")
    return {task: records.number(value, "scores") for task, value in scores.items()}


# Regressions


def on_features(
    results: Results, features: Sequence[dict], tasks: Sequence[str] = (), failed: int = 0
) -> Iterator[dict]:
    """Rows of each metric: four single models, as the study's, then the terms of the joint one.

    Pairs of CXR and task count where the truth has a mask. Single: the feature is scaled to [0, 1] by its least and
    greatest value over these pairs; p is multiplied by four. Joint: all is standardised (mean 0, standard deviation 1).
    """
    ids = {row["id"] for row in features}
    failed += max((row.get("upstream", 0) for row in features), default=0)
    for metric, values in results.values.items():
        both = set(join(values, "the results", ids, "the features"))
        rows = [r for r in features if r["id"] in both and r["area_ratio"] > 0 and (not tasks or r["task"] in tasks)]
        known = {task for by_task in values.values() for task in by_task}
        absent = sorted({row["task"] for row in rows} - known)
        if absent:
            log.warning("no result of %s", ", ".join(absent))
        y = np.array([values[row["id"]].get(row["task"], math.nan) for row in rows])
        x = np.array([[row[feature] for feature in FEATURES] for row in rows]).reshape(-1, len(FEATURES))
        shared = {"metric": metric, "task": OVERALL}
        for feature, column in zip(FEATURES, x.T):
            n, fit = single(scaled(column), y)
            yield shared | {"feature": feature, "model": "single", "n": n} | fit.row(len(FEATURES)) | {"failed": failed}
        n, groups, fits = joint(x, y, [results.patients[row["id"]] for row in rows])
        for feature, fit in zip(FEATURES, fits):
            start = shared | {"feature": feature, "model": "joint", "n": n, "patients": groups, "freedom": fit.freedom}
            row = start | fit.row(len(FEATURES)) | {"failed": failed}
            if fit.freedom is not None and (groups < FEW or fit.freedom < FEW_FREEDOM):
                row["note"] = (
                    f"errors by patient, of {groups}, have {fit.freedom:.1f} degrees of freedom only: "
                    "take the interval for a rough one"
                )
            yield row
        rough = [fit.freedom for fit in fits if fit.freedom is not None]
        if rough and (groups < FEW or min(rough) < FEW_FREEDOM):
            span = " to ".join(dict.fromkeys(f"{bound:.1f}" for bound in (min(rough), max(rough))))
            what = "%s: errors by patient, of %d, have %s degrees of freedom: joint intervals are rough ones"
            log.warning(what, metric, groups, span)


def on_scores(
    results: Results, scores: Mapping[str, Mapping[str, float]], tasks: Sequence[str] = (), failed: int = 0
) -> Iterator[dict]:
    """A row per metric and task, by name, and one over all: the metric on the score, and Spearman's correlation.

    p is not multiplied, as the study asks one question of each task.
    """
    for metric, values in results.values.items():
        both = join(values, "the results", scores, "the scores")
        names = sorted(tasks or {task for by_task in values.values() for task in by_task})
        columns = {
            task: np.array(
                [(scores[i].get(task, math.nan), values[i].get(task, math.nan)) for i in both], float
            ).reshape(-1, 2)
            for task in names
        }
        unscored = [task for task, column in columns.items() if np.isnan(column[:, 0]).all()]
        if unscored:
            log.warning("no score of %s", ", ".join(unscored))
        columns[OVERALL] = np.concatenate(list(columns.values()))
        for task, column in columns.items():
            x, y = column.T
            n, fit = single(x, y)
            start = {"metric": metric, "task": task, "feature": "score"}
            correlated = dict(zip(("spearman", "spearman_lower", "spearman_upper", "spearman_p"), spearman(x, y)))
            yield start | {"model": "single", "n": n} | fit.row(1) | correlated | {"failed": failed}
