"""What stands for an image in which there is nothing to see: of integrated gradients, DeepLIFT and occlusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# A number, or one per channel, after normalisation; or what is made from the image: "mean" or "blur".
Baseline = float | Sequence[float] | str

BLUR = 1 / 20  # standard deviation over the image's side


def of(baseline: Baseline, images: Tensor) -> Tensor:
    """The baseline of images [N, C, H, W]: [N, C, H, W], or [1, C, H, W] where it is the same for all.

    0 is the mean colour of the network's normalisation, not black. "mean" is the image's own mean; "blur" the image
    after a Gaussian filter of a twentieth of its side, mirrored at its borders.
    """
    if isinstance(baseline, str):
        found = {"mean": _mean, "blur": _blur}[baseline](images)
    else:
        levels = [baseline] if isinstance(baseline, (int, float)) else baseline
        found = torch.cat([images.new_full((1, 1, 1, 1), level) for level in levels], 1)  # made where the images are
    return found.expand(-1, *images.shape[1:])


def _mean(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True)


def _blur(images: Tensor) -> Tensor:
    for axis in (2, 3):
        side = images.shape[axis]
        reach = min(math.ceil(3 * BLUR * side), side - 1)
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = torch.exp(-((offsets / (BLUR * side)) ** 2) / 2)
        kernel = (kernel / kernel.sum()).to(images).reshape(1, 1, -1)
        lines = images.transpose(axis, 3)
        shape = lines.shape
        lines = functional.pad(lines.reshape(-1, 1, side), (reach, reach), mode="reflect")
        images = functional.conv1d(lines, kernel).reshape(shape).transpose(axis, 3)
    return images
