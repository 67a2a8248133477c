"""Grad-CAM (Selvaraju et al. 2017): ReLU(sum_k w_k A_k), w_k = mean over positions of dS/dA_k.

A are the layer's feature maps, S the task's logit. Where a global average pool and one linear layer follow A, the
gradient is the layer's weight W over h w at every position, and no backward pass is needed.
"""

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
            weights = picked(model.weights, tasks, 0) / (features.shape[2] * features.shape[3])
            return torch.einsum("kc,nchw->nkhw", weights, features).relu()
    features, means = model.mean_gradients(images, tasks)
    return torch.einsum("nkc,nchw->nkhw", over_tasks(means), features).relu()
