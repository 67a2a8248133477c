"""Where a body is drawn: a grid in body units, with pens for smooth lines, areas, rows and textures.

Body units: x to the right of the picture, y down, (0, 0) its centre; its shorter side is 1 long. A frontal picture
shows the patient from the front, so that the patient's left is at x > 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_MARGIN = 0.09  # of the longer side, drawn around the picture so that a turned one is full
_FINE = 2  # pen strokes are drawn this much finer, then averaged

Points = Sequence[Sequence[float]] | np.ndarray


class Canvas:
    """A grid for pictures of one size.

    shape: (rows, columns) drawn, a margin wider than the picture.
    x [1, columns], y [rows, 1]: float32, where the pixels' centres are, in body units.
    unit: pixels per body unit.
    """

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self.unit = min(size)
        self.margin = math.ceil(_MARGIN * max(size))
        self.shape = rows, columns = size[0] + 2 * self.margin, size[1] + 2 * self.margin
        self.x = (((np.arange(columns) + 0.5) - columns / 2) / self.unit).astype(np.float32)[None, :]
        self.y = (((np.arange(rows) + 0.5) - rows / 2) / self.unit).astype(np.float32)[:, None]

    def pixels(self, points: Points) -> np.ndarray:
        """Positions [n, 2] (x, y) on the grid, in pixels from its corner."""
        return np.asarray(points, float) * self.unit + np.array(self.shape[::-1]) / 2

    def step(self, distance: np.ndarray, softness: float = 0.004) -> np.ndarray:
        """1 where a signed distance is positive, 0 where it is negative, with an edge this wide (at least a pixel)."""
        return np.clip(distance * np.float32(1 / max(softness, 1 / self.unit)) + np.float32(0.5), 0, 1)

    def ellipse(self, centre: Sequence[float], radii: Sequence[float], angle: float = 0) -> np.ndarray:
        """The squared distance from the centre, 1 on the ellipse."""
        x, y = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        if angle:
            c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            x, y = c * x + s * y, c * y - s * x
        return (x / np.float32(radii[0])) ** 2 + (y / np.float32(radii[1])) ** 2

    def texture(self, rng: np.random.Generator, grain: float) -> np.ndarray:
        """Smooth noise of mean 0 and deviation about 1, whose lumps are `grain` units apart."""
        rows, columns = (max(2, math.ceil(n / self.unit / grain)) + 2 for n in self.shape)
        coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
        return 1.4 * np.asarray(coarse.resize(self.shape[::-1], Image.Resampling.BICUBIC))

    def widely_blurred(self, values: np.ndarray, width: float) -> np.ndarray:
        """A blur of about this width, of at least several pixels."""
        factor = max(1, round(width * self.unit / 2))
        small = Image.fromarray(values).reduce(factor)
        half = small.resize([max(1, n // 2) for n in small.size], Image.Resampling.BOX)
        return np.asarray(half.resize(self.shape[::-1], Image.Resampling.BICUBIC))


@lru_cache(maxsize=4)
def canvas_of(size: tuple[int, int]) -> Canvas:
    return Canvas(size)


class Pen:
    """Draws lines and areas in body units with smooth edges; what it has drawn is an array in [0, 1]."""

    def __init__(self, canvas: Canvas):
        self.canvas = canvas
        self._image = Image.new("L", [_FINE * n for n in canvas.shape[::-1]])
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Points, width: float, value: float = 1) -> None:
        pixels = max(1, round(width * self.canvas.unit * _FINE))
        joint = "curve" if pixels > 3 else None
        self._draw.line(self._fine(points), fill=round(255 * value), width=pixels, joint=joint)

    def area(self, points: Points, value: float = 1) -> None:
        self._draw.polygon(self._fine(points), fill=round(255 * value))

    def disc(self, centre: Sequence[float], radius: float, value: float = 1) -> None:
        (x, y), r = self.canvas.pixels([centre])[0] * _FINE, radius * self.canvas.unit * _FINE
        self._draw.ellipse([x - r, y - r, x + r, y + r], fill=round(255 * value))

    def array(self, blur: float = 0) -> np.ndarray:
        """float32 on the grid, blurred by `blur` units."""
        image = self._image.reduce(_FINE)
        if blur * self.canvas.unit > 0.3:
            image = image.filter(ImageFilter.BoxBlur(1.2 * blur * self.canvas.unit))
        return np.asarray(image, np.float32) * np.float32(1 / 255)

    def _fine(self, points: Points) -> list[float]:
        if isinstance(points, np.ndarray):
            return (self.canvas.pixels(points) * _FINE).ravel().tolist()
        rows, columns = self.canvas.shape  # a few points, of which there are many
        scale = self.canvas.unit * _FINE
        return [v for x, y in points for v in (x * scale + columns * _FINE / 2, y * scale + rows * _FINE / 2)]


def curve(points: Points, steps: int = 8) -> np.ndarray:
    """A smooth line [n, 2] through points (Catmull and Rom 1974)."""
    p = np.asarray(points, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.arange(steps)[:, None, None] / steps
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    inner = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)
    return np.concatenate([inner.swapaxes(0, 1).reshape(-1, 2), p[-2:-1]])


def profile(knots: Points, at: np.ndarray) -> np.ndarray:
    """A smooth function through knots (where, value), where ascending, constant beyond them; float32 like `at`."""
    smooth = curve(knots)
    return np.interp(at, smooth[:, 0], smooth[:, 1]).astype(np.float32)


def ribbon(points: np.ndarray, half_width: float | np.ndarray) -> np.ndarray:
    """The outline [2n, 2] of a band along a line [n, 2]."""
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across *= np.reshape(half_width, (-1, 1)) / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return np.concatenate([points + across, (points - across)[::-1]])
