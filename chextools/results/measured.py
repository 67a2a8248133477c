"""Numbers by CXR and task, and means by replicate, of chex-eval (JSON Lines) or the study (CSV): their one reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from chextools.errors import InputError, LimitError, quoted
from chextools.inputs import inputs
from chextools.metrics.catalogue import BY_IMAGE, LOCALISATION
from chextools.plumbing import streams
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.results import study_csv

_UNMEASURED = frozenset(("id", "patient", "scores", "failed"))  # all that chex-eval writes of a CXR not in the truth
MAX_ROWS = 2**19  # of one input, of which some hundreds of bytes each are kept; the largest public set has 377,110 CXRs
MAX_NUMBERS = 2**23

_DISTANCES = frozenset(name for name, metric in LOCALISATION.items() if metric.is_distance)


def read_measured(
    source: str, stdin: BinaryIO, metric: str | None = None, need_metric: bool = False
) -> Iterator[Located | Failure]:
    """Records {"id" or "replicate", "patient", "values": metric -> task -> number, NaN where undefined} of one input.

    metric: of a CSV whose name does not start with one; None if the user does not say, which `need_metric` refuses.
    A record has "id" and "patient" if it is of a CXR, "replicate" if it holds the means of one. Raises InputError where
    the input as a whole cannot be used; a value that its metric cannot have is a failure.
    """
    return _bounded(_read(source, stdin, metric, need_metric), "stdin" if source == "-" else source)


def _bounded(items: Iterator[Located | Failure], name: str) -> Iterator[Located | Failure]:
    """The items. Raises InputError where they are more, or hold more numbers, than whoever keeps them can keep."""
    numbers = 0
    for count, item in enumerate(items, 1):
        if isinstance(item, Located):
            numbers += sum(map(len, item.record["values"].values()))
        if count > MAX_ROWS or numbers > MAX_NUMBERS:
            raise LimitError(f"{name}: more than {MAX_ROWS} rows or {MAX_NUMBERS} numbers")
        yield item


def _read(source: str, stdin: BinaryIO, metric: str | None, need_metric: bool) -> Iterator[Located | Failure]:
    name = "stdin" if source == "-" else source
    with streams.open_source(source, stdin) as stream:
        if streams.is_json(stream):
            for number, item in enumerate(inputs.objects(stream, name)):
                yield records.applied(_numbered(number), item)
            return
        said = study_csv.metric_of(name)
        if said and metric and said != metric:
            raise InputError(f"{name}: holds {said} by its name, not {metric}")
        if need_metric and not (said or metric):
            raise InputError(f"{name}: the name does not start with iou_ or hitmiss_; say --metric")
        for number, item in enumerate(study_csv.read_by_cxr(stream, name, need_id=need_metric)):
            yield records.applied(_of_csv(number, said or metric), item)


def _numbered(number: int) -> Callable[[dict], dict]:
    def measured(row: dict) -> dict:
        if "id" in row:
            row = records.checked(row)
            given = {name: row[name] for name in BY_IMAGE if name in row}
            if not given and not ("patient" in row and row.keys() <= _UNMEASURED):
                raise InputError('neither "iou" nor "hit" nor another metric by CXR: not per-image results')
            start = {"id": row["id"], "patient": records.patient(row)}
        elif "means" in row:
            replicate = row.get("replicate", number)
            if type(replicate) is not int or replicate < 0:
                raise InputError(f'"replicate" is {quoted(replicate)}, not a whole number')
            if not isinstance(row.get("metric"), str):
                raise InputError('"metric" must be a string')
            start, given = {"replicate": replicate}, {row["metric"]: row["means"]}
        else:
            raise InputError(
                'no "id" key: neither per-image results nor replicates (chex-eval --per-image, --replicate-table)'
            )
        found = {}
        for name, values in given.items():
            by_task = records.by_task(values, name)
            numbers = {task: records.number(value, name) for task, value in by_task.items()}
            found[name] = check_values(numbers, name, binary="id" in row)
        return start | {"values": found}

    return measured


def _of_csv(number: int, metric: str | None) -> Callable[[dict], dict]:
    def measured(row: dict) -> dict:
        values = check_values(row["values"], metric, binary="id" in row)
        if "id" not in row:
            return {"replicate": number, "values": {metric: values}}
        return {"id": row["id"], "patient": records.patient(row), "values": {metric: values}}

    return measured


def check_values(values: Mapping[str, float], metric: str | None, binary: bool) -> Mapping[str, float]:
    """The numbers by task. Raises InputError for one that the metric cannot have; `binary`: a hit is 0 or 1."""
    for task, value in values.items():
        if math.isnan(value):
            continue
        if math.isinf(value):
            raise InputError(f"{metric or 'the value'} of {task} is {value:g}, not a finite number")
        if metric == "hit" and binary and value not in (0, 1):
            raise InputError(f"hit of {task} is {value:g}; it is 0, 1 or blank")
        if metric in _DISTANCES and value < 0:
            raise InputError(f"{metric} of {task} is {value:g}; it is no less than 0")
        if metric in LOCALISATION and metric not in _DISTANCES and not 0 <= value <= 1:
            raise InputError(f"{metric} of {task} is {value:g}; it lies in [0, 1]")
    return values
