"""Thresholds and cutoffs by task, from the study's CSV files or chex-tune's rows."""

from __future__ import annotations

import math
from collections.abc import Callable

from chextools.errors import InputError, quoted
from chextools.plumbing import csvtext, jsontext, streams
from chextools.tasks import canonical


def threshold_of(option: str | float) -> float | dict[str, float] | None:
    """What the option --threshold means: "otsu" is None, a number itself, and a file its thresholds by task."""
    if isinstance(option, str):
        return None if option == "otsu" else read_thresholds(option)
    return option


def read_thresholds(path: str) -> dict[str, float]:
    """Threshold by task from the study's tuning_results.csv or chex-tune's JSON Lines."""
    return _read_settings(path, "threshold", lambda rows: _marked(rows)["threshold"])


def read_cutoffs(path: str) -> dict[str, float]:
    """Cutoff by task from the study's probability_tuning_results.csv (its row with the best mIoU) or JSON Lines."""

    def best(rows: list[dict]) -> object:
        if "mIoU" not in rows[0]:
            return _marked(rows)["cutoff" if "cutoff" in rows[0] else "prob_threshold"]
        # A cutoff that leaves nothing to measure has no mIoU; the first of equals wins.
        return max(rows, key=lambda row: _number(row["mIoU"], path) if row["mIoU"] else -1)["prob_threshold"]

    return _read_settings(path, "cutoff", best)


def read_score_thresholds(path: str) -> dict[str, float]:
    """Score threshold by task from the rows of chex-tune --for score; a task without one is left out."""
    return _read_settings(path, "score_threshold", lambda rows: _marked(rows)["score_threshold"])


def _marked(rows: list[dict]) -> dict:
    """The row that chex-tune --curve marks as best, else the first."""
    return next((row for row in rows if str(row.get("best")) == "True"), rows[0])


def _read_settings(path: str, what: str, choose: Callable[[list[dict]], object]) -> dict[str, float]:
    by_task: dict[str, list[dict]] = {}
    with streams.open_input(path) as stream:
        if streams.is_json(stream):
            rows = jsontext.parsed_lines(streams.lines(stream, path), path)
        else:
            rows = csvtext.read_table(stream, path).rows()
        for where, row in rows:
            if isinstance(row, InputError):
                raise InputError(f"{where}: {row}")
            if not isinstance(row, dict) or not isinstance(row.get("task"), str):
                raise InputError(f"{where}: a row without a task; expected columns such as {what},task")
            by_task.setdefault(canonical(row["task"]), []).append(row)
    if not by_task:
        raise InputError(f"{path}: no rows")
    try:
        found = {task: choose(group) for task, group in by_task.items()}
    except KeyError as error:
        raise InputError(f"{path}: no column {error}") from None
    if what == "score_threshold":  # none could be chosen where a class is missing
        found = {task: value for task, value in found.items() if value not in (None, "")}
    chosen = {task: _number(value, path) for task, value in found.items()}
    for task, value in chosen.items():
        if not 0 <= value <= 1:
            raise InputError(f"{path}: the {what} of {task} is {value:g}; it must lie in [0, 1]")
    return chosen


def _number(value: object, path: str) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (OverflowError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{path}: {quoted(value)} is not a finite number")
    return number
