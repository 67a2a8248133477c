"""The lateral picture: the patient faces the picture's left; both lungs lie over each other."""

from __future__ import annotations

import numpy as np

from chextools.phantoms.canvas import Canvas, Pen, curve, profile, ribbon
from chextools.phantoms.scene import Body, Changes, Lung, Scene
from chextools.phantoms.tissue import soft_ribs, vessel_tree

# The skin in front and at the back by height (y), and the thickness of soft tissue.
_FRONT = (
    (-0.75, -0.06),
    (-0.52, -0.07),
    (-0.44, -0.12),
    (-0.36, -0.25),
    (-0.2, -0.325),
    (0, -0.36),
    (0.2, -0.375),
    (0.45, -0.36),
    (0.7, -0.33),
)
_BACK = (
    (-0.75, 0.19),
    (-0.52, 0.20),
    (-0.44, 0.28),
    (-0.32, 0.39),
    (-0.15, 0.43),
    (0.1, 0.42),
    (0.3, 0.36),
    (0.5, 0.35),
    (0.7, 0.38),
)
_THICK = ((-0.6, 0.75), (-0.45, 0.95), (-0.33, 1.22), (-0.22, 1.12), (-0.1, 1.0), (0.1, 1.0), (0.3, 1.08), (0.6, 1.1))

# The lung's edges by height from apex (0) to the deepest angle (1).
_BEHIND = ((0, 0.10), (0.02, 0.15), (0.08, 0.21), (0.2, 0.285), (0.4, 0.33), (0.6, 0.345), (0.85, 0.335), (1, 0.32))
_BEFORE = (
    (0, 0.10),
    (0.02, 0.04),
    (0.08, -0.05),
    (0.18, -0.15),
    (0.35, -0.235),
    (0.55, -0.275),
    (0.8, -0.295),
    (1, -0.295),
)
_SPINE = ((-0.75, 0.07), (-0.5, 0.1), (-0.3, 0.185), (-0.1, 0.235), (0.1, 0.235), (0.3, 0.195), (0.6, 0.14))
_STERNUM = ((-0.15, -0.29), (-0.225, -0.17), (-0.275, -0.03), (-0.30, 0.08), (-0.31, 0.14))
# A rib from the spine round to the front; y in parts of how far it drops.
_RIB = ((0.20, 0.02), (0.29, 0.0), (0.345, 0.18), (0.31, 0.45), (0.17, 0.75), (0.0, 0.95), (-0.16, 1.05))
_VERTEBRA = ((-1, -1), (-0.88, 0), (-1, 1), (1, 1), (0.92, 0), (1, -1), (-1, -1))


