"""One HTML page of sections with figures, tables, pictures and details, complete in itself: it asks no network for
anything and its content security policy forbids it to; style and script are those of this folder, named there by hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chextools import __version__
from chextools.reporting import drawing
from chextools.reporting.drawing import Drawing, escaped
from chextools.reporting.ranking import Place

MOST_ROWS = 16  # of a table that is not folded
NUMBERS_FIRST = ("leaderboard", "place", "network", "trust")  # sections in which tables stand above figures
P_DECIMALS = 4  # of p-values, of which none is 0


@dataclass(frozen=True)
class Name:
    """A cell with a run's name and what it is, where it is no model."""

    text: str
    role: str = ""


@dataclass(frozen=True)
class Linked:
    """A cell that leads elsewhere in the page, such as to pictures. value: a number or text, as the column has it."""

    value: object
    link: str


@dataclass(frozen=True)
class Column:
    """A column of a table. key: its name in the CSV, to which `parts` are added where a cell holds several values.

    decimals: of its numbers; None where it holds text. link: its cells name runs, and lead to their details.
    task: the task that all its cells are of, for who looks at one task only.
    """

    key: str
    label: str
    decimals: int | None = None
    parts: Sequence[str] = ()
    link: bool = False
    task: str = ""


@dataclass
class Table:
    """name: of the CSV file. rows: cells by column: numbers, text, None, `Place`, `Name` or `Linked`.

    metric: the one that all of it is of, for who looks at one metric only.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: list[list]
    sortable: bool = True
    metric: str = ""


@dataclass(frozen=True)
class Figure:
    """name: of its file, unless it is only in the page."""

    name: str
    heading: str
    drawing: Drawing
    note: str = ""
    metric: str = ""


@dataclass(frozen=True)
class Picture:
    """An overlay as data: URI, with its size in pixels."""

    uri: str
    width: int
    height: int
    task: str
    id: str
    words: str


def span(width: int, height: int) -> int:
    """Columns of a gallery that a picture takes: more than one where it is wide, as with the original beside it."""
    return 1 if width < 1.55 * height else 2 if width < 2.8 * height else 3


@dataclass(frozen=True)
class RunDetails:
    name: str
    role: str
    figures: Sequence[Figure]
    table: Table
    is_open: bool = False


@dataclass(frozen=True)
class Pictures:
    """Overlays of a run and task, under headings such as Best and Worst. id: what links lead to."""

    id: str
    run: str
    task: str
    parts: Sequence[tuple[str, Sequence[Picture]]]
    is_open: bool = False


@dataclass
class Section:
    """A part of the page; what is empty is left out."""

    id: str
    heading: str
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Pictures] = field(default_factory=list)
    runs: list[RunDetails] = field(default_factory=list)


def render(title: str, lead: str, sections: Sequence[Section], kind: str = "report") -> str:
    """The page as text. Names that come from input stand in it escaped, and nowhere but as text.

    kind: report, or card for one that is printed on a few pages.
    """
    style, script = _style(), _own("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{s.id}">{escaped(s.heading)}</a></li>' for s in sections)
    writer = _Writer([run.name for section in sections for run in section.runs])
    body = "".join(writer.section(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="chextools {__version__}">
<title>{escaped(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body class="{kind}">
<a class="skip" href="#main">Skip to the results</a>
<header>
<h1>{escaped(title)}</h1>
<p class="lead">{escaped(lead)}</p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<form id="filter" hidden>
<label>Metric <select name="metric"></select></label>
<label>Task <select name="task"></select></label>
<output></output>
</form>
</header>
<main id="main">
{body}
</main>
<footer><p>Made by chex-report (chextools {__version__}). Where a number is missing, a dash stands for it.</p></footer>
<script>{script}</script>
</body>
</html>
"""


