"""The frontal picture: its shape, and how much of the rays the body takes away."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from chextools.phantoms.canvas import Canvas, Pen, curve, profile, ribbon
from chextools.phantoms.scene import Body, Changes, Lung, Scene
from chextools.phantoms.tissue import soft_ribs, vessel_tree

# Half the torso's width by height (y): neck, trapezius, shoulders, chest, belly.
_TORSO = (
    (-0.75, 0.13),
    (-0.50, 0.135),
    (-0.45, 0.19),
    (-0.405, 0.34),
    (-0.36, 0.46),
    (-0.28, 0.53),
    (-0.18, 0.53),
    (-0.05, 0.475),
    (0.15, 0.455),
    (0.45, 0.475),
    (0.7, 0.5),
)
_THICK = ((-0.6, 0.62), (-0.45, 0.62), (-0.35, 0.72), (-0.2, 0.86), (0, 0.95), (0.2, 1.02), (0.6, 1.08))

# The lung's edges, as parts of the thorax's half width, by height from apex (0) to the deepest angle (1).
_WALL = ((0, 0.43), (0.015, 0.53), (0.05, 0.63), (0.12, 0.74), (0.25, 0.86), (0.45, 0.95), (0.7, 1.0), (1, 1.0))
_INNER = ((0, 0.43), (0.015, 0.33), (0.05, 0.22), (0.12, 0.15), (0.25, 0.12), (1, 0.11))

# The heart's borders in parts of the thorax's half width, by height from its top (0) to the diaphragm (1).
_RIGHT_BORDER = ((-0.1, 0.10), (0.1, 0.14), (0.4, 0.215), (0.65, 0.235), (0.85, 0.21), (1.05, 0.14), (1.2, 0.0))
_LEFT_BORDER = (
    (-0.1, 0.13),
    (0.1, 0.21),
    (0.3, 0.34),
    (0.5, 0.47),
    (0.7, 0.575),
    (0.83, 0.605),
    (0.95, 0.57),
    (1.05, 0.46),
    (1.15, 0.2),
)

# Bones of the shoulder on the picture's right side.
_CLAVICLE = ((0.035, -0.285), (0.10, -0.315), (0.19, -0.33), (0.28, -0.355), (0.37, -0.385), (0.46, -0.375))
_BLADE = (
    (0.49, -0.335),
    (0.44, -0.27),
    (0.405, -0.15),
    (0.375, -0.02),
    (0.41, 0.01),
    (0.46, -0.09),
    (0.51, -0.22),
    (0.53, -0.33),
)
_BLADE_SPINE = ((0.37, -0.235), (0.43, -0.29), (0.50, -0.355), (0.545, -0.375))
_HUMERUS = ((0.545, -0.315), (0.575, -0.1), (0.60, 0.2), (0.62, 0.6))


def lay_out(canvas: Canvas, body: Body, changes: Changes, oblique: float = 0) -> Scene:
    """Where everything is. oblique: how far the patient is turned, as a shift of the heart in body units."""
    y, x = canvas.y[:, 0], canvas.x
    lungs = [_lung(canvas, body, side, changes.raised.get(i, 0), oblique) for i, side in enumerate((-1, 1))]

    top = -0.06 + 0.02 * (body.dome - 0.19)
    bottom = body.dome + 0.035
    height = (y - top) / (bottom - top)
    scale = body.width * body.heart / 0.43 * changes.heart
    lean = 1 + 0.05 * body.lean
    right = oblique - scale * profile(_RIGHT_BORDER, height) * (2 - lean)
    left = oblique + scale * profile(_LEFT_BORDER, height) * lean
    heart = _between(canvas, right, left) * canvas.step(canvas.y - np.float32(top - 0.02), 0.02)
    heart = heart * canvas.step(np.float32(bottom + 0.045) - canvas.y, 0.01)
    bulk = np.sqrt(np.clip(1 - ((2 * x - (right + left)[:, None]) / (left - right)[:, None]) ** 2, 0, 1))

    v, k = body.vessels, body.knob
    widening = changes.mediastinum * profile(
        ((-0.40, 0), (-0.33, 0.5), (-0.25, 0.95), (-0.12, 1), (-0.02, 0.55), (0.05, 0)), y
    )
    vena = profile(((-0.42, 0.6 * v), (-0.33, 0.85 * v), (-0.2, v), (-0.08, 1.05 * v), (0.0, 1.1 * v), (0.3, v)), y)
    aorta = profile(
        (
            (-0.42, 0.6 * v),
            (-0.30, 0.8 * v),
            (-0.225, 0.9 * v),
            (-0.185, v + 0.022 * k),
            (-0.155, v + 0.030 * k),
            (-0.125, v + 0.016 * k),
            (-0.10, 1.05 * v),
            (-0.065, v + 0.017),
            (-0.03, v + 0.02),
            (0.1, v),
            (0.3, 0.8 * v),
        ),
        y,
    )
    vena, aorta = oblique - vena - widening, oblique + aorta + widening
    middle = _between(canvas, vena, aorta)
    mediastinum = middle * canvas.step(canvas.y + 0.36, 0.02) * canvas.step(0.02 - canvas.y, 0.02)
    fading = profile(((-0.43, 0.3), (-0.34, 0.72), (-0.2, 0.92), (0.5, 0.92)), y)[:, None]
    solid = 1 - (1 - middle * fading) * (1 - heart * (0.3 + 0.65 * bulk))

    blank = np.zeros(canvas.shape, np.float32)
    above = sum(lung.inside for lung in lungs) > 0.3
    central = np.abs(x - oblique) < 0.09  # between the domes
    heart = heart * (above | central) * (canvas.y < bottom + 0.02)
    return Scene(
        canvas,
        body,
        "frontal",
        lungs,
        solid,
        heart,
        mediastinum,
        _paths(body, oblique, vena, y),
        blank,
        np.ones_like(blank),
        blank.copy(),
    )


def _lung(canvas: Canvas, body: Body, side: int, raised: float, oblique: float) -> Lung:
    apex, angle = body.apex, body.dome + 0.12
    height = (canvas.y[:, 0] - apex) / (angle - apex)
    width = body.width * (1 - 0.25 * side * oblique / 0.03 * 0.1)
    outer, inner = side * width * profile(_WALL, height), side * width * profile(_INNER, height)
    # The dome: highest a little inwards of the middle, steep towards the wall; the left one is lower.
    across = np.abs(canvas.x[0]) * (np.sign(canvas.x[0]) == side) / width
    top = body.dome - raised + (0.022 if side > 0 else 0)
    slope = np.where(across > 0.46, 0.125 + raised, 0.06) * (np.abs(across - 0.46) / 0.54) ** 2.4
    base = (top + slope).astype(np.float32)
    lower, upper = (outer, inner) if side < 0 else (inner, outer)
    inside = _between(canvas, lower, upper) * canvas.step(base[None, :] - canvas.y, 0.006)
    inside = inside * canvas.step(canvas.y - np.float32(apex), 0.004)
    hilum = (oblique + side * (body.vessels + 0.022), -0.045 - 0.012 * side)
    return Lung(canvas, side, outer, inner, base, apex, inside, hilum)


def _between(canvas: Canvas, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return canvas.step(canvas.x - low[:, None], 0.005) * canvas.step(high[:, None] - canvas.x, 0.005)


def _paths(body: Body, oblique: float, vena: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Lines that catheters and tubes follow."""
    right = float(np.interp(-0.12, y, vena)) + 0.022
    wall = body.width
    return {
        "trachea": curve([(0.0, -0.60), (0.0, -0.42), (0.003 + oblique / 2, -0.30), (0.006 + oblique, -0.165)]),
        "jugular": curve([(-0.10, -0.62), (-0.085, -0.45), (-0.062, -0.33), (right, -0.22), (right, -0.04)]),
        "subclavian": curve([(-0.42, -0.36), (-0.25, -0.335), (-0.12, -0.31), (right - 0.01, -0.24), (right, 0.0)]),
        "gullet": curve([(0.01, -0.62), (0.012, -0.3), (0.02 + oblique, 0.0), (0.035, 0.2), (0.1, 0.29), (0.17, 0.33)]),
        "lead": curve(
            [
                (0.24, -0.30),
                (0.17, -0.335),
                (0.06, -0.31),
                (-0.03, -0.25),
                (right, -0.12),
                (right, 0.04),
                (0.0, 0.14),
                (0.11 + oblique, 0.175),
            ]
        ),
        "box": np.array([(0.265, -0.235)]),
        "drain": curve([(-0.60, 0.22), (-wall, 0.12), (-wall + 0.06, 0), (-wall + 0.11, -0.15), (-wall + 0.16, -0.25)]),
    }


