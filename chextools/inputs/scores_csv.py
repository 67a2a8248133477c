"""Scores as a CSV: a column that says which image, and a probability per task; an index that pandas wrote is none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from chextools.errors import InputError
from chextools.inputs.label_columns import is_known, plain, slashed
from chextools.plumbing.csvtext import CsvTable, is_index
from chextools.records import records
from chextools.records.ids import id_of_path
from chextools.records.records import Failure

_SAMPLE = 64  # lines by which scores are told from labels and from truth
_IMAGE = frozenset("path image imageindex imageid imgid imagename imagepath filename file id dicomid study".split())


def told_apart(lines: Iterable[bytes], name: str) -> tuple[Iterator[dict | Failure] | None, Iterator[bytes]]:
    """(records with "scores", or None where the lines are no such CSV, all lines).

    What tells them is a column of images and one of numbers of which some are no whole ones.
    """
    lines = iter(lines)
    first = list(itertools.islice(lines, _SAMPLE))
    lines = itertools.chain(first, lines)
    try:
        table = CsvTable(first, name)
    except InputError:
        return None, lines
    image = next((column for column in table.header if plain(column) in _IMAGE), None)
    if image is None:
        return None, lines
    rows = [cells for _, cells in table.rows() if not isinstance(cells, InputError)]
    numbers = {column: [_number(row[column]) for row in rows] for column in table.header if _may_be_task(column, image)}
    tasks = [column for column, values in numbers.items() if not any(isinstance(v, str) for v in values)]
    if not any(isinstance(v, float) and v % 1 for column in tasks for v in numbers[column]):
        return None, lines
    return _records(CsvTable(lines, name), image, tasks), lines


def _records(table: CsvTable, image: str, tasks: Sequence[str]) -> Iterator[dict | Failure]:
    for where, cells in table.rows():
        try:
            if isinstance(cells, InputError):
                raise cells
            scores = {}
            for task in tasks:
                value = _number(cells[task])
                if isinstance(value, str):
                    raise InputError(f"the score of {task} is {value[:40]!r}, not a number")
                if value is not None:
                    scores[task] = value
            if not cells[image].strip():
                raise InputError(f"no {image}")
            yield {"id": records.check_id(id_of_path(slashed(cells[image].strip()))), "scores": scores}
        except InputError as error:
            yield Failure(where, str(error))


def _may_be_task(column: str, image: str) -> bool:
    return bool(column) and column != image and not is_index(column) and not is_known(column)


def _number(cell: str) -> float | str | None:
    """The number of a cell, None of a blank one, the cell itself where it is none."""
    text = cell.strip()
    if not text or text.lower() in ("nan", "na", "null", "none"):
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text