def _own(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _style() -> str:
    inks = drawing.ink_rules()
    light, dark = (drawing.ink_colours(is_dark) for is_dark in (False, True))
    themes = f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return themes + _own("page.css") + inks


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class _Writer:
    """Makes HTML of sections; counts figures and knows the runs, so that ids are unique."""

    def __init__(self, runs: Sequence[str]):
        self._runs = {name: f"run-{k}" for k, name in enumerate(runs, 1)}
        self._figures = 0
        self._heading = ""  # of the section that is written, which its table need not repeat

    def section(self, section: Section) -> str:
        parts = [f'<section id="{section.id}" aria-labelledby="{section.id}-h">']
        link = f'<a class="here" href="#{section.id}" aria-label="Link to {escaped(section.heading)}">#</a>'
        parts.append(f'<h2><span id="{section.id}-h">{escaped(section.heading)}</span> {link}</h2>')
        self._heading = section.heading
        notes = "".join(f"<p>{escaped(note)}</p>" for note in section.notes)
        notes = notes and f'<div class="notes">{notes}</div>'
        parts += [notes] if section.id != "verdict" else []
        tables = [self._folded(table) for table in section.tables if table.rows]
        figures = self.figures(section.figures)
        if section.id == "verdict":  # the answer, then how it was found
            parts += [*map(self.table, section.tables), notes]
        elif section.id in NUMBERS_FIRST:
            parts += [*map(self.table, section.tables[:1]), *tables[1:], figures]
        else:
            parts += [figures, *tables]
        parts += map(self.gallery, section.pictures)
        parts += map(self.run, section.runs)
        return "\n".join([*filter(None, parts), "</section>\n"])

    def _folded(self, table: Table) -> str:
        """The table; a long one opens on demand."""
        if len(table.rows) <= MOST_ROWS:
            return self.table(table)
        summary = f"{escaped(table.caption)}: table of {len(table.rows)} rows"
        return f"<details><summary>{summary}</summary>{self.table(table)}</details>"

    def figures(self, figures: Sequence[Figure]) -> str:
        return f'<div class="figures">{"".join(map(self._figure, figures))}</div>' if figures else ""

    def _figure(self, figure: Figure) -> str:
        self._figures += 1
        note = f"<p>{escaped(figure.note)}</p>" if figure.note else ""
        drawn = drawing.svg(figure.drawing, f"f{self._figures}")
        about = _data("metric", figure.metric)
        about += ' class="tall"' if figure.drawing.height > 2 * figure.drawing.width else ""
        return f"<figure{about}><figcaption>{escaped(figure.heading)}</figcaption>{drawn}{note}</figure>"

    def table(self, table: Table) -> str:
        name = escaped(table.name)
        title = "" if table.caption == self._heading else escaped(table.caption)
        lines = [
            f'<div class="table"{_data("metric", table.metric)}><div class="bar"><span>{title}</span>'
            f'<button type="button" class="csv" data-name="{name}" aria-label="Download CSV: {escaped(table.caption)}">'
            "Download CSV</button></div>"
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(table.caption)}"><table>'
            f"<caption>{escaped(table.caption)}</caption><thead><tr>"
        ]
        longest = [max((_length(_plain(row[k])) for row in table.rows), default=0) for k in range(len(table.columns))]
        classes = [' class="t"' if length > 16 else "" for length in longest]  # short text stays on one line
        if table.columns and table.columns[0].decimals is None:
            classes[0] += ' role="rowheader"'  # what a screen reader says before each number of the row
        for column in table.columns:
            composite = " place" if column.parts else ""
            keys = ",".join(column.key + part for part in column.parts or ("",))
            number = "" if column.decimals is None else f' class="n{composite}"'
            head = escaped(column.label)
            head = f'<button type="button">{head}</button>' if table.sortable else head
            lines.append(f'<th scope="col"{number}{_data("task", column.task)} data-csv="{keys}">{head}</th>')
        lines.append("</tr></thead><tbody>")
        told = [(k, column.key) for k, column in enumerate(table.columns) if column.key in ("metric", "task")]
        for row in table.rows:
            about = "".join(_data(key, str(_plain(row[k]) or "")) for k, key in told)
            lines += [f"<tr{about}>", *map(self._cell, table.columns, row, classes), "</tr>"]
        lines.append("</tbody></table></div></div>")
        return "".join(lines)

    def _cell(self, column: Column, value: Any, style: str) -> str:
        if isinstance(value, Linked):
            cell = self._cell(column, value.value, style)
            start, _, inside = cell.partition(">")
            return f'{start}><a href="{escaped(value.link)}">{inside.removesuffix("</td>")}</a></td>'
        if isinstance(value, Place):
            assert column.decimals is not None
            return _place(value, column.decimals)
        if isinstance(value, Name):
            role = f' <span class="role">{escaped(value.role)}</span>' if value.role else ""
            return f'<th scope="row" data-v="{escaped(value.text)}">{self._link(value.text)}{role}</th>'
        if column.decimals is None:
            text = "" if value is None else str(value)
            return f"<td{style}>{self._link(text) if column.link else escaped(text)}</td>"
        return _number(value, column.decimals)

    def _link(self, name: str) -> str:
        if name not in self._runs:
            return escaped(name)
        return f'<a href="#{self._runs[name]}">{escaped(name)}</a>'

    def run(self, run: RunDetails) -> str:
        role = f' <span class="role">{escaped(run.role)}</span>' if run.role else ""
        is_open = " open" if run.is_open else ""
        head = f'<details id="{self._runs[run.name]}"{is_open}><summary>{escaped(run.name)}{role}</summary>'
        return head + self.figures(run.figures) + self.table(run.table) + "</details>"

    def gallery(self, pictures: Pictures) -> str:
        shown = sum(len(part) for _, part in pictures.parts)
        title = f"{escaped(pictures.task)} <span>{escaped(pictures.run)}, {shown} picture{'s' * (shown != 1)}</span>"
        parts = [
            f'<div><h3>{escaped(heading)}</h3><div class="gallery">{"".join(map(_picture, part))}</div></div>'
            for heading, part in pictures.parts
            if part
        ]
        ends = f'<div class="ends">{"".join(parts)}</div>'
        about = f'id="{escaped(pictures.id)}" data-task="{escaped(pictures.task)}"{" open" * pictures.is_open}'
        return f'<details class="pictures" {about}><summary>{title}</summary>{ends}</details>'


