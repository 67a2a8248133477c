"""One side of a comparison: per-image results or replicates, as chex-eval or the study writes them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import BinaryIO

import numpy as np

from chextools import tasks
from chextools.errors import InputError
from chextools.metrics.catalogue import STUDY
from chextools.records import records
from chextools.records.records import Failure, Located, few
from chextools.results.measured import read_measured

log = logging.getLogger(__name__)


@dataclass
class Results:
    """One side of the comparison.

    metric: None where neither the file nor the user says.
    ids: of the CXRs, where these are per-image results; None where they are the means of bootstrap replicates.
    values: float64 [n, K] by CXR or replicate and task, NaN where undefined.
    failures: lines that could not be used.
    patients: whose CXR each id is.
    """

    name: str
    metric: str | None
    ids: list[str] | None
    tasks: list[str]
    values: np.ndarray
    failures: list[Failure]
    patients: dict[str, str] = field(default_factory=dict)


def patients_of(ids: Sequence[str], pred: Mapping[str, str], ref: Mapping[str, str]) -> list[str]:
    """Whose CXR each is: as PRED says, or as REF says where PRED names no one but the CXR itself.

    Says where the two differ, and of which CXRs neither knows, each of which is then a patient of its own.
    """
    if others := [i for i in ids if pred[i] != ref[i] and i not in (pred[i], ref[i])]:
        log.warning("of another patient in REF, PRED's are taken: %s", few(others))
    found = [pred[i] if pred[i] != i else ref[i] for i in ids]
    if unknown := [i for i, patient in zip(ids, found) if patient == i]:
        log.warning("no patient is known, each counts as one of its own: %s", few(unknown))
    return found


def read_results(
    source: str, stdin: BinaryIO, metric: str | None = None, steps: Iterable[None] = repeat(None)
) -> Results:
    """Per-image results or replicates, of chex-eval (JSON Lines) or the study (CSV; with a column img_id: per image).

    steps: moves on by one with each row. Raises InputError if there are none, or if they are of several metrics and
    `metric` does not choose.
    """
    name = "stdin" if source == "-" else source
    parsed = [item for item, _ in zip(read_measured(source, stdin, metric), steps)]
    first, _ = records.peek(parsed, name)
    of_images = "id" in first
    metric = _metric(parsed, metric, name)
    found: dict[str | int, dict[str, float]] = {}
    failures: list[Failure] = []
    places: dict[str | int, str] = {}
    patients: dict[str, str] = {}
    for item in parsed:
        if isinstance(item, Failure):
            failures.append(item)
        elif metric in item.record["values"]:
            key = item.record["id"] if "id" in item.record else item.record["replicate"]
            if key in found:
                what = f"id {key!r}" if of_images else f"replicate {key}"
                failures.append(Failure(item.where, f"duplicate {what}, first at {places[key]}"))
            elif of_images != isinstance(key, str):
                failures.append(Failure(item.where, f"not {'per-image results' if of_images else 'a replicate'}"))
            else:
                found[key], places[key] = item.record["values"][metric], item.where
                if isinstance(key, str):
                    patients[key] = item.record["patient"]
    keys = sorted(found)
    names = tasks.study_order(task for values in found.values() for task in values)
    table = np.array([[found[key].get(task, np.nan) for task in names] for key in keys]).reshape(len(keys), len(names))
    return Results(name, metric, [str(key) for key in keys] if of_images else None, names, table, failures, patients)


def _metric(items: Sequence[Located | Failure], wanted: str | None, name: str) -> str | None:
    """The metric to compare: the one that is wanted, else the only one there."""
    found = list(dict.fromkeys(m for item in items if isinstance(item, Located) for m in item.record["values"]))
    if not found:
        reason = next((f" ({item.where}: {item.reason})" for item in items if isinstance(item, Failure)), "")
        raise InputError(f"{name}: no results of {' or '.join(STUDY)}, or of another metric by CXR{reason}")
    if wanted and wanted not in found:
        raise InputError(f"{name}: holds {' and '.join(map(str, found))}, not {wanted}")
    if not wanted and len(found) > 1:
        raise InputError(f"{name}: holds {' and '.join(map(str, found))}; choose one with --metric")
    return wanted or found[0]
