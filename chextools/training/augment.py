"""Changes to X-rays that a radiologist would take for another exposure of the same patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Augmentation:
    """The greatest change, drawn evenly up to it for each image.

    rotate: degrees. shift: share of the side. scale: 0.05 is 95% to 105%. brightness: of the full range, added.
    contrast: 0.1 is 90% to 110% about the image's mean. flip: mirror every other image, which turns a heart's side.
    crop: the least share of the side that is kept of an image, anywhere in it, and brought back to its size.
    exposure: how far scanners may differ, see `scanned`. border: of every other image each edge is painted over, up to
    this share of the side, all in one grey.
    """

    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    flip: bool = False
    crop: float = 1.0
    exposure: float = 0.0
    border: float = 0.0

    @property
    def moves(self) -> bool:
        return bool(self.rotate or self.shift or self.scale or self.flip or self.crop < 1)

    @property
    def shades(self) -> bool:
        return bool(self.brightness or self.contrast)


def apply(
    pixels: torch.Tensor, how: Augmentation, seed: int, mine: slice | None = None, batch: int | None = None
) -> torch.Tensor:
    """Images [N, H, W] of values 0 to 255, moved and shaded: float32, or as they are where nothing is to be changed.

    What is drawn depends on the seed alone, not on the device. What comes into view is black. Of images that are rows
    `mine` of a `batch`, each is changed as it would be in the whole. What `scanned` does comes before.
    """
    import torch

    from chextools.models.inference import there

    if not (how.moves or how.shades):
        return pixels
    n = len(pixels)
    drawn, cut = (there(each, pixels.device) for each in _drawn(seed, mine or slice(n), batch or n))
    pixels = pixels.to(torch.float32)
    if how.moves:
        pixels = _sampled(pixels, _moves(drawn, cut, how))
    if how.shades:
        mean = pixels.mean(dim=(1, 2), keepdim=True)
        contrast, brightness = drawn[4][:, None, None] * how.contrast, drawn[5][:, None, None] * how.brightness
        pixels = ((pixels - mean) * (1 + contrast) + mean + 255 * brightness).clamp(0, 255)
    return pixels


def moved(masks: torch.Tensor, places: Sequence[int], how: Augmentation, seed: int, batch: int) -> torch.Tensor:
    """Masks [M, H, W], float32, moved as `apply` moves the images of these places in the batch; 0 comes into view."""
    from chextools.models.inference import there

    if not how.moves or not len(masks):
        return masks
    drawn, cut = _drawn(seed, slice(batch), batch)
    theta = _moves(drawn, cut, how)[list(places)]
    return _sampled(masks, there(theta, masks.device))


def _drawn(seed: int, mine: slice, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(of -1 to 1 [7, n], of 0 to 1 [3, n]) of the rows `mine`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(7, batch, generator=generator, dtype=torch.float32) * 2 - 1
    cut = torch.rand(3, batch, generator=generator, dtype=torch.float32)
    return drawn[:, mine], cut[:, mine]


def _moves(drawn: torch.Tensor, cut: torch.Tensor, how: Augmentation) -> torch.Tensor:
    """[N, 2, 3]: where in an image each pixel of the changed one is taken from, as affine_grid has it."""
    import torch

    angle = drawn[0] * math.radians(how.rotate)
    zoom = 1 / (1 + drawn[1] * how.scale)
    mirror = 1 - 2 * (drawn[6] > 0).to(torch.float32) if how.flip else torch.ones_like(zoom)
    x, y = drawn[2] * 2 * how.shift, drawn[3] * 2 * how.shift
    if how.crop < 1:
        share = how.crop + (1 - how.crop) * cut[0]
        zoom = zoom * share
        x, y = x + (1 - share) * (2 * cut[1] - 1), y + (1 - share) * (2 * cut[2] - 1)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    return torch.stack([torch.stack([cos * mirror, -sin, x], 1), torch.stack([sin * mirror, cos, y], 1)], 1)


def _sampled(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    grid = functional.affine_grid(theta, [len(images), 1, *images.shape[1:]], align_corners=False)
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def scanned(
    pixels: np.ndarray, how: Augmentation, seed: int, mine: slice | None = None, batch: int | None = None
) -> np.ndarray:
    """uint8 [N, H, W] as another scanner might have shown them: exposure by a table of grey levels, and borders.

    With e = exposure and a, b, c drawn evenly of -1 to 1, a level v in [0, 1] becomes v ** exp(a e), then changes about
    the image's mean by the factor exp(b e), and c e / 4 is added. What is drawn depends on the seed alone, as in
    `apply`.
    """
    if not (how.exposure or how.border):
        return pixels
    n = len(pixels)
    places = range(batch or n)[mine or slice(n)]
    random = np.random.default_rng([seed, 1])
    drawn = random.random((3, batch or n)) * 2 - 1
    out = np.empty_like(pixels)
    borders = edges(how, seed, pixels.shape[1], batch or n)
    levels = np.random.default_rng([seed, 3]).integers(0, 256, batch or n)
    for k, place in enumerate(places):
        if how.exposure:
            np.take(_table(pixels[k], *(drawn[:, place] * how.exposure)), pixels[k], out=out[k], mode="clip")
        else:
            out[k] = pixels[k]
        paint(out[k], borders[place], levels[place])
    return out


def _table(pixels: np.ndarray, gamma: float, contrast: float, brightness: float) -> np.ndarray:
    """uint8 [256]: what each grey level becomes."""
    curve = (np.arange(256) / 255) ** math.exp(gamma)
    mean = np.bincount(pixels.ravel(), minlength=256) @ curve / pixels.size
    shown = (curve - mean) * math.exp(contrast) + mean + brightness / 4
    return np.rint(shown.clip(0, 1) * 255).astype(np.uint8)


def edges(how: Augmentation, seed: int, side: int, batch: int) -> np.ndarray:
    """int64 [batch, 4]: pixels that are painted over at the top, bottom, left and right of each image."""
    drawn = np.random.default_rng([seed, 2]).random((5, batch))
    widths = np.rint(drawn[:4] * how.border * side).astype(int)
    return np.where(drawn[4] < 0.5, widths, 0).T


def paint(image: np.ndarray, edge: np.ndarray, level: int) -> None:
    """Paint over the edges of an image [H, W], in place."""
    top, bottom, left, right = edge
    height, width = image.shape
    image[:top], image[height - bottom :] = level, level
    image[:, :left], image[:, width - right :] = level, level
