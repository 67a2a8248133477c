"""The signs by which ten findings show: each changes a laid-out scene and says where it did.

Severity lies in [0, 1]. What is random about a sign comes from its own generator, so that leaving one sign out changes
nothing about the others, and the views of one study show it on the same side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from chextools.phantoms.canvas import Pen, curve, ribbon
from chextools.phantoms.scene import Changes, Lung, Scene

Region = np.ndarray  # where a sign is, on the canvas, in [0, 1]


def change(task: str, changes: Changes, severity: float, rng: np.random.Generator) -> None:
    """What the sign changes in the body's shape."""
    if task == "Cardiomegaly":
        changes.heart *= 1.3 + 0.25 * severity
    elif task == "Enlarged Cardiomediastinum":
        changes.mediastinum += 0.038 + 0.035 * severity
    elif task == "Atelectasis":
        changes.raised[_side(rng)] = 0.006 + 0.012 * severity


def draw(task: str, scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """Draw the sign into the scene; its regions, one per lesion."""
    return _SIGNS[task](scene, severity, rng)


def _heart(scene: Scene, _severity: float, _rng: np.random.Generator) -> list[Region]:
    return [scene.heart]


def _mediastinum(scene: Scene, _severity: float, _rng: np.random.Generator) -> list[Region]:
    return [scene.mediastinum]


def _lesion(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """One to three round nodules."""
    regions = []
    places: list[tuple[float, float]] = []
    for number in range(int(rng.choice([1, 1, 2, 3]))):
        radius = (0.034 + 0.026 * severity) * rng.uniform(0.85, 1.15)
        for _ in range(40):  # beside the heart, the diaphragm and each other
            x, y = _lung(scene, int(rng.integers(2))).at(rng.uniform(0.2, 0.72), rng.uniform(0.15, 0.85))
            if _clear(scene, x, y, radius) and all(math.hypot(x - a, y - b) > 2.6 * radius for a, b in places):
                break
        else:
            if number:  # the first one stays where it is
                continue
        places.append((x, y))
        radii, angle = (radius, radius * rng.uniform(0.8, 1)), rng.uniform(0, np.pi)
        shape = scene.canvas.ellipse((x, y), radii, angle)
        scene.dense += (0.62 + 0.4 * severity) * np.clip(1.2 - shape, 0, 1) ** 0.7
        regions.append((shape < 1.1).astype(np.float32))
    return regions


def _opacity(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """A fluffy patch."""
    lung = _lung(scene, _side(rng))
    for _ in range(40):
        centre = lung.at(rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.8))
        if _clear(scene, *centre, 0.05):
            break
    patch = _fluffy(scene, rng, centre, (0.07 + 0.04 * severity, 0.08 + 0.05 * severity))
    patch = patch * lung.inside * (1 - 0.7 * scene.heart)
    scene.dense += (0.5 + 0.4 * severity) * patch * (1 + 0.08 * scene.canvas.texture(rng, 0.02))
    return [patch]


def _edema(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """Haze around both hila like a bat's wings, full vessels, and Kerley's short lines at the bases."""
    canvas, regions = scene.canvas, []
    lines = Pen(canvas)
    grain = 1 + 0.12 * canvas.texture(rng, 0.022)
    reach = 0.105 + 0.03 * severity
    for lung in scene.lungs:
        x, y = lung.hilum
        out = 0.07 * lung.side if scene.view == "frontal" else 0
        wing = np.exp(-(canvas.ellipse((x + out, y + 0.03), (reach, 1.55 * reach)) ** 1.5))
        wing *= lung.inside * (1 - 0.6 * scene.heart)
        scene.dense += (0.42 + 0.35 * severity) * wing * grain
        regions.append(canvas.step(wing - np.float32(0.4), 0.02))
        for down in rng.uniform(0.7, 0.96, 5):
            x, y = lung.at(0.02, down)
            inwards = -lung.side if scene.view == "frontal" else -1
            lines.line([(x, y), (x + inwards * rng.uniform(0.03, 0.05), y + rng.uniform(-0.006, 0.006))], 0.003)
    scene.dense += (0.15 + 0.2 * severity) * lines.array(0.001)
    scene.vessels *= 1 + 0.5 * severity
    return regions


def _consolidation(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """A dense part of a lobe, cut off straight by a fissure, in which bronchi stay dark."""
    canvas, lung = scene.canvas, _lung(scene, _side(rng))
    upper = rng.random() < 0.45
    x, y = lung.at(0.45, 0.27 if upper else 0.72)
    size = 0.95 + 0.3 * severity
    patch = _fluffy(scene, rng, (x, y), (0.135 * size, 0.125 * size), ragged=0.11)
    tilt = rng.uniform(-0.15, 0.15)
    fissure = y + (0.075 if upper else -0.085) + tilt * (canvas.x - np.float32(x))
    beyond = fissure - canvas.y if upper else canvas.y - fissure
    patch = patch * canvas.step(beyond, 0.008) * lung.inside * (1 - 0.5 * scene.heart)
    bronchi = Pen(canvas)
    hx, hy = lung.hilum
    for turn in (-0.5, 0, 0.5):
        end = np.array([x + 0.05 * lung.side, y]) + 0.09 * np.array([lung.side * math.cos(turn), math.sin(turn)])
        bronchi.line(curve([(hx, hy), ((hx + x) / 2, (hy + y) / 2 + 0.02 * turn), tuple(end)]), 0.008, 0.9)
    scene.dense += patch * (1.0 + 0.35 * severity) * (1 - 0.42 * bronchi.array(0.002))
    scene.vessels *= 1 - 0.8 * patch
    return [patch]


def _atelectasis(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """Plates of collapsed lung over a raised diaphragm."""
    side = _side(rng)  # as in `change`
    lung, regions = _lung(scene, side), []
    for k in range(int(rng.integers(1, 3))):
        x, y = lung.at(rng.uniform(0.35, 0.55), 0.90 - 0.13 * k - 0.04 * rng.random())
        length, thick = 0.1 + 0.03 * severity, 0.019 + 0.009 * severity
        shape = scene.canvas.ellipse((x, y), (length, thick), rng.uniform(-0.3, 0.3))
        plate = np.clip(1.3 - shape, 0, 1) * lung.inside
        scene.dense += (0.7 + 0.4 * severity) * plate * (1 - 0.5 * scene.heart)
        regions.append((shape < 1.2) * lung.inside)
    return regions


def _pneumothorax(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """Air between lung and wall: black, without vessels, behind the lung's thin white line."""
    canvas, lung = scene.canvas, _lung(scene, _side(rng))
    width, low = 0.06 + 0.065 * severity, rng.uniform(0.55, 0.95)
    down = np.clip((canvas.y - lung.apex) / (low * (0.25 - lung.apex)), 0, 1)
    beside, above = width * (1 - down**2) - 0.004 - lung.depth(), lung.apex + 0.8 * width - canvas.y
    over = 0.5 * (beside + above + np.sqrt((beside - above) ** 2 + np.float32(0.03**2)))  # the greater one, rounded
    over = over - 0.008 + 0.006 * canvas.texture(rng, 0.15)
    gap = canvas.step(over, 0.003) * lung.inside * (1 - scene.heart)
    line = np.exp(-((over / np.float32(0.0038)) ** 2)) * lung.inside
    scene.air += 0.38 * gap * lung.inside
    scene.dense += 0.5 * line + (0.02 + 0.05 * severity) * lung.inside * (1 - gap)
    scene.vessels *= 1 - gap
    return [gap]


def _effusion(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """Fluid that fills the angle beside the diaphragm, highest at the wall."""
    canvas, regions = scene.canvas, []
    first = _side(rng)
    sides = [first, 1 - first] if rng.random() < 0.35 else [first]
    for side in sides[: len(scene.lungs)]:
        lung = _lung(scene, side)
        wall = lung.edges(0.25)[0]
        angle = float(np.interp(wall - 0.01 * np.sign(wall), canvas.x[0], lung.base))
        height = (0.11 + 0.17 * severity) * rng.uniform(0.9, 1.1)
        level = angle - height * (0.5 + 0.5 * np.exp(-np.maximum(lung.depth(), 0) / np.float32(0.08)))
        fluid = canvas.step(canvas.y - level, 0.018) * (lung.depth() > -0.01)  # over the lung's soft rim
        fluid = fluid * (lung.depth() < abs(wall - lung.edges(0.25)[1]))
        scene.solid = 1 - (1 - scene.solid) * (1 - 0.93 * fluid)
        regions.append(fluid * lung.inside * (1 - 0.6 * scene.heart))
    return regions


def _devices(scene: Scene, severity: float, rng: np.random.Generator) -> list[Region]:
    """One to three of catheter, tube, pacemaker, drain and electrodes."""
    kinds = list(rng.choice(list(_DEVICES), size=int(rng.integers(1, 4)), replace=False, p=list(_DEVICES.values())))
    regions = []
    for kind in kinds:
        pen, region = Pen(scene.canvas), Pen(scene.canvas)
        strength = (0.95 + 0.3 * severity) * (1.5 if kind == "pacemaker" else 1.1)
        if kind == "electrodes":
            for side in (-1, 1):
                x, y = side * rng.uniform(0.2, 0.3), rng.uniform(-0.3, 0.1)
                wire = curve([(x, y), (x + 0.1 * side, y + 0.1), (x + 0.12 * side, y + 0.3), (x + 0.35 * side, 0.7)])
                pen.line(wire, 0.005, 0.7)
                pen.disc((x, y), 0.016)
                own = Pen(scene.canvas)
                own.area(ribbon(wire, 0.013))
                own.disc((x, y), 0.023)
                regions.append(own.array())
        elif kind == "pacemaker":
            (x, y), lead = scene.paths["box"][0], scene.paths["lead"]
            angle = np.arange(24) * math.tau / 24
            box = np.stack([x + 0.048 * np.cos(angle), y + 0.040 * np.sin(angle)], axis=1)
            pen.line(lead, 0.005, 0.7)
            pen.area(box, 1)
            pen.line(lead[-6:], 0.010, 0.9)
            region.area(ribbon(lead, 0.013))
            region.area((box - (x, y)) * 1.12 + (x, y))
        elif kind == "tube":
            outline = ribbon(scene.paths["trachea"], 0.0085)
            half = len(outline) // 2
            pen.area(outline, 0.35)
            pen.line(outline[:half], 0.004, 0.8)
            pen.line(outline[half:], 0.004, 0.8)
            region.area(ribbon(scene.paths["trachea"], 0.015))
        else:
            path, width = {
                "catheter": (scene.paths[str(rng.choice(["jugular", "subclavian"]))], 0.0075),
                "feeding tube": (scene.paths["gullet"], 0.0085),
                "drain": (scene.paths["drain"], 0.013),
            }[str(kind)]
            pen.line(path, width, 0.75)
            region.area(ribbon(path, 0.013))
        scene.dense += strength * pen.array(0.0006)
        if kind != "electrodes":
            regions.append(region.array())
    return regions


_SIGNS: dict[str, Callable[[Scene, float, np.random.Generator], list[Region]]] = {
    "Enlarged Cardiomediastinum": _mediastinum,
    "Cardiomegaly": _heart,
    "Lung Lesion": _lesion,
    "Airspace Opacity": _opacity,
    "Edema": _edema,
    "Consolidation": _consolidation,
    "Atelectasis": _atelectasis,
    "Pneumothorax": _pneumothorax,
    "Pleural Effusion": _effusion,
    "Support Devices": _devices,
}  # The keys are the study's ten tasks.

_DEVICES = {"catheter": 0.26, "tube": 0.14, "pacemaker": 0.2, "feeding tube": 0.14, "drain": 0.1, "electrodes": 0.16}


def _side(rng: np.random.Generator) -> int:
    return int(rng.integers(2))


def _lung(scene: Scene, side: int) -> Lung:
    return scene.lungs[side % len(scene.lungs)]


def _clear(scene: Scene, x: float, y: float, radius: float) -> bool:
    """Whether a disc lies in lung that nothing hides."""
    canvas = scene.canvas
    angle = np.arange(8) * math.tau / 8
    rim = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
    columns, rows = canvas.pixels(rim).astype(int).T
    rows, columns = rows.clip(0, canvas.shape[0] - 1), columns.clip(0, canvas.shape[1] - 1)
    inside = sum(lung.inside[rows, columns] for lung in scene.lungs)
    return bool((inside * (1 - scene.heart[rows, columns])).min() > 0.9)


def _fluffy(
    scene: Scene, rng: np.random.Generator, centre: Sequence[float], radii: Sequence[float], ragged: float = 0.15
) -> np.ndarray:
    """A patch in [0, 1] with an uneven, soft edge."""
    rim = 1 - np.sqrt(scene.canvas.ellipse(centre, radii, rng.uniform(-0.5, 0.5)))
    return np.clip((rim + ragged * scene.canvas.texture(rng, 0.055)) / 0.6 + 0.35, 0, 1)
