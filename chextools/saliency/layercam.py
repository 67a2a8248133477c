"""LayerCAM (Jiang et al. 2021): ReLU(sum_k ReLU(dS/dA_k) A_k), a weight per position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chextools.saliency.network import Network, over_tasks, picked, plainly


@plainly()
def maps(model: Network, images: Tensor, tasks: Sequence[int]) -> Tensor:
    """Maps [N, K, h, w] at the layer's resolution; never negative."""
    if model.weights is not None:
        with torch.no_grad():
            features = model.spatial(model.features(images)[0])
            weights = picked(model.weights, tasks, 0).relu() / (features.shape[2] * features.shape[3])
            return torch.einsum("kc,nchw->nkhw", weights, features).relu()
    features, gradients = model.gradients(images, tasks)
    return over_tasks((gradient.relu() * features).sum(1).relu() for gradient in gradients)
