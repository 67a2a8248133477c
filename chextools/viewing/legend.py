"""What a picture's signs mean: the colour bar with its values, and the signs of outlines and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from chextools.plumbing.lettering import width_of
from chextools.viewing.colours import GREY, heated
from chextools.viewing.sketch import Ramp, Sketch, Swatch, Written
from chextools.viewing.text import fitted, wrapped


@dataclass(frozen=True, slots=True)
class Legend:
    """heat: a heatmap's name. ends: the values at the bar's ends, and what stands in its middle, where it is known.

    signs: (sign, name) of the others; signs are "truth" and "predicted" for outlines, and those of markers: "truth
    point", "hit", "miss", "point".
    """

    heat: str | None = None
    ends: tuple[str, ...] = ("", "")
    signs: Sequence[tuple[str, str]] = field(default_factory=tuple)


def drawn(legend: Legend, width: int, unit: float) -> Sketch:
    """The legend on as many lines as it needs at this width; `unit` is the size of its text in pixels."""
    entries = [_sign(sign, name, width, unit) for sign, name in legend.signs]
    if legend.heat is not None:
        entries.insert(0, _bar(legend, width, unit))
    gap, height = round(1.4 * unit), round(1.7 * unit)
    whole, left, top = Sketch(width, 1), 0, 0
    for entry in entries:
        if left and left + entry.width > width:
            left, top = 0, whole.height
        whole.place(entry, left, top + max(0, height - entry.height) // 2)
        whole.height = max(whole.height, top + max(height, entry.height))
        left += entry.width + gap
    return whole


def _bar(legend: Legend, width: int, unit: float) -> Sketch:
    """The colours, under them their values, beside them the name on one line or two."""
    size, small = round(unit), max(8, round(0.82 * unit))
    bar = round(max(8 * unit, min(16 * unit, width / 3)))
    pad, thick = round(0.6 * unit), round(0.9 * unit)
    name = wrapped(legend.heat or "", size, width - bar - pad)
    sketch = Sketch(min(width, int(bar + pad + max(width_of(line, size) for line in name)) + 1), round(2.6 * unit))
    ramp = heated(np.full((thick, bar), GREY, np.uint8), np.broadcast_to(np.linspace(0, 1, bar), (thick, bar)))
    top = round(0.35 * unit)
    sketch.shapes.append(Ramp(0, top, ramp))
    sketch.shapes += [Written(bar + pad, top + thick / 2 + k * 1.2 * unit, line, size) for k, line in enumerate(name)]
    widths, ends = [width_of(end, small) for end in legend.ends], legend.ends
    if len(ends) > 2 and max(widths[0], widths[-1]) + pad + widths[1] / 2 > bar / 2:
        ends = (ends[0], ends[-1])  # a value in the middle helps only where it can be read
    for share, end in zip(np.linspace(0, 1, len(ends)), ends):
        text = end if len(ends) > 2 else fitted(end, small, bar / 2)
        x = share * (bar - width_of(text, small))
        sketch.shapes.append(Written(x, top + thick + 0.75 * unit, text, small, "faint"))
    return sketch


def _sign(sign: str, name: str, width: int, unit: float) -> Sketch:
    """A sign and its name."""
    size = round(unit)
    swatch = round((3.4 if sign in ("truth", "predicted") else 1.5) * unit)
    name = fitted(name, size, width - swatch - 0.5 * unit)
    sketch = Sketch(int(swatch + 0.5 * unit + width_of(name, size)) + 1, round(1.5 * unit))
    height = round(1.4 * unit)
    sketch.shapes.append(Swatch(0, (sketch.height - height) // 2, swatch, height, sign, unit / 11))
    sketch.shapes.append(Written(swatch + 0.5 * unit, sketch.height / 2, name, size))
    return sketch
