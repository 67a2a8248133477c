"""SmoothGrad (Smilkov et al. 2017): the mean gradient of a logit over noisy copies of the image.

Noise is Gaussian, of a standard deviation of 15% of the image's range as in the paper's figures, and grey as the image
is: the same in each channel.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from chextools.models.chunks import in_chunks
from chextools.models.inference import there
from chextools.saliency.floors import fingerprint
from chextools.saliency.network import Network, input_gradients, plainly

NOISE = 0.15  # of the range from the least to the greatest value


@plainly()
def maps(
    model: Network, images: Tensor, tasks: Sequence[int], *, samples: int = 50, seed: int = 0, batch: int = 8
) -> Tensor:
    """Maps [N, K, H, W] at the input's resolution, signed, summed over channels.

    samples: noisy copies; seed, image and number decide their noise. batch: of them at once; fewer where memory is
    short. Each takes one pass forward, and one back per task.
    """
    maps = images.new_empty(len(images), len(tasks), *images.shape[2:])
    for n, image in enumerate(images):
        content = fingerprint(image)
        spread = NOISE * (image.amax((1, 2), keepdim=True) - image.amin((1, 2), keepdim=True))

        def part(some: slice, image: Tensor = image, content: int = content, spread: Tensor = spread) -> Tensor:
            drawn = [_noise(f"{seed} {content} {number}", image) for number in range(some.start, some.stop)]
            leaf, logits = model.graph(image + spread * torch.stack(drawn))
            gradients = input_gradients(leaf, logits, tasks)
            return torch.stack([gradient.sum((0, 1), dtype=torch.float64) for gradient in gradients])

        maps[n] = (torch.stack(list(in_chunks(samples, batch, part))).sum(0) / samples).to(images.dtype)
    return maps


def _noise(key: str, image: Tensor) -> Tensor:
    """[1, H, W] of independent standard normal numbers, the same on any device."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return there(torch.randn(1, *image.shape[1:], generator=generator), image.device).to(image.dtype)
