"""chex-eval: how well masks, heatmaps and points localise what radiologists outlined, or how well scores classify.

from chextools import evaluate
result = evaluate.run(["masks.jsonl"], evaluate.EvaluationSettings(truth="gt.json", metrics=["iou"]))
result.summary
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO

from chextools.errors import InputError
from chextools.evaluation import localisation, looking
from chextools.evaluation.settings import EvaluationSettings
from chextools.inputs.inputs import read_all, read_some
from chextools.inputs.truth import read_truth
from chextools.metrics.catalogue import LOCALISATION
from chextools.plumbing.parallel import default_jobs
from chextools.records.records import Failure, few
from chextools.records.tally import Tally
from chextools.results.results import Evaluation
from chextools.tasks import choose, say_misspelled

if TYPE_CHECKING:
    from chextools.evaluation.shortcuts import Shortcut

log = logging.getLogger(__name__)

__all__ = ["EvaluationSettings", "per_image", "replicate_rows", "run"]


def run(
    inputs: Sequence[str], settings: EvaluationSettings, *, stdin: BinaryIO | None = None, tally: Tally | None = None
) -> Evaluation:
    """Evaluate predictions: paths of mask, heatmap, point or score records in any form, or `-` for `stdin`.

    tally: counts what fails, and shows progress. Raises InputError where there is nothing to evaluate.
    """
    stdin, tally = stdin or sys.stdin.buffer, tally or Tally()
    if settings.readers:
        return _agreed(inputs, settings, stdin, tally)
    return (_classified if settings.of_scores else _localised)(inputs, settings, stdin, tally)


def _localised(inputs: Sequence[str], settings: EvaluationSettings, stdin: BinaryIO, tally: Tally) -> Evaluation:
    if not settings.truth and settings.needs_truth:
        raise InputError("no truth to evaluate against")
    truth = read_truth(settings.truth, stdin, settings.truth_settings) if settings.truth else None
    lungs = read_truth(settings.lungs, stdin) if settings.lungs else None
    for known in filter(None, (truth, lungs)):
        tally.take(known.failures)
    chosen = choose(settings.tasks, truth.tasks, truth.where) if truth else []
    first, items = read_some(inputs, stdin)
    metrics = looking.metrics_for(first, settings.metrics)
    if truth:
        say_misspelled({*first.get("masks", ()), *first.get("points", ())}, truth.tasks, "the first prediction")
    else:
        chosen = choose(settings.tasks, looking.tasks_in(first), "the first heatmap")
    settings = replace(settings, metrics=metrics, tasks=tuple(chosen))
    settings = replace(settings, spacing=_unit(settings, first, truth.records.get(first["id"]) if truth else None))
    measured = looking.measure(items, truth, settings, settings.jobs or default_jobs(), lungs)
    rows = (record["row"] for record in tally.passing(tally.progress(measured, "CXRs")))
    found = localisation.gathered(rows, truth, settings, tally)
    if lungs and (without := [name for name in found.ids if name not in lungs.records]):
        log.warning("%s: no lungs, left out: %s", lungs.where, few(without))
    return localisation.evaluation_of(found, truth, settings, tally.skipped, tally.progress)


def _unit(settings: EvaluationSettings, first: dict, truth: dict | None) -> float | str:
    """What distances are measured in: if nobody says, mm where the first record knows its pixels' size."""
    if not any("spacing" in LOCALISATION[name].options for name in settings.metrics):
        return looking.PIXELS
    if settings.spacing is not None:
        return settings.spacing
    return looking.RECORD if looking.said_spacing(first, truth) else looking.PIXELS


def _agreed(inputs: Sequence[str], settings: EvaluationSettings, stdin: BinaryIO, tally: Tally) -> Evaluation:
    """Readers with each other: of the truth, else of the inputs, each being a reader where there are several."""
    from chextools.evaluation import readers

    truth = read_truth(settings.truth or inputs, stdin, settings.truth_settings)
    tally.take(truth.failures)
    settings = replace(settings, tasks=tuple(choose(settings.tasks, truth.tasks, truth.where)))
    measured = readers.measure(truth, settings)
    rows = [record["row"] for record in tally.passing(tally.progress(measured, "CXRs"))]
    return readers.evaluation_of(rows, settings, tally.skipped)


def _classified(inputs: Sequence[str], settings: EvaluationSettings, stdin: BinaryIO, tally: Tally) -> Evaluation:
    from chextools.evaluation import classification  # here, as labels may come with X-rays, which are slow to import

    settings = replace(settings, score_threshold=classification.thresholds_of(settings.score_threshold))
    files = [settings.truth] if isinstance(settings.truth, str) else list(settings.truth or ())
    if len(files) > 1:
        raise InputError("labels come from one file, not from several")
    labels = classification.read_labels(files[0], stdin) if files else None
    _, items = read_some(inputs, stdin)
    files = [name for name in settings.shortcuts if os.path.exists(name)]
    shortcuts = [_shortcut(path, stdin) for path in files]
    keys = [name for name in settings.shortcuts if name not in files]
    measured = classification.measure(items, labels, keys)
    rows = [record["row"] for record in tally.passing(tally.progress(measured, "CXRs"))]
    if unknown := [key for key in keys if not any(key in row.words for row in rows)]:
        raise InputError(f"--shortcut {unknown[0]}: neither a file nor a key of the records")
    return classification.evaluation_of(rows, settings, tally.skipped, shortcuts, tally.progress)


def _shortcut(path: str, stdin: BinaryIO) -> Shortcut:
    """Scores by id of a file of records. Raises InputError at the first that cannot be read."""
    from chextools.evaluation.shortcuts import Shortcut

    found = {}
    for item in read_all([path], stdin):
        if isinstance(item, Failure):
            raise InputError(f"{item.where}: {item.reason}")
        if not item.record.get("scores"):
            raise InputError(f'{item.where}: no "scores" that could be a shortcut')
        found[item.record["id"]] = {k: v for k, v in item.record["scores"].items() if v is not None}
    return Shortcut(PurePath(path).name.removesuffix(".gz").removesuffix(".jsonl"), found)


def per_image(evaluation: Evaluation) -> Iterator[dict]:
    """One record per CXR with its value of each metric by task; null where undefined."""
    places = {metric: dict(zip(table.ids, range(len(table.ids)))) for metric, table in evaluation.tables.items()}
    for row in evaluation.rows:
        record = {"id": row.id, "patient": row.patient}
        for metric, table in evaluation.tables.items():
            if (place := places[metric].get(row.id)) is not None:
                record[metric] = dict(zip(table.tasks, table.values[place].tolist()))
        if row.scores:
            record["scores"] = row.scores
        yield record | ({"failed": row.failed} if row.failed else {})


def replicate_rows(evaluation: Evaluation) -> Iterator[dict]:
    """One object per metric and replicate: its mean by task."""
    for metric, table in evaluation.tables.items():
        for number, values in enumerate(table.replicates.tolist()):
            yield {"metric": metric, "replicate": number, "means": dict(zip(table.tasks, values))}
