"""Drawings: a list of simple shapes, written as SVG or as PNG, so that both show the same.

A shape names its ink, not a colour: in a page the style sheet gives the ink its colour, light or dark; in a file of its
own it is the light one. The inks tell series apart for colour-blind readers too (they vary in lightness, and every
series has a mark of its own besides).
"""

from __future__ import annotations

import html
import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from chextools.errors import printable
from chextools.plumbing.lettering import broken, font_of, has_letter, shortened, unaccented, width_of

# Ink: (colour on light paper, colour on dark paper). Text inks have a contrast of 4.5:1 or more, the others of 3:1.
INKS = {
    "paper": ("#ffffff", "#14191f"),
    "text": ("#1b2027", "#e7ecf1"),
    "muted": ("#59636e", "#9eabb8"),
    "grid": ("#e4e8ec", "#2a323b"),
    "axis": ("#8b949e", "#6b7783"),
    "human": ("#1b2027", "#f3f6f9"),
    "floor": ("#79838d", "#8f9ba7"),
    "s0": ("#0068a8", "#58b0ea"),
    "s1": ("#c24a00", "#f58f4f"),
    "s2": ("#00805c", "#35c79a"),
    "s3": ("#a0508e", "#dc9ac6"),
    "s4": ("#a06c00", "#e3b54c"),
    "soft": ("#d5e6f2", "#1d3a50"),
}

MARKS = ("dot", "square", "triangle", "plus", "cross", "diamond", "ring", "box", "rhomb")  # the last three hollow
FONT_SVG = "Helvetica, Arial, sans-serif"
_SCALE = 4  # pixels of a PNG per unit: some 390 a printed inch where the figure is 3.5 inches wide
_MOST_PIXELS = 2**26  # of a PNG while it is drawn, 3 bytes each: figures of hundreds of tasks are drawn smaller
_OVERSAMPLED = 2  # and as many times more while it is drawn, as Pillow's shapes have hard edges
_BOLD = 0.35  # units added around letters, as Pillow's own font has one weight


@dataclass(frozen=True, slots=True)
class Line:
    """A path through points in units, (x, y) from the top left; dashed for references. `tip` is shown on hovering."""

    points: Sequence[tuple[float, float]]
    ink: str = "axis"
    width: float = 1.0
    dashed: bool = False
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Straight lines apart from each other, such as a grid, each from (x1, y1) to (x2, y2)."""

    ends: Sequence[tuple[float, float, float, float]]
    ink: str = "grid"
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon."""

    points: Sequence[tuple[float, float]]
    ink: str = "soft"
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A data point, centred at x, y, some 2r wide. link: where a click on it leads within the page."""

    shape: str
    x: float
    y: float
    r: float = 3.5
    ink: str = "s0"
    tip: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text whose baseline is at y; anchor: start, middle or end of it at x."""

    x: float
    y: float
    text: str
    size: float = 11
    anchor: str = "start"
    ink: str = "text"
    bold: bool = False


Shape = Line | Rules | Area | Mark | Text


@dataclass
class Drawing:
    """Shapes on paper of `width` x `height` units. title: what it shows; description: what can be read off it."""

    width: float
    height: float
    title: str
    description: str = ""
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        self.shapes += shapes


# Text that fits


def text_width(text: str, size: float) -> float:
    """How wide a line of text may be, in units: fonts of browsers are wider than ours by up to a fifth; wide characters
    of East Asia count as a square."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return width_of(_plain(text), 100) * size / 100 * 1.19 + wide * size * 0.45


def fitted(text: str, size: float, width: float) -> str:
    """The text on one line, cut with an ellipsis where it is wider."""
    return shortened(printable(text), lambda part: text_width(part, size) <= width)


def wrapped(text: str, size: float, width: float, lines: int = 2) -> list[str]:
    """The text on at most so many lines, broken at spaces and after hyphens; each is cut where it does not fit."""
    found = broken(printable(text), lambda part: text_width(part, size) <= width, lines, " _/-")
    return [fitted(line, size, width) for line in found]


# SVG


def svg(drawing: Drawing, inline: str = "") -> str:
    """SVG text, for a file of its own; or, given `inline`, an id unique in the page, for a page with `ink_rules`."""
    titles = f"<title{_id(inline, 't')}>{escaped(drawing.title)}</title>"
    labelled = f' aria-labelledby="{inline}-t"' if inline else ""
    if drawing.description:
        titles += f"<desc{_id(inline, 'd')}>{escaped(drawing.description)}</desc>"
        labelled += f' aria-describedby="{inline}-d"' if inline else ""
    size = f'viewBox="0 0 {_n(drawing.width)} {_n(drawing.height)}"'
    if inline:
        start = f'<svg {size} role="img"{labelled} font-size="11" class="f-text">'
        background = ""
    else:
        start = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} width="{_n(drawing.width)}" height="{_n(drawing.height)}" '
            f'font-family="{FONT_SVG}" font-size="11" fill="{INKS["text"][0]}" stroke-linecap="round" '
            'stroke-linejoin="round">'
        )
        background = f'<rect width="100%" height="100%" fill="{INKS["paper"][0]}"/>'
    return start + titles + background + "".join(_svg_shape(shape, bool(inline)) for shape in drawing.shapes) + "</svg>"


def ink_rules() -> str:
    """CSS of the inks that `svg` names in a page: their colours stand in custom properties, see `ink_colours`."""
    rules = ["svg{stroke-linecap:round;stroke-linejoin:round}"]
    rules += [f".f-{ink}{{fill:var(--{ink})}}.k-{ink}{{stroke:var(--{ink});fill:none}}" for ink in INKS]
    return "".join(rules)


def ink_colours(dark: bool) -> str:
    """CSS declarations of the colours, light or dark."""
    return "".join(f"--{ink}:{colours[dark]};" for ink, colours in INKS.items())


def escaped(text: str) -> str:
    """A stranger's text for HTML, XML or a quoted attribute."""
    return html.escape(printable(text))


