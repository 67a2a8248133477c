"""Ribs and vessels, for either view."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from chextools.phantoms.canvas import Canvas, Pen, ribbon
from chextools.phantoms.scene import Lung

# Where the hilum's branches go (0 away from the spine, positive down) and how large they are.
_STEMS = ((-1.35, 0.7), (-0.9, 0.85), (-0.35, 0.75), (0.1, 0.75), (0.5, 1.0), (0.9, 1.2), (1.25, 1.2))


def soft_ribs(canvas: Canvas, ribs: Iterable[tuple[np.ndarray, np.ndarray, float]], strength: float) -> np.ndarray:
    """Attenuation of ribs, each a (back arc, front arc, half width): tubes, denser at their rims."""
    back, front, rims = Pen(canvas), Pen(canvas), Pen(canvas)
    for behind, before, half in ribs:
        for pen, line, value in ((back, behind, 0.75), (front, before, 0.6)):
            width = half * np.linspace(1.0, 1.12, len(line))
            outline = ribbon(line, width)
            pen.area(outline, value)
            rims.line(outline[: len(line)], 0.003, 0.55 * value)
            rims.line(outline[len(line) :], 0.003, 0.75 * value)
    return np.float32(strength) * (back.array(0.0015) + front.array(0.0025) + 0.8 * rims.array(0.0012))


def vessel_tree(pen: Pen, lung: Lung, rng: np.random.Generator) -> None:
    """Vessels that branch from the hilum and thin out towards the wall and the apex."""
    x, y = lung.hilum
    for angle, size in _STEMS:
        start = (x - 0.02 * lung.side, y + 0.035 * math.sin(angle))
        branches = [(*start, angle + rng.normal(0, 0.15), 0.0095 * size, 0.06 * size)]
        for generation in range(6):
            following = []
            for bx, by, turn, width, length in branches:
                first, second, left, right, shorter = rng.normal(0, 1, 5).tolist()
                line = [(bx, by)]
                for bend in (first, second):
                    turn += 0.16 * bend
                    bx, by = bx + lung.side * length / 2 * math.cos(turn), by + length / 2 * math.sin(turn)
                    line.append((bx, by))
                pen.line(line, width, 0.9 - 0.11 * generation)
                length *= min(0.98, max(0.55, 0.8 + 0.12 * shorter))
                following.append((bx, by, turn - abs(0.3 + 0.2 * left), width * 0.74, length))
                if generation < 2 or right < 0.6:
                    following.append((bx, by, turn + abs(0.4 + 0.25 * right), width * 0.62, length * 0.85))
            branches = following
