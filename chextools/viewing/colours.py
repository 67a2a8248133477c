"""Colours of pictures: the heatmap's map, what lines are drawn in, and paper, dark or light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Theme:
    """Paper and what is written on it: headings in ink, the rest in faint."""

    paper: tuple[int, int, int]
    ink: tuple[int, int, int]
    faint: tuple[int, int, int]


THEMES = {
    "dark": Theme((18, 20, 24), (236, 238, 240), (164, 172, 182)),
    "light": Theme((255, 255, 255), (16, 18, 22), (82, 90, 100)),
}
TRUTH, PREDICTED, RIM = (255, 255, 255), (64, 224, 255), (0, 0, 0)
GREY = 96  # behind the legend's bar: an X-ray's middle

# A cubic Bezier curve in Oklab (Ottosson 2020): lightness rises all the way from a dark violet over red to a light
# yellow, so that the order of colours survives any colour blindness and a grey print; no part of it is grey.
_CURVE = ((0.22, 0.11, 285), (0.40, 0.28, 330), (0.66, 0.21, 35), (0.94, 0.17, 105))  # lightness, chroma, hue
_LAB_TO_LMS = ((1, 0.3963377774, 0.2158037573), (1, -0.1055613458, -0.0638541728), (1, -0.0894841775, -1.2914855480))
_LMS_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


@cache
def colour_map() -> np.ndarray:
    """uint8 [256, 3], sRGB from least to greatest, at equal steps of Oklab: perceptually uniform."""
    lightness, chroma, hue = np.array(_CURVE).T
    points = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    t = np.linspace(0, 1, 4001)[:, None]
    shares = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    even = evenly(shares @ points, 256)
    linear = np.clip((even @ np.array(_LAB_TO_LMS).T) ** 3 @ np.array(_LMS_TO_RGB).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


@cache
def _opacity() -> np.ndarray:
    """float32 [256]: little is seen of low values, so that the X-ray stays readable."""
    return (0.68 * np.linspace(0, 1, 256) ** 0.75).astype(np.float32)


def heated(pixels: np.ndarray, heat: np.ndarray | None) -> np.ndarray:
    """An X-ray, uint8 [h, w], under a heatmap of values in [0, 1], float [h, w]: uint8 [h, w, 3]."""
    if heat is None:
        return np.repeat(pixels[..., None], 3, axis=2)
    level = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    opacity = _opacity()
    colour = colour_map() * opacity[:, None] + np.float32(0.5)
    below = pixels * (1 - opacity)[level]
    return (colour[level] + below[..., None]).astype(np.uint8)


def evenly(line: np.ndarray, count: int) -> np.ndarray:
    """`count` points at equal distances along a line [n, d]."""
    line = line[np.append(True, (line[1:] != line[:-1]).any(axis=1))]
    along = np.append(0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1)))
    return np.stack([np.interp(np.linspace(0, along[-1], count), along, axis) for axis in line.T], axis=1)
