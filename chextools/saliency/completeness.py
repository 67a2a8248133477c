"""How far a map is from summing to what it explains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chextools.saliency import baselines
from chextools.saliency.network import Network, Once, picked, plainly

TOLERANCE = 1e-3  # of the change in logit: methods that are exact must meet it
ROUNDING = 1e-6  # of the absolute values that were summed: what float32 may lose where a change is next to nothing


@plainly()
def deltas(
    model: Network | Once,
    images: Tensor,
    tasks: Sequence[int],
    maps: Tensor,
    baseline: baselines.Baseline | None = None,
) -> tuple[Tensor, Tensor]:
    """(delta, change), float64 [N, K]: the sum of each map less the change in logit, and that change.

    The change is from the baseline's logit to the image's; without a baseline it is the image's logit.
    """
    with torch.no_grad():
        change = picked(model.whole(images), tasks, 1).double()
        if baseline is not None:
            change = change - picked(model.whole(baselines.of(baseline, images)), tasks, 1).double()
        return maps.sum((2, 3), dtype=torch.float64) - change, change
