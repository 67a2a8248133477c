"""Maps that know nothing of the image, or nothing of the task: what every method has to beat."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from chextools.models.inference import there
from chextools.saliency.network import Network

_STRIDE = 32  # pixels of the input per pixel of a random map, as in most networks' last layer
_WIDTH = 0.25  # of the blob: its standard deviation over the image's side


def random_maps(_: Network, images: Tensor, tasks: Sequence[int], *, seed: int = 0) -> Tensor:
    """Maps [N, K, h, w] of independent uniform numbers in [0, 1); seed, image and task decide which."""
    shape = _shape(images)
    maps = images.new_empty(len(images), len(tasks), *shape)
    for n, image in enumerate(images.detach().cpu()):
        content = fingerprint(image)
        for k, task in enumerate(tasks):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {content} {task}".encode()))  # of 32 bits
            maps[n, k] = torch.rand(shape, generator=generator)
    return maps


def fingerprint(image: Tensor) -> int:
    """A number of an image's content [3, H, W], the same on any device: of its grey levels, not their last bits."""
    image = image.detach().cpu()
    lowest, highest = image.min(), image.max()
    grey = ((image - lowest) * (255 / (highest - lowest).clamp(min=1e-6))).round().nan_to_num().to(torch.uint8)
    return zlib.crc32(grey.contiguous().numpy().tobytes())


def centred(_: Network, images: Tensor, tasks: Sequence[int]) -> Tensor:
    """Maps [N, K, h, w], all of them one Gaussian blob around the centre, of standard deviation a quarter side."""
    y, x = (_axis(2 * side + 1) for side in _shape(images))  # odd: one greatest pixel
    blob = there(torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2).to(images.dtype), images.device)
    return blob.expand(len(images), len(tasks), *blob.shape).clone()


def mean_of_others(maps: Tensor, total: Tensor, count: Tensor) -> Tensor:
    """The mean over the other images' normalised maps, NaN where there are none.

    maps: [N, K, h, w], `normalised`. total: [K, h, w], the sum over all images, these included. count: [K], how many.
    """
    used = torch.isfinite(maps).flatten(2).all(2)
    others = count - used.to(count)  # [N, K]
    sums = total - torch.where(used[..., None, None], maps, 0).to(total)
    return torch.where(others[..., None, None] > 0, sums / others[..., None, None], torch.nan)


def normalised(maps: Tensor) -> Tensor:
    """Each map over its greatest absolute value, so that all count alike in a mean; what is all 0 stays so."""
    greatest = maps.abs().amax((-2, -1), keepdim=True)
    return torch.where(greatest == 0, maps, maps / greatest)


def _shape(images: Tensor) -> tuple[int, int]:
    height, width = (max(2, math.ceil(side / _STRIDE)) for side in images.shape[2:])
    return height, width


def _axis(side: int) -> Tensor:
    """Distances of pixel centres from the middle, in standard deviations."""
    return ((torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5) / _WIDTH