def _picture(picture: Picture) -> str:
    alternative = escaped(f"Overlay of {picture.task} on {picture.id}: {picture.words}")
    identifier = escaped(picture.id).replace("_", "_<wbr>")
    return (
        f'<figure class="span-{span(picture.width, picture.height)}">'
        f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" alt="{alternative}">'
        f"<figcaption><b>{escaped(picture.task)}</b><span>{escaped(picture.words)}</span>"
        f'<span class="id">{identifier}</span></figcaption></figure>'
    )


def _data(name: str, value: str) -> str:
    """An attribute by which the page's script finds what is of a metric or task."""
    return f' data-{name}="{escaped(value)}"' if value else ""


def _plain(cell: object) -> object:
    """What a cell holds, wherever it leads."""
    return cell.value if isinstance(cell, Linked) else cell


def _length(value: object) -> int:
    """Letters of a cell of text."""
    return len(value) if isinstance(value, str) else 0


def _number(value: float | None, decimals: int) -> str:
    if value is None:
        return "<td data-v></td>"  # the style sheet shows a dash
    text = f"{value:.{decimals}f}".replace("-", "−")
    if decimals == P_DECIMALS and abs(value) < 0.5 * 10**-decimals:
        text = f"&lt;{10**-decimals:.{decimals}f}"
    full = _full(value)
    return f"<td data-v>{text}</td>" if text == full else f"<td data-v={full}>{text}</td>"


def _full(value: float | bool | int | None) -> str:
    """A number for a CSV: with all that it says, up to six digits."""
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


def _place(place: Place, decimals: int) -> str:
    """A metric's cell of the leaderboard: number, interval, rank, and whether that is sure."""
    if place.mean is None:
        return '<td class="place" data-v=",,,,"></td>'
    words = {True: "overlaps", False: "apart", None: ""}[place.overlaps]
    full = ",".join([*(_full(v) for v in (place.mean, place.lower, place.upper, place.rank)), words])
    parts = [f"<b>{place.mean:.{decimals}f}</b>"]
    if place.lower is not None and place.upper is not None:
        parts.append(f"<span>{place.lower:.{decimals}f}–{place.upper:.{decimals}f}</span>")
    said = ([ordinal(place.rank)] + [words] * bool(words)) if place.rank else []
    parts.append(f"<i>{', '.join(said)}</i>")
    return f'<td class="place" data-v="{full}">{" ".join(parts)}</td>'


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