def attenuation(scene: Scene) -> np.ndarray:
    """What the body takes away from the rays, as the logarithm: float32 on the canvas."""
    canvas, body = scene.canvas, scene.body
    total = _soft_tissue(canvas, body)
    total = total - 1.62 * _air(scene)
    aerated = scene.aerated
    tree = Pen(canvas)
    for lung in scene.lungs:
        vessel_tree(tree, lung, np.random.default_rng([body.seed, lung.side + 1]))
    vessels = tree.array(0.0018)
    lumps = canvas.texture(np.random.default_rng([body.seed, 7]), 0.012)
    behind = sum(lung.inside for lung in scene.lungs) * (1 - 0.8 * scene.solid)
    total += scene.vessels * (0.55 * vessels * behind + 0.02 * lumps * aerated)
    total += _bones(canvas, body)
    total -= _windpipe(scene)
    total += scene.dense - scene.air
    return total


def _soft_tissue(canvas: Canvas, body: Body) -> np.ndarray:
    y, x = canvas.y[:, 0], canvas.x
    torso = profile(_TORSO, y) * (0.97 + 0.06 * body.girth)
    torso = np.maximum(torso, np.where(y > -0.3, body.width + 0.055 + 0.03 * body.girth, 0))[:, None]
    thick = profile(_THICK, y)[:, None] * np.float32(2.75 + 0.5 * body.girth)
    u = np.minimum(np.abs(x) / torso, 1)
    u *= u
    chest = thick * np.sqrt(1 - u * u)
    # Upper arms beside the chest
    axis, half = 0.555 + 0.10 * np.clip(y + 0.3, 0, 1), 0.085
    a = np.clip(1 - ((np.abs(x) - axis[:, None]) / half) ** 2, 0, 1) * canvas.step(canvas.y + 0.36, 0.05)
    arm = 1.55 * np.sqrt(a)
    total = np.maximum(chest, arm.astype(np.float32))
    if body.sex == "Female":
        for side in (-1, 1):
            shape = canvas.ellipse((side * 0.215, 0.15 + 0.03 * body.girth), (0.155, 0.135 + 0.03 * body.girth))
            total = total + (0.28 + 0.3 * body.girth) * np.sqrt(np.clip(1 - shape, 0, 1))
    else:
        for side in (-1, 1):
            shape = canvas.ellipse((side * 0.25, -0.12), (0.19, 0.15))
            total = total + 0.22 * np.sqrt(np.clip(1 - shape, 0, 1))
    rng = np.random.default_rng([body.seed, 5])
    place, size, full = (rng.uniform(0.13, 0.2), body.dome + 0.10), rng.uniform(0.4, 1.2), rng.uniform(0.1, 0.9)
    stomach = np.clip(1 - canvas.ellipse(place, (0.065 * size, 0.04 * size)), 0, 1)
    return total - full * np.sqrt(stomach) * canvas.step(np.float32(place[1] + 0.015) - canvas.y, 0.006)


