"""The one reader of CSV: comma, semicolon or tab between cells, told by the header.

Cells are text; a byte that is not UTF-8 survives as it does in a file's name (`os.fsdecode`). Time is linear, however
many columns there are.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from chextools.errors import InputError, LimitError, quoted
from chextools.plumbing import streams

MAX_ROW = 2**24  # bytes of a line, and letters of a cell
MAX_COLUMNS = 2**17

_DELIMITERS = ",;\t"
_INDEX = re.compile(r"(Unnamed: \d+(_level_\d+)?|index|level_\d+)?")  # as pandas writes a table's index


def is_index(column: str) -> bool:
    """Whether a column's name says that it only numbers the rows: none, or as pandas names such a column."""
    return _INDEX.fullmatch(column) is not None


class CsvTable:
    """A table with a header: `rows` gives what is below it. Blank lines before the header are none of it.

    header: the columns' names, less blanks around them; distinct, but for those without a name.
    """

    def __init__(self, lines: Iterable[bytes], name: str):
        """Read the header. Raises InputError if there is none, or a name stands twice."""
        self.name = name
        self._number = 0
        lines = iter(lines)
        first = b""
        while not first.strip():
            if (line := next(lines, None)) is None:
                raise InputError(f"{name}: no header of a CSV")
            first = line
            self._number += 1
        self._number -= 1
        self.delimiter = delimiter_of(_decoded(first))
        self._reader = csv.reader(self._decoded(chain([first], lines)), delimiter=self.delimiter, strict=True)
        header = self._next()
        if header is None or isinstance(header, InputError):
            raise InputError(f"{name}:{self._number + 1}: {header}")
        self.header = [column_name(cell) for cell in header]
        seen: set[str] = set()
        for column in self.header:
            if column in seen and column:
                raise InputError(f"{name}: two columns are named {quoted(column)}")
            seen.add(column)

    def rows(self) -> Iterator[tuple[str, dict[str, str] | InputError]]:
        """(where it stands, such as `labels.csv:17`, and its cells by column) of each row that is not blank.

        In place of a row that cannot be read, or has more or fewer cells than the header, stands the InputError.
        """
        while True:
            where = f"{self.name}:{self._number + self._reader.line_num + 1}"
            cells = self._next()
            if cells is None:
                return
            if isinstance(cells, InputError):
                yield where, cells
            elif len(cells) == len(self.header):
                yield where, dict(zip(self.header, cells))
            elif cells:
                yield where, InputError(f"{len(cells)} cells, but the header has {len(self.header)}")

    def _next(self) -> list[str] | InputError | None:
        """The next row's cells, none for a blank line, None at the end, or why they cannot be read."""
        before = csv.field_size_limit(MAX_ROW)  # one number for the whole process
        try:
            return next(self._reader, None)
        except csv.Error as error:
            return InputError(f"not CSV: {error}")
        finally:
            csv.field_size_limit(before)

    def _decoded(self, lines: Iterable[bytes]) -> Iterator[str]:
        for line in lines:
            if len(line) > MAX_ROW:
                raise LimitError(f"{self.name}: a line of more than {MAX_ROW} bytes")
            if line.count(self.delimiter.encode()) >= MAX_COLUMNS and b'"' not in line:
                raise LimitError(f"{self.name}: a line of more than {MAX_COLUMNS} cells")
            yield _decoded(line)


def read_table(stream: streams.BinaryIO, name: str) -> CsvTable:
    """The table that a stream of `streams.open_source` holds."""
    return CsvTable(streams.lines(stream, name, MAX_ROW), name)


def peeked(lines: Iterable[bytes]) -> tuple[list[str], Iterator[bytes]]:
    """(the columns' names if the lines are a table's, none where they cannot be; all lines)."""
    lines = iter(lines)
    seen = []
    for line in lines:
        seen.append(line)
        if line.strip():
            break
    header: list[str] = []
    with contextlib.suppress(csv.Error):
        first = _decoded(seen[-1] if seen else b"")
        header = next(csv.reader([first], delimiter=delimiter_of(first)), header)
    return [column_name(cell) for cell in header], chain(seen, lines)


def column_name(cell: str) -> str:
    """A column's name less what cannot be seen: byte order marks, and blanks around it, doubled or not to be broken."""
    return " ".join(cell.replace("\ufeff", "").split())


def delimiter_of(header: str) -> str:
    """What stands between the cells of a header: what is most frequent outside quotes, a comma if nothing is."""
    outside = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
