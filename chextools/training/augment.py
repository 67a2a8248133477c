"""Changes to X-rays that a radiologist would take for another exposure of the same patient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Augmentation:
    """The greatest change, drawn evenly up to it for each image.

    rotate: degrees. shift: share of the side. scale: 0.05 is 95% to 105%. brightness: of the full range, added.
    contrast: 0.1 is 90% to 110% about the image's mean. flip: mirror every other image, which turns a heart's side.
    """

    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    flip: bool = False

    @property
    def moves(self) -> bool:
        return bool(self.rotate or self.shift or self.scale or self.flip)

    @property
    def shades(self) -> bool:
        return bool(self.brightness or self.contrast)


def apply(
    pixels: torch.Tensor, how: Augmentation, seed: int, mine: slice | None = None, batch: int | None = None
) -> torch.Tensor:
    """Images [N, H, W] of values 0 to 255, changed: float32, or as they are where nothing is to be changed.

    What is drawn depends on the seed alone, not on the device. What comes into view is black. Of images that are rows
    `mine` of a `batch`, each is changed as it would be in the whole.
    """
    import torch
    from torch.nn import functional

    from chextools.models.inference import there

    if not (how.moves or how.shades):
        return pixels
    n = len(pixels)
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.rand(7, batch or n, generator=generator, dtype=torch.float32) * 2 - 1)[:, mine or slice(n)]
    drawn = there(drawn, pixels.device)
    pixels = pixels.to(torch.float32)
    if how.moves:
        angle = drawn[0] * math.radians(how.rotate)
        zoom = 1 / (1 + drawn[1] * how.scale)
        mirror = 1 - 2 * (drawn[6] > 0).to(torch.float32) if how.flip else torch.ones_like(zoom)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        x, y = drawn[2] * 2 * how.shift, drawn[3] * 2 * how.shift
        theta = torch.stack([torch.stack([cos * mirror, -sin, x], 1), torch.stack([sin * mirror, cos, y], 1)], 1)
        grid = functional.affine_grid(theta, [n, 1, *pixels.shape[1:]], align_corners=False)
        pixels = functional.grid_sample(pixels[:, None], grid, align_corners=False)[:, 0]
    if how.shades:
        mean = pixels.mean(dim=(1, 2), keepdim=True)
        contrast, brightness = drawn[4][:, None, None] * how.contrast, drawn[5][:, None, None] * how.brightness
        pixels = ((pixels - mean) * (1 + contrast) + mean + 255 * brightness).clamp(0, 255)
    return pixels