def _air(scene: Scene) -> np.ndarray:
    """The thickness of air along each ray, 1 in the lungs' middle."""
    canvas = scene.canvas
    total = np.zeros(canvas.shape, np.float32)
    for lung in scene.lungs:
        wall = np.clip(lung.depth() / 0.13, 0, 1)
        thin = profile(((lung.apex, 0.45), (lung.apex + 0.12, 0.85), (-0.1, 1), (0.4, 1)), canvas.y[:, 0])[:, None]
        total += lung.inside * thin * (0.38 + 0.62 * np.sqrt(wall * (2 - wall)))
        total -= 0.34 * lung.inside * np.exp(-canvas.ellipse(lung.hilum, (0.05, 0.085)))
        total -= 0.16 * lung.inside * np.exp(-canvas.ellipse((0.6 * lung.hilum[0], 0.08), (0.07, 0.3)))
    return total * (1 - scene.solid)


def _bones(canvas: Canvas, body: Body) -> np.ndarray:
    bones = soft_ribs(canvas, [_rib(body, side, i) for side in (-1, 1) for i in range(10)], 0.30 * body.ribs)
    below = canvas.step(canvas.y - np.float32(body.dome + 0.04), 0.12)  # there ribs drown in scatter
    bones = bones * (1 - 0.6 * below) + 0.30 * _spine(canvas)
    pen, edge = Pen(canvas), Pen(canvas)
    rise = 0.9 + 0.5 * (body.ribs - 0.7)
    for side in (-1, 1):
        clavicle = curve([(side * x, -0.285 + rise * (y + 0.285)) for x, y in _CLAVICLE])
        half = np.interp(np.linspace(0, 1, len(clavicle)), [0, 0.15, 0.5, 1], [0.022, 0.015, 0.013, 0.018])
        outline = ribbon(clavicle, half)
        pen.area(outline, 0.55)
        edge.line(outline[: len(clavicle)], 0.004, 0.6)
        edge.line(outline[len(clavicle) :], 0.004, 0.6)
        blade, spine, shaft = (curve(np.array(bone) * (side, 1)) for bone in (_BLADE, _BLADE_SPINE, _HUMERUS))
        pen.area(blade, 0.22)
        edge.line(blade[:33], 0.007, 0.5)
        pen.area(ribbon(spine, 0.012), 0.4)
        pen.disc(shaft[0], 0.055, 0.5)
        outline = ribbon(shaft, 0.026)
        pen.area(outline, 0.42)
        edge.line(outline[: len(shaft)], 0.008, 0.5)
        edge.line(outline[len(shaft) :], 0.008, 0.5)
    return bones + 0.62 * pen.array(0.002) + 0.3 * edge.array(0.0015)


