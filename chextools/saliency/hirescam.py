"""HiResCAM (Draelos and Carin 2020): sum_k dS/dA_k A_k, without averaging gradients and without ReLU.

Where a global average pool and one linear layer follow the layer, the map sums to the logit less its bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chextools.saliency.network import Network, over_tasks, picked, plainly


@plainly()
def maps(model: Network, images: Tensor, tasks: Sequence[int]) -> Tensor:
    """Maps [N, K, h, w] at the layer's resolution, signed."""
    if model.weights is not None:
        with torch.no_grad():
            features = model.spatial(model.features(images)[0])
            weights = picked(model.weights, tasks, 0) / (features.shape[2] * features.shape[3])
            return torch.einsum("kc,nchw->nkhw", weights, features)
    features, gradients = model.gradients(images, tasks)
    return over_tasks((gradient * features).sum(1) for gradient in gradients)
