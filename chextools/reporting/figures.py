"""The figures of a report as drawings: dots with intervals, distributions, curves.

All are 340 units wide, a column of a paper or the screen of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chextools.reporting.drawing import Area, Drawing, Line, Mark, Rules, Text, fitted, text_width, wrapped

WIDTH = 340.0
_EDGE = 2.0
_LABEL_MOST = 122.0
_SIZE = 11.0  # of letters
_LINE = 12.5  # from one line of a label to the next
_STEP = 9.0  # from one series to the next within a row

_INSIDES = {"ring": "dot", "box": "square", "rhomb": "diamond"}

Interval = tuple[float | None, float | None, float | None]  # mean, lower, upper


@dataclass(frozen=True)
class Series:
    """What is drawn alike in every row: (mean, lower, upper) by label, None where undefined."""

    name: str
    ink: str
    mark: str
    values: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """One panel: y and its interval, None where undefined, at each x; `best` is the index of the point chosen.

    beside: further curves at the same x, by their ink; the first is dotted.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    lower: Sequence[float | None] = ()
    upper: Sequence[float | None] = ()
    best: int | None = None
    beside: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Axis:
    """A horizontal or vertical axis: values `low` to `high` lie at `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from at most `low` to at least `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-200:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    span = high - low
    step = 10 ** math.floor(math.log10(span / most))
    step = next(step * k for k in (1, 2, 2.5, 5, 10, 20) if span / (step * k) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """A tick's label."""
    return f"{value:.10g}".replace("-", "−")


def shown(value: float | None, decimals: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{decimals}f}".replace("-", "−")


def spelled(interval: Interval, decimals: int = 2) -> str:
    """A number and its interval in words."""
    mean, lower, upper = (shown(v, decimals) if v is not None else None for v in interval)
    if mean is None:
        return "undefined"
    return mean if None in (lower, upper) else f"{mean} ({lower} to {upper})"


def dot_intervals(
    title: str,
    axis: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    last: Sequence[str] = (),
    least: float | None = None,
    greatest: float | None = None,
    reference: float | None = None,
    decimals: int = 2,
    stacked: bool = True,
    tips: bool = True,
    links: Mapping[tuple[str, str], str] | None = None,
) -> Drawing:
    """A row per label, in it a mark with its interval per series: stacked, or all on one line where each row has one.

    last: which of the labels are set off at the bottom, as averages are. least, greatest: what the axis must reach.
    reference: a value to be told from, drawn as a dotted line. tips: whether marks say their numbers on hovering.
    links: by (series, label), where a click on the mark leads.
    """
    numbers = [v for s in series for label in labels for v in s.values.get(label, ()) if v is not None]
    numbers += [v for v in (least, greatest, reference) if v is not None] or [0.0, 1.0]
    marks = ticks(min(numbers), max(numbers))
    step = _STEP if stacked else 0.0
    layout = _Rows(title, labels, len(series) if stacked else 1, marks, axis, last, series if len(series) > 1 else ())
    if reference is not None:
        layout.reference(reference)
    for k, one in enumerate(series):
        ends: list[tuple] = []
        marks_drawn = []
        for label, top, height in layout.rows:
            mean, lower, upper = one.values.get(label, (None, None, None))
            if mean is None:
                continue
            x, y = layout.axis.at(mean), top + height / 2 + step * (k - (len(series) - 1) / 2)
            if lower is not None and upper is not None:
                ends.append((layout.axis.at(lower), y, layout.axis.at(upper), y))
            if one.mark in _INSIDES:  # hollow: the interval must not show through
                marks_drawn.append(Mark(_INSIDES[one.mark], x, y, 3.2, "paper"))
            tip = f"{label}, {one.name}: {spelled((mean, lower, upper), decimals)}" if tips else ""
            marks_drawn.append(Mark(one.mark, x, y, 3.4, one.ink, tip, (links or {}).get((one.name, label), "")))
        layout.drawing.add(*([Rules(ends, one.ink, 1.8)] if ends else []), *marks_drawn)
    told = [label for label in labels if label in last] or labels[:1]
    sentences = [
        f"{label}: " + ", ".join(f"{s.name} {spelled(s.values[label], decimals)}" for s in series if label in s.values)
        for label in told
    ]
    layout.drawing.description = f"{axis}, {len(labels)} rows. " + "; ".join(sentences) + "."
    return layout.drawing