def _rib(body: Body, side: int, number: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(back arc, front arc, half width): an ellipse from the spine round the side to the front, tilted down."""
    part = number / 9
    start = body.apex - 0.005 + (0.052 + 0.012 * part) * number
    tilt = 0.10 + 0.16 * part**0.7
    angle = body.dome + 0.12
    level = (start + tilt / 2 - body.apex) / (angle - body.apex)
    reach = body.width * float(profile(_WALL, np.array([level]))[0]) + 0.006
    t = np.linspace(0.04, 0.8 * np.pi, 26)
    x = side * (0.03 + (reach - 0.03) * np.sin(t) ** 0.9)
    y = start + tilt * (1 - np.cos(t)) / 2 - 0.028 * np.sin(np.clip(2 * t, 0, np.pi)) * (t < np.pi / 2)
    line = np.stack([x, y], axis=1)
    turn = 14
    return line[:turn], line[turn - 1 :], 0.0125 + 0.002 * np.sin(3.0 * part)


@lru_cache(maxsize=2)
def _spine(canvas: Canvas) -> np.ndarray:
    pen = Pen(canvas)
    for i in range(24):
        y, half = -0.62 + 0.054 * i, 0.030 + 0.0006 * i
        body = curve(
            [
                (-half, y - 0.021),
                (-half * 0.86, y),
                (-half, y + 0.021),
                (half, y + 0.021),
                (half * 0.86, y),
                (half, y - 0.021),
                (-half, y - 0.021),
            ],
            4,
        )
        pen.area(body, 0.55)
        pen.line(body, 0.004, 0.85)
        for side in (-1, 1):
            pen.disc((side * half * 0.62, y - 0.006), 0.008, 0.9)
        pen.line([(0, y), (0, y + 0.03)], 0.009, 0.9)
    return pen.array(0.003)


def _windpipe(scene: Scene) -> np.ndarray:
    pen = Pen(scene.canvas)
    trachea = scene.paths["trachea"]
    pen.area(ribbon(trachea, 0.0165), 0.9)
    fork = trachea[-1]
    for lung in scene.lungs:
        x, y = lung.hilum
        pen.line(curve([fork, (fork[0] + 0.5 * (x - fork[0]), fork[1] + 0.042), (x, y - 0.01)]), 0.02, 0.6)
    return 0.24 * pen.array(0.004)
