"""Result rows as text: JSON Lines, CSV, or a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from chextools.errors import printable
from chextools.plumbing.jsontext import dumps


def write(rows: Sequence[dict], output_format: str, columns: Sequence[str] = ()) -> str:
    """The rows in a format; `columns` are those of the table, of which it leaves out those that no row has."""
    if output_format == "jsonl":
        return "".join(dumps(row) + "\n" for row in rows)
    if output_format == "csv":
        return _csv(rows)
    return _table(rows, [c for c in columns if any(c in row for row in rows)])


def _csv(rows: Sequence[dict]) -> str:
    from chextools.results.study_csv import text

    names = list(dict.fromkeys(name for row in rows for name in row))
    return text(names, ([row.get(name) for name in names] for row in rows))


def _table(rows: Sequence[dict], columns: Sequence[str]) -> str:
    lines = [list(columns)] + [[_shown(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    numeric = [all(not isinstance(row.get(c), str) for row in rows) for c in columns]
    shown = []
    for line in lines:
        cells = (cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, numeric))
        shown.append("  ".join(cells).rstrip() + "\n")
    return "".join(shown)


def _shown(value: object) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value))