def _id(inline: str, part: str) -> str:
    return f' id="{inline}-{part}"' if inline else ""


def _n(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _svg_shape(shape: Shape, inline: bool) -> str:
    def fill(ink: str) -> str:
        return f'class="f-{ink}"' if inline else f'fill="{INKS[ink][0]}"'

    def stroke(ink: str) -> str:
        return f'class="k-{ink}"' if inline else f'fill="none" stroke="{INKS[ink][0]}"'

    if isinstance(shape, Text):
        anchor = f' text-anchor="{shape.anchor}"' if shape.anchor != "start" else ""
        bold = ' font-weight="600"' if shape.bold else ""
        size = f' font-size="{_n(shape.size)}"' if shape.size != 11 else ""
        ink = " " + fill(shape.ink) if shape.ink != "text" else ""
        return f'<text x="{_n(shape.x)}" y="{_n(shape.y)}"{size}{anchor}{bold}{ink}>{escaped(shape.text)}</text>'
    if isinstance(shape, Rules):
        path = "".join(f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}" for x1, y1, x2, y2 in shape.ends)
        return f'<path d="{path}" {stroke(shape.ink)} stroke-width="{_n(shape.width)}"/>'
    if isinstance(shape, Line):
        dash = ' stroke-dasharray="1 4"' if shape.dashed else ""
        name, attributes = (
            "path",
            f'd="{_path(shape.points)}" {stroke(shape.ink)} stroke-width="{_n(shape.width)}"{dash}',
        )
    elif isinstance(shape, Area):
        name, attributes = "path", f'd="{_path(shape.points)}z" {fill(shape.ink)}'
    elif shape.shape in ("dot", "ring"):
        name = "circle"
        attributes = f'cx="{_n(shape.x)}" cy="{_n(shape.y)}" r="{_n(shape.r)}" '
        attributes += fill(shape.ink) if shape.shape == "dot" else f'{stroke(shape.ink)} stroke-width="1.6"'
    else:
        outline, filled = _outline(shape)
        drawn = fill(shape.ink) if filled else f'{stroke(shape.ink)} stroke-width="{_n(_thickness(shape))}"'
        name, attributes = "path", f'd="{"".join(map(_path, outline))}{"z" * filled}" {drawn}'
    tip = f"<title>{escaped(shape.tip)}</title>" if shape.tip else ""
    drawn = f"<{name} {attributes}>{tip}</{name}>" if tip else f"<{name} {attributes}/>"
    if inline and isinstance(shape, Mark) and shape.link:
        return (
            f'<a href="{escaped(shape.link)}" tabindex="-1">{drawn}</a>'  # a table has the same links for the keyboard
        )
    return drawn


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _outline(mark: Mark) -> tuple[list[list[tuple[float, float]]], bool]:
    """The lines of a mark other than a circle, and whether they are the outline of what is filled."""
    x, y, r = mark.x, mark.y, mark.r
    if mark.shape in ("square", "box"):
        s = r * 0.9
        corners = [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
        return ([corners], True) if mark.shape == "square" else ([[*corners, corners[0]]], False)
    if mark.shape == "triangle":
        return [[(x, y - r * 1.2), (x + r * 1.15, y + r * 0.85), (x - r * 1.15, y + r * 0.85)]], True
    if mark.shape in ("diamond", "rhomb"):
        d = r * 1.3
        corners = [(x, y - d), (x + d, y), (x, y + d), (x - d, y)]
        return ([corners], True) if mark.shape == "diamond" else ([[*corners, corners[0]]], False)
    if mark.shape == "plus":
        return [[(x - r, y), (x + r, y)], [(x, y - r), (x, y + r)]], False
    if mark.shape == "cross":
        c = r * 0.85
        return [[(x - c, y - c), (x + c, y + c)], [(x - c, y + c), (x + c, y - c)]], False
    raise ValueError(f"no mark {mark.shape!r}")


def _thickness(mark: Mark) -> float:
    """Of the lines of a mark that is not filled."""
    return 2.0 if mark.shape in ("plus", "cross") else 1.6


# PNG


def png(drawing: Drawing) -> bytes:
    """PNG of the drawing on light paper, 4 pixels per unit, fewer where those would be too many.

    Letters that Pillow's own font lacks are shown without accents, or as a question mark.
    """
    most = math.sqrt(_MOST_PIXELS / (drawing.width * drawing.height)) / _OVERSAMPLED
    scale = min(_SCALE, most)
    fine = scale * _OVERSAMPLED
    image = Image.new("RGB", (math.ceil(drawing.width * fine), math.ceil(drawing.height * fine)), INKS["paper"][0])
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        if not isinstance(shape, Text):
            _draw(pen, shape, fine)
    image = image.reduce(_OVERSAMPLED)
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:  # letters are smooth by themselves, and nothing lies on them
        if isinstance(shape, Text):
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            pen.text(
                (shape.x * scale, shape.y * scale),
                _plain(shape.text),
                INKS[shape.ink][0],
                font_of(shape.size * scale),
                anchor,
                stroke_width=_BOLD * scale / 2 * shape.bold,
            )
    out = io.BytesIO()
    image.save(out, "PNG", dpi=(390, 390))
    return out.getvalue()


def _draw(pen: ImageDraw.ImageDraw, shape: Line | Rules | Area | Mark, scale: float) -> None:
    colour = INKS[shape.ink][0]
    if isinstance(shape, Line):
        for points in _dashes(shape.points) if shape.dashed else [shape.points]:
            _stroke(pen, points, shape.width, colour, scale)
    elif isinstance(shape, Rules):
        for x1, y1, x2, y2 in shape.ends:
            _stroke(pen, [(x1, y1), (x2, y2)], shape.width, colour, scale)
    elif isinstance(shape, Area):
        pen.polygon([(x * scale, y * scale) for x, y in shape.points], fill=colour)
    elif shape.shape in ("dot", "ring"):
        half = shape.r + (0.8 if shape.shape == "ring" else 0)
        box = [(shape.x - half) * scale, (shape.y - half) * scale, (shape.x + half) * scale, (shape.y + half) * scale]
        if shape.shape == "dot":
            pen.ellipse(box, fill=colour)
        else:
            pen.ellipse(box, outline=colour, width=round(1.6 * scale))
    else:
        outline, filled = _outline(shape)
        for points in outline:
            if filled:
                pen.polygon([(x * scale, y * scale) for x, y in points], fill=colour)
            else:
                _stroke(pen, points, _thickness(shape), colour, scale)


def _stroke(pen: ImageDraw.ImageDraw, points: Sequence, width: float, colour: str, scale: float) -> None:
    """A line with round ends and joints."""
    scaled = [(x * scale, y * scale) for x, y in points]
    thick = max(1, round(width * scale))
    pen.line(scaled, fill=colour, width=thick, joint="curve")
    if thick > 10:
        half = (thick - 1) / 2
        for x, y in (scaled[0], scaled[-1]):
            pen.ellipse([x - half, y - half, x + half, y + half], fill=colour)


def _dashes(points: Sequence[tuple[float, float]], gap: float = 5.0) -> list[list[tuple[float, float]]]:
    """Dots of one unit, a gap apart, along straight lines, as stroke-dasharray="1 4" makes."""
    found = []
    for (x1, y1), (x2, y2) in zip(points, points[1:]):
        length = math.hypot(x2 - x1, y2 - y1)
        for k in range(int(length / gap) + 1 if length else 0):
            t, u = k * gap / length, min(1.0, (k * gap + 1) / length)
            found.append([(x1 + (x2 - x1) * t, y1 + (y2 - y1) * t), (x1 + (x2 - x1) * u, y1 + (y2 - y1) * u)])
    return found


_SAME = str.maketrans({"−": "-", "–": "-", "×": "x", "≤": "<", "≥": ">"})


def _plain(text: str) -> str:
    """The text in letters that Pillow's own font has."""
    if text.isascii():
        return text
    return "".join(c if has_letter(c) else "?" for c in unaccented(text.translate(_SAME)))
