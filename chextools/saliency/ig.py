"""Integrated gradients (Sundararajan et al. 2017): (x - x') times the mean gradient on the way from a baseline x' to x.

The integral is a Gauss-Legendre sum, whose points lie inside the way. It should sum to the change in logit; on
networks of ReLUs, whose gradients jump, it does so slowly: the completeness delta says how far it is from that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chextools.models.chunks import in_chunks
from chextools.models.inference import there
from chextools.saliency import baselines
from chextools.saliency.network import Network, input_gradients, plainly


@plainly()
def maps(
    model: Network,
    images: Tensor,
    tasks: Sequence[int],
    *,
    steps: int = 50,
    baseline: baselines.Baseline = 0.0,
    batch: int = 8,
) -> Tensor:
    """Maps [N, K, H, W] at the input's resolution, signed, summed over channels.

    steps: points of the sum. batch: points at once; fewer where memory is short. Each takes one pass forward, and one
    back per task.
    """
    places, shares = np.polynomial.legendre.leggauss(steps)
    points = there(torch.tensor((1 + places) / 2, dtype=images.dtype), images.device)[:, None, None, None]
    weights = there(torch.tensor(shares / 2, dtype=torch.float64), images.device)
    starts = baselines.of(baseline, images).expand_as(images)
    maps = images.new_empty(len(images), len(tasks), *images.shape[2:])
    for n, (image, start) in enumerate(zip(images, starts)):
        difference = image - start

        def part(some: slice, start: Tensor = start, difference: Tensor = difference) -> Tensor:
            leaf, logits = model.graph(start + points[some] * difference)
            gradients = input_gradients(leaf, logits, tasks)
            return torch.stack([_weighted(weights[some], gradient, difference) for gradient in gradients])

        maps[n] = torch.stack(list(in_chunks(steps, batch, part))).sum(0).to(images.dtype)
    return maps


def _weighted(weights: Tensor, gradients: Tensor, difference: Tensor) -> Tensor:
    """float64 [H, W]: the weighted sum of gradients [S,3,H,W], times the difference [3,H,W], summed over channels."""
    return torch.einsum("s,shw->hw", weights, (gradients * difference).sum(1).double())
