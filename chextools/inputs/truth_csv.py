"""CSV files of truth, told apart by their headers: boxes of NIH, RSNA and VinDr-CXR, run lengths, VIA's regions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from chextools.errors import InputError
from chextools.inputs import boxes, runs_csv, via
from chextools.inputs.drawn import Row, Table
from chextools.plumbing.csvtext import CsvTable
from chextools.records.records import Failure
from chextools.records.sizes import shortened

_LABELS = ("path", "finding labels", "no finding")  # columns of files that say what is there, but not where


def is_truth(header: Sequence[str]) -> bool:
    """Whether a CSV with these columns says where findings are."""
    names = [_lowered(column) for column in header]
    return any(reader(names) is not None for reader in (boxes.reader_of, runs_csv.reader_of, via.reader_of))


def records_of(lines: Iterable[bytes], name: str) -> Iterator[dict | Failure]:
    """Records of a CSV of truth; `lines` with their ends. Raises InputError for any other."""
    table = _table(CsvTable(lines, name))
    for reader in (boxes.reader_of, runs_csv.reader_of, via.reader_of):
        if found := reader(table.header):
            return found(table)
    if any(column in table.header for column in _LABELS):
        raise InputError(f"{name}: a CSV of labels: it says what is there, but not where")
    raise InputError(
        f"{name}: neither JSON, XML nor a CSV of boxes or run lengths, by its first line "
        f"{shortened(','.join(table.header))}"
    )


def _table(table: CsvTable) -> Table:
    """Columns in lower case and without VIA's mark, cells without blanks around them."""
    names = {column: _lowered(column) for column in table.header}

    def rows() -> Iterator[tuple[str, Row | InputError]]:
        for where, row in table.rows():
            if isinstance(row, InputError):
                yield where, row
            else:
                yield where, {names[column]: cell.strip() for column, cell in row.items()}

    return Table(table.name, list(names.values()), rows())


def _lowered(column: str) -> str:
    return column.lstrip("#").lower()