def lay_out(canvas: Canvas, body: Body, changes: Changes, oblique: float = 0) -> Scene:
    """Where everything is. oblique: how far the patient is turned, as a shift of the heart in body units."""
    y, x = canvas.y[:, 0], canvas.x
    wide = body.width / 0.375
    raised = 0.5 * max(changes.raised.values(), default=0)  # the other dome stays
    apex, angle = body.apex, body.dome + 0.16
    height = (y - apex) / (angle - apex)
    outer, inner = wide * profile(_BEHIND, height), wide * profile(_BEFORE, height)
    across = canvas.x[0] / wide + 0.08
    slope = np.where(across > 0, 0.17 + raised, 0.07) * (np.abs(across) / np.where(across > 0, 0.41, 0.22)) ** 2.2
    base = (body.dome - raised - 0.015 + slope).astype(np.float32)
    inside = canvas.step(canvas.x - inner[:, None], 0.005) * canvas.step(outer[:, None] - canvas.x, 0.008)
    inside = inside * canvas.step(base[None, :] - canvas.y, 0.006) * canvas.step(canvas.y - np.float32(apex), 0.01)
    lung = Lung(canvas, 1, outer, inner, base, apex, inside, (0.03, -0.045))

    grown = 1 + 0.85 * (changes.heart - 1)
    size = body.heart / 0.45 * grown
    centre = (-0.115 * wide + 0.10 * (size - 1) + oblique, body.dome - 0.095 - 0.04 * (size - 1))
    shape = canvas.ellipse(centre, (0.108 * size, 0.168 * size), 0.62)
    heart = canvas.step((1 - np.sqrt(shape)) * np.float32(0.12), 0.012) * inside
    bulk = np.sqrt(np.clip(1 - shape, 0, 1))

    v = body.vessels + 1.1 * changes.mediastinum * profile(((-0.36, 0), (-0.28, 0.8), (-0.1, 1), (0.04, 0.3)), y)
    axis = profile(((-0.45, 0.03), (-0.25, -0.005), (-0.1, -0.03), (0.05, -0.06)), y) + oblique
    axis -= 0.5 * (v - body.vessels)
    middle = canvas.step(v[:, None] - np.abs(x - axis[:, None]), 0.03)
    middle = middle * canvas.step(canvas.y + 0.33, 0.06) * canvas.step(0.05 - canvas.y, 0.05)
    arch = np.exp(-(canvas.ellipse((0.045, -0.165), (0.055 * body.knob, 0.045 * body.knob)) ** 2))
    far = canvas.step(canvas.y - base[None, :] + np.float32(0.032), 0.006)  # the other lung ends a little higher
    thick = 0.42 + 9 * (v - body.vessels)[:, None]
    solid = 1 - (1 - heart * (0.45 + 0.45 * bulk)) * (1 - np.minimum(thick, 0.8) * middle) * (1 - 0.3 * arch)
    solid = 1 - (1 - solid) * (1 - 0.35 * far)
    blank = np.zeros(canvas.shape, np.float32)
    return Scene(
        canvas,
        body,
        "lateral",
        [lung],
        solid.astype(np.float32),
        heart,
        middle * (inside > 0.3),
        _paths(),
        blank,
        np.ones_like(blank),
        blank.copy(),
    )


def _paths() -> dict[str, np.ndarray]:
    """Lines that catheters and tubes follow."""
    return {
        "trachea": curve([(0.0, -0.62), (0.01, -0.42), (0.035, -0.28), (0.06, -0.14)]),
        "jugular": curve([(0.0, -0.62), (-0.005, -0.4), (-0.015, -0.25), (0.0, -0.12), (0.005, 0.0)]),
        "subclavian": curve([(-0.23, -0.33), (-0.14, -0.335), (-0.05, -0.3), (-0.005, -0.2), (0.005, 0.02)]),
        "gullet": curve([(0.05, -0.62), (0.075, -0.3), (0.10, 0.0), (0.09, 0.2), (0.0, 0.29), (-0.08, 0.32)]),
        "lead": curve(
            [(-0.29, -0.2), (-0.2, -0.31), (-0.08, -0.31), (-0.01, -0.2), (0.01, 0.0), (-0.07, 0.11), (-0.2, 0.14)]
        ),
        "box": np.array([(-0.285, -0.175)]),
        "drain": curve([(0.50, 0.24), (0.33, 0.16), (0.25, 0.0), (0.2, -0.15), (0.13, -0.27)]),
    }


def attenuation(scene: Scene) -> np.ndarray:
    """What the body takes away from the rays, as the logarithm: float32 on the canvas."""
    canvas, body = scene.canvas, scene.body
    (lung,) = scene.lungs
    total = _soft_tissue(canvas, body)
    rim = np.clip(np.minimum(lung.depth(), canvas.x - lung.inner[:, None]) / 0.11, 0, 1)
    thin = profile(((body.apex, 0.25), (body.apex + 0.14, 0.6), (-0.1, 0.95), (0.4, 1)), canvas.y[:, 0])[:, None]
    hilum = 0.28 * np.exp(-canvas.ellipse(lung.hilum, (0.06, 0.06)))
    air = lung.inside * (thin * (0.45 + 0.55 * np.sqrt(rim * (2 - rim))) - hilum) * (1 - scene.solid)
    total -= 2.0 * air
    tree = Pen(canvas)
    for side in (-1, 1):
        stem = Lung(canvas, side, lung.outer, lung.inner, lung.base, lung.apex, lung.inside, lung.hilum)
        vessel_tree(tree, stem, np.random.default_rng([body.seed, side + 1]))
    lumps = canvas.texture(np.random.default_rng([body.seed, 7]), 0.012)
    behind = lung.inside * (1 - 0.7 * scene.solid)
    total += scene.vessels * (0.5 * tree.array(0.002) * behind + 0.022 * lumps * scene.aerated)
    total += _bones(canvas, body)
    windpipe = Pen(canvas)
    windpipe.area(ribbon(scene.paths["trachea"], 0.017), 0.9)
    total -= 0.38 * windpipe.array(0.004)
    total += scene.dense - scene.air
    return total


