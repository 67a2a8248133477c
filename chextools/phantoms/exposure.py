"""From attenuation to a picture: pose, scatter, quantum noise, the detector's response, markers and collimation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chextools.phantoms.canvas import Canvas, Pen

_LEVELS = 4096  # of density that the response tells apart


@dataclass(frozen=True)
class Exposure:
    """How a picture is taken. turn: radians; shift: body units; zoom: above 1 for nearer."""

    turn: float
    shift: tuple[float, float]
    zoom: float
    scatter: float
    noise: float
    low: float
    high: float
    gamma: float
    border: tuple[float, float, float, float]
    portable: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, portable: bool) -> Exposure:
        u = rng.uniform
        framed = rng.random() < 0.35
        return cls(
            turn=math.radians(rng.normal(0, 2.0 if portable else 1.0)),
            shift=(u(-0.025, 0.025), u(-0.02, 0.02)),
            zoom=u(1.0, 1.14),
            scatter=u(0.03, 0.05) + 0.03 * portable,
            noise=u(0.010, 0.018) * (1.4 if portable else 1),
            low=u(0.3, 0.7),
            high=u(0.98, 1.12),
            gamma=u(0.85, 1.2),
            border=tuple(u(0.0, 0.03, 4) * framed - 0.5 * (not framed)),
            portable=portable,
        )

    def inverse(self, canvas: Canvas) -> tuple[float, ...]:
        """The affine map from the picture's pixels to the canvas's, for Pillow."""
        height, width = canvas.size
        c, s = math.cos(self.turn) / self.zoom, math.sin(self.turn) / self.zoom
        x, y = width / 2 + self.shift[0] * canvas.unit, height / 2 + self.shift[1] * canvas.unit
        columns, rows = canvas.shape[1] / 2, canvas.shape[0] / 2
        return (c, s, columns - c * x - s * y, -s, c, rows + s * x - c * y)

    def placed(self, canvas: Canvas, values: np.ndarray) -> np.ndarray:
        """Values on the canvas as the picture shows them, float32 [h, w]."""
        image = Image.fromarray(np.ascontiguousarray(values, np.float32))
        way, how = Image.Transform.AFFINE, Image.Resampling.BILINEAR
        return np.asarray(image.transform(canvas.size[::-1], way, self.inverse(canvas), how))


def develop(canvas: Canvas, attenuation: np.ndarray, exposure: Exposure, rng: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [h, w]: bright where little gets through."""
    rays = np.exp(-attenuation)
    rays = rays + np.float32(exposure.scatter) * (0.3 + canvas.widely_blurred(rays, 0.12))
    rays = exposure.placed(canvas, rays)
    noise = rng.standard_normal(rays.shape, dtype=np.float32)
    rays = rays + np.float32(exposure.noise * 0.35) * np.sqrt(np.maximum(rays, 1e-3)) * noise
    film = -np.log(np.maximum(rays, 1e-3))
    high = float(np.percentile(film[::4, ::4], 96)) * exposure.high  # the exposure follows the patient's thickness
    levels = np.clip((film - exposure.low) * np.float32((_LEVELS - 1) / 1.3 / (high - exposure.low)), 0, _LEVELS - 1)
    shade = _response(exposure.gamma)[levels.astype(np.uint16)]
    return (255 * shade * _frame(canvas, exposure)).astype(np.uint8)


def _response(gamma: float) -> np.ndarray:
    """Brightness of densities from 0 to 1.3, with a shoulder: float32 [levels]."""
    shade = np.linspace(0, 1.3, _LEVELS) ** gamma
    return np.where(shade > 0.7, 0.7 + 0.3 * np.tanh((shade - 0.7) / 0.3), shade).astype(np.float32)


def mark(canvas: Canvas, attenuation: np.ndarray, place: tuple[float, float]) -> None:
    """A lead letter L beside the shoulder."""
    x, y = place
    pen = Pen(canvas)
    pen.line([(x, y), (x, y + 0.045), (x + 0.025, y + 0.045)], 0.007)
    attenuation += 3 * pen.array()


def _frame(canvas: Canvas, exposure: Exposure) -> np.ndarray:
    """1 inside the collimator's blades, 0 outside."""
    height, width = canvas.size
    left, right, top, bottom = (side * canvas.unit for side in exposure.border)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    across = np.clip(np.minimum(x - left, width - 1 - right - x) / 2 + 0.5, 0, 1)
    down = np.clip(np.minimum(y - top, height - 1 - bottom - y) / 2 + 0.5, 0, 1)
    return down[:, None] * across[None, :]