def distributions(title: str, axis: str, groups: Mapping[str, Sequence[float]], least: float = 0.0) -> Drawing:
    """A row per group: the middle half as a bar, the median across it, the 5th to 95th percentile as a line; up to 30
    values each as a dot of its own. least: where the axis starts, unless a value is below."""
    ends = {name: quantiles(values) for name, values in groups.items() if values}
    reach = [v for name, q in ends.items() for v in ([*groups[name]] if len(groups[name]) <= 30 else (q[0], q[-1]))]
    layout = _Rows(title, list(groups), 1, ticks(min([least, *reach]), max([least, *reach])), axis)
    for name, top, height in layout.rows:
        if name not in ends:
            continue
        y = top + height / 2
        q = ends[name]
        low, first, middle, third, high = map(layout.axis.at, q)
        count = f"{len(groups[name])} values"
        tip = f"{name}: median {shown(q[2])}, middle half {shown(q[1])} to {shown(q[3])}, {count}"
        layout.drawing.add(Line([(low, y), (high, y)], "s0", 1.4, tip=tip))
        bar = [(first, y - 5), (max(third, first + 1), y - 5), (max(third, first + 1), y + 5), (first, y + 5)]
        layout.drawing.add(Area(bar, "soft", tip), Line([*bar, bar[0]], "s0", 1))
        layout.drawing.add(Line([(middle, y - 5), (middle, y + 5)], "s0", 2.4, tip=tip))
        if len(groups[name]) <= 30:
            layout.drawing.add(*(Mark("dot", layout.axis.at(v), y, 1.4, "text") for v in sorted(groups[name])))
    layout.drawing.description = f"{axis} of {len(groups)} groups. " + "; ".join(
        f"{name}: median {shown(q[2])}, {len(groups[name])} values" for name, q in ends.items()
    )
    return layout.drawing


