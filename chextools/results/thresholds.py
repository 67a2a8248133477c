"""Thresholds and cutoffs by task, from the study's CSV files or chex-tune's rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chextools.errors import InputError, LimitError, quoted
from chextools.plumbing import csvtext, jsontext, streams
from chextools.tasks import canonical

MAX_ROWS = 2**17  # chex-tune --curve writes some hundreds for each task


def threshold_of(option: str | float) -> float | dict[str, float] | None:
    """What the option --threshold means: "otsu" is None, a number itself, and a file its thresholds by task."""
    if isinstance(option, str):
        return None if option == "otsu" else read_thresholds(option)
    return option


def read_thresholds(path: str) -> dict[str, float]:
    """Threshold by task from the study's tuning_results.csv or chex-tune's JSON Lines."""
    return _read_chosen(path, "threshold", lambda rows: (_marked(rows), "threshold"))


def read_cutoffs(path: str) -> dict[str, float]:
    """Cutoff by task from the study's probability_tuning_results.csv (its row with the best mIoU) or JSON Lines."""

    def choose(rows: list[Row]) -> tuple[Row, str]:
        first = rows[0].values
        if "mIoU" not in first:
            return _marked(rows), "cutoff" if "cutoff" in first else "prob_threshold"
        # A cutoff that leaves nothing to measure has no mIoU; the first of equals wins.
        best = max(rows, key=lambda row: -1 if row.values.get("mIoU") in (None, "") else row.number("mIoU"))
        return best, "prob_threshold"

    return _read_chosen(path, "cutoff", choose)


def read_score_thresholds(path: str) -> dict[str, float]:
    """Score threshold by task from the rows of chex-tune --for score; a task without one is left out."""
    return _read_chosen(path, "score_threshold", lambda rows: (_marked(rows), "score_threshold"))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, of CSV or JSON Lines, and where it stands."""

    where: str
    values: dict

    def number(self, column: str) -> float:
        """The number in a column. Raises InputError that names the row."""
        if column not in self.values:
            raise InputError(f"{self.where}: no column {column!r}")
        value = self.values[column]
        try:
            number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
        except (OverflowError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{self.where}: {column} is {quoted(value)}, not a finite number")
        return number


def _marked(rows: list[Row]) -> Row:
    """The row that chex-tune --curve marks as best, else the first."""
    return next((row for row in rows if str(row.values.get("best")) == "True"), rows[0])


def _read_rows(path: str) -> Iterator[tuple[str, Any]]:
    with streams.open_input(path) as stream:
        if streams.is_json(stream):
            yield from jsontext.parsed_lines(streams.lines(stream, path), path)
        else:
            yield from csvtext.read_table(stream, path).rows()


def _read_chosen(path: str, what: str, choose: Callable[[list[Row]], tuple[Row, str]]) -> dict[str, float]:
    by_task: dict[str, list[Row]] = {}
    for count, (where, row) in enumerate(_read_rows(path)):
        if count >= MAX_ROWS:
            raise LimitError(f"{path}: more than {MAX_ROWS} rows")
        if isinstance(row, InputError):
            raise InputError(f"{where}: {row}")
        if not isinstance(row, dict) or not isinstance(row.get("task"), str):
            raise InputError(f"{where}: a row without a task; expected columns such as {what},task")
        by_task.setdefault(canonical(row["task"]), []).append(Row(where, row))
    if not by_task:
        raise InputError(f"{path}: no rows")
    chosen = {}
    for task, rows in by_task.items():
        row, column = choose(rows)
        if what == "score_threshold" and row.values.get(column, 0) in (None, ""):
            continue  # none could be chosen where a class is missing
        chosen[task] = value = row.number(column)
        if not 0 <= value <= 1:
            raise InputError(f"{row.where}: the {what} of {task} is {value:g}; it must lie in [0, 1]")
    return chosen
