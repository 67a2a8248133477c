"""Labels in CheXpert's layout, of CheXpert Plus and of one's own: a column of paths, and a column for each task.

Path, or path_to_image. CheXpert Plus (df_chexpert_plus_240401.csv) has its labels in files of their own: lines of JSON
such as impression_fixed.json, looked for beside the CSV and in chexbert_labels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence

from chextools.errors import InputError
from chextools.inputs import label_columns
from chextools.inputs.label_columns import ImagePaths, Wishes, checked_labels
from chextools.plumbing import jsontext, streams
from chextools.plumbing.csvtext import CsvTable
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tasks import CHEXPERT, canonical, choose

log = logging.getLogger(__name__)

PLUS = "path_to_image"
_PLUS_LABELS = ("impression_fixed.json", "report_fixed.json", "findings_fixed.json")


def path_column(header: Sequence[str]) -> str | None:
    """The column of paths, None where there is none."""
    return next((column for column in ("Path", PLUS) if column in header), None)


def read_labels(table: CsvTable, wishes: Wishes) -> Iterator[Located | Failure]:
    """Records of a table with a column of paths."""
    path = path_column(table.header)
    assert path is not None
    wishes.check(table)
    sample, rows = label_columns.sampled(table)
    extra = [column for column in (path, wishes.patient, wishes.split_by) if column]
    columns = label_columns.columns_of_labels(table, sample, wishes.dropped, extra)
    tasks = label_columns.named_tasks(table.name, columns, wishes.renamed)
    beside = _plus_labels(wishes) if path == PLUS and not columns else {}
    there = tasks.values() if columns or not beside else map(canonical, CHEXPERT)
    wanted = frozenset(choose(wishes.tasks, there, table.name))  # as it is asked for each column and row
    chosen = {column: task for column, task in tasks.items() if task in wanted}
    paths = ImagePaths(wishes.root, (row[path] for row in sample), (".png", ".jpg", ".dcm") if path == PLUS else ())
    for where, cells in rows:
        try:
            if isinstance(cells, InputError):
                raise cells
            labels = {task: cells[column] for column, task in chosen.items()}
            if beside:
                found = beside.get(cells[path], {})
                labels = {task: value for task, value in found.items() if task in wanted}
            yield Located(where, records.ordered(_record(cells, cells[path], paths, labels, wishes)))
        except InputError as error:
            yield Failure(where, str(error))


def _record(row: Mapping[str, str], path: str, paths: ImagePaths, labels: Mapping[str, object], wishes: Wishes) -> dict:
    if not path.strip():
        raise InputError("no path")
    record = label_columns.image_record(path, paths.resolve(path))
    said = label_columns.about({column: cell for column, cell in row.items() if column not in wishes.dropped})
    if "patient" in said and record.get("patient", "").removeprefix("patient").lstrip("0") == said["patient"].lstrip(
        "0"
    ):
        del said["patient"]  # the path's own form, which is that of the data set's other files
    record["labels"] = checked_labels(labels)
    return wishes.noted(record | said, row)


def _plus_labels(wishes: Wishes) -> dict[str, dict]:
    """CheXpert Plus' labels by path, of the first file that is there."""
    for folder in (wishes.root, os.path.join(wishes.root, "chexbert_labels")):
        for name in _PLUS_LABELS:
            file = os.path.join(folder, name)
            if os.path.isfile(file):
                log.warning("%s: labels of CheXpert Plus", file)
                return dict(_lines(file))
    log.warning("%s: no labels: %s of CheXpert Plus is not there", wishes.root or ".", _PLUS_LABELS[0])
    return {}


def _lines(file: str) -> Iterator[tuple[str, dict]]:
    with streams.open_input(file, named=False) as stream:
        for number, line in enumerate(streams.lines(stream, file), 1):
            if not line.strip():
                continue
            try:
                value = jsontext.loads(line)
                if not isinstance(value, dict) or not isinstance(value.get(PLUS), str):
                    raise InputError(f'no "{PLUS}"')
            except InputError as error:
                raise InputError(f"{file}:{number}: {error}") from None
            yield value[PLUS], {canonical(k): v for k, v in value.items() if canonical(k) in CHEXPERT}