def quantiles(values: Sequence[float], shares: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> list[float]:
    """Quantiles with linear interpolation between the two values next to them."""
    ordered = sorted(values)
    found = []
    for share in shares:
        place = share * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        found.append(ordered[below] + (ordered[above] - ordered[below]) * (place - below))
    return found


def curves(title: str, x_axis: str, y_axis: str, panels: Sequence[Curve], greatest: float | None = None) -> Drawing:
    """A small panel per curve, two beside each other, all with the same axes; the point chosen is a ring."""
    gap, left, panel_height, head, foot = 22.0, 26.0, 80.0, 18.0, 20.0
    width = (WIDTH - 2 * _EDGE - left - gap - 6) / 2
    parts = [part for p in panels for part in (p.y, p.lower, p.upper, *p.beside.values())]
    numbers = [v for part in parts for v in part if v is not None]
    y_marks = ticks(0.0, greatest if greatest is not None else max(numbers, default=1.0), 5)
    x_all = [v for p in panels for v in p.x]
    x_marks = ticks(min(x_all), max(x_all), 5)
    count = math.ceil(len(panels) / 2)
    top = 16.0
    drawing = Drawing(WIDTH, top + count * (head + panel_height + foot) + 14, title)
    drawing.add(Text(_EDGE, 11, f"{y_axis} against {x_axis}", _SIZE, ink="muted"))
    for k, panel in enumerate(panels):
        x0 = _EDGE + left + (k % 2) * (width + gap)
        y0 = top + (k // 2) * (head + panel_height + foot) + head
        across = Axis(x_marks[0], x_marks[-1], x0, x0 + width)
        up = Axis(y_marks[0], y_marks[-1], y0 + panel_height, y0)
        drawing.add(Text(x0, y0 - 6, fitted(panel.name, 10, width + 4), 10, bold=True))
        drawing.add(Rules([(x0, up.at(tick), x0 + width, up.at(tick)) for tick in y_marks], "grid", 0.8))
        for tick in y_marks:
            if k % 2 == 0:
                drawing.add(Text(x0 - 5, up.at(tick) + 3.5, number(tick), 10, "end", "muted"))
        for tick in x_marks:
            drawing.add(Text(across.at(tick), y0 + panel_height + 12, number(tick), 10, "middle", "muted"))
        _draw_curve(drawing, panel, across, up)
    drawing.description = f"{y_axis} against {x_axis}. " + "; ".join(
        f"{p.name}: chosen {p.x[p.best]:.3g}" for p in panels if p.best is not None
    )
    return drawing


def _draw_curve(drawing: Drawing, panel: Curve, across: Axis, up: Axis) -> None:
    band = [(x, lo, hi) for x, lo, hi in zip(panel.x, panel.lower, panel.upper) if lo is not None and hi is not None]
    if len(band) > 1:
        outline = [(across.at(x), up.at(hi)) for x, _, hi in band] + [
            (across.at(x), up.at(lo)) for x, lo, _ in band[::-1]
        ]
        drawing.add(Area(outline, "soft"))
    for k, (ink, values) in enumerate(panel.beside.items()):
        drawing.add(Line([(across.at(x), up.at(y)) for x, y in zip(panel.x, values)], ink, 1.4, dashed=k == 0))
    points = [(across.at(x), up.at(y)) for x, y in zip(panel.x, panel.y) if y is not None]
    if len(points) > 1:
        drawing.add(Line(points, "s0", 1.8))
    else:
        drawing.add(*(Mark("dot", x, y, 2, "s0") for x, y in points))
    if panel.best is not None and (y := panel.y[panel.best]) is not None:
        x = panel.x[panel.best]
        tip = f"{panel.name}: {shown(y)} at {x:.3g}, the one chosen"
        drawing.add(
            Mark("dot", across.at(x), up.at(y), 4, "paper"), Mark("ring", across.at(x), up.at(y), 3.6, "s1", tip)
        )


class _Rows:
    """The frame of a figure with labelled rows: legend, labels, rules between rows, axis with ticks below."""

    def __init__(
        self,
        title: str,
        labels: Sequence[str],
        series: int,
        marks: Sequence[float],
        name: str,
        last: Sequence[str] = (),
        legend: Sequence[Series] = (),
    ):
        self.drawing = Drawing(WIDTH, 0, title)
        self._rules: dict[str, list[tuple]] = {"grid": [], "axis": []}
        lines = {label: wrapped(label, _SIZE, _LABEL_MOST) for label in labels}
        widest = max((text_width(line, _SIZE) for found in lines.values() for line in found), default=0)
        start = _EDGE + min(_LABEL_MOST, widest) + 12
        self.axis = Axis(marks[0], marks[-1], start, WIDTH - _EDGE - 10)
        top = self._legend(legend) if legend else 2.0
        self.top = top
        self.rows: list[tuple[str, float, float]] = []
        for label in labels:
            height = max(_LINE * len(lines[label]) + 7, _STEP * series + 7, 22)
            if label in last and self.rows and self.rows[-1][0] not in last:
                self._rule(top, "axis")
            elif self.rows and series > 1:
                self._rule(top, "grid")
            baseline = top + height / 2 - _LINE * (len(lines[label]) - 1) / 2 + _SIZE * 0.35
            for k, line in enumerate(lines[label]):
                self.drawing.add(Text(start - 12, baseline + _LINE * k, line, _SIZE, "end", bold=label in last))
            self.rows.append((label, top, height))
            top += height
        self.bottom = top
        self._rules["grid"] += [(self.axis.at(tick), self.top, self.axis.at(tick), top) for tick in marks]
        self._rule(top, "axis", start)
        self.drawing.shapes[:0] = [Rules(ends, ink, 0.8) for ink, ends in self._rules.items() if ends]
        for tick in marks:
            self.drawing.add(Text(self.axis.at(tick), top + 14, number(tick), 10, "middle", "muted"))
        name = fitted(name, _SIZE, WIDTH - 2 * _EDGE)
        middle = min((start + self.axis.end) / 2, WIDTH - _EDGE - text_width(name, _SIZE) / 2)
        self.drawing.add(Text(middle, top + 29, name, _SIZE, "middle", "muted"))
        self.drawing.height = top + 35

    def reference(self, value: float) -> None:
        x = self.axis.at(value)
        self.drawing.add(Line([(x, self.top), (x, self.bottom)], "text", 1.2, dashed=True))

    def _rule(self, y: float, ink: str, start: float = _EDGE) -> None:
        self._rules[ink].append((start, y, WIDTH - _EDGE, y))

    def _legend(self, series: Sequence[Series]) -> float:
        x, y = _EDGE + 4, 10.0
        for one in series:
            name = fitted(one.name, _SIZE, 140)
            width = text_width(name, _SIZE)
            if x > _EDGE + 4 and x + 10 + width > WIDTH - _EDGE:
                x, y = _EDGE + 4, y + 16
            self.drawing.add(Mark(one.mark, x + 2, y, 3.6, one.ink), Text(x + 11, y + 4, name, _SIZE))
            x += 11 + width + 16
        return y + 14