def _soft_tissue(canvas: Canvas, body: Body) -> np.ndarray:
    y = canvas.y[:, 0]
    wide = body.width / 0.375 * (0.97 + 0.06 * body.girth)
    front, back = wide * profile(_FRONT, y) - 0.015 * body.girth, wide * profile(_BACK, y)
    if body.sex == "Female":
        front = front - (0.05 + 0.05 * body.girth) * np.exp(-(((y - 0.1) / 0.12) ** 2))
    u = np.clip(np.abs((2 * canvas.x - (front + back)[:, None]) / (back - front)[:, None]), 0, 1)
    total = profile(_THICK, y)[:, None] * np.float32(2.85 + 0.5 * body.girth) * (1 - u**3.5) ** 0.6
    # Raised arms cross the upper front corner.
    arm = curve([(0.16, -0.33), (-0.05, -0.42), (-0.25, -0.5), (-0.5, -0.62)])
    pen = Pen(canvas)
    pen.area(ribbon(arm, 0.085), 0.8)
    total = np.maximum(total, 1.7 * pen.array(0.02)) + 0.35 * pen.array(0.02)
    stomach = np.clip(1 - canvas.ellipse((-0.07, body.dome + 0.10), (0.07, 0.04)), 0, 1)
    return total.astype(np.float32) - 0.6 * np.sqrt(stomach)


def _bones(canvas: Canvas, body: Body) -> np.ndarray:
    wide = body.width / 0.375
    ribs = []
    for shift in (0, 0.022):  # those of the two sides
        for i in range(10):
            start = body.apex + shift + 0.058 * i
            drop = 0.16 + 0.012 * i
            line = curve([(wide * x, start + drop * part) for x, part in _RIB], 5)
            ribs.append((line[:14], line[13:], 0.0105))
    bones = soft_ribs(canvas, ribs, 0.17 * body.ribs)
    pen, rim = Pen(canvas), Pen(canvas)
    for i in range(19):
        y = -0.60 + 0.0635 * i
        (x, ahead) = profile(_SPINE, np.array([y, y + 0.02]))
        lean = float(ahead - x) / 0.02
        half = 0.034 + 0.0007 * i
        block = curve([(x + a * half, y + b * 0.0245 - a * lean * half) for a, b in _VERTEBRA], 4)
        pen.area(block, 0.55)
        rim.line(block, 0.005, 0.75)
        pen.line([(x + half, y - 0.01), (x + half + 0.05, y + 0.015), (x + half + 0.075, y + 0.035)], 0.016, 0.32)
    front = curve([(wide * x, y) for x, y in _STERNUM])
    pen.area(ribbon(front, 0.011), 0.5)
    rim.line(front + np.array([0.011, 0]), 0.004, 0.6)
    for x, y in ((0.27, -0.22), (0.24, -0.24)):
        blade = curve([(x - 0.06, -0.36), (x, y), (x + 0.05, -0.05)])
        rim.line(blade, 0.01, 0.4)
    pen.disc((0.13, -0.35), 0.055, 0.45)
    return bones + 0.6 * pen.array(0.0025) + 0.3 * rim.array(0.0015)
