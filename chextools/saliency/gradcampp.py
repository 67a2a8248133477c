"""Grad-CAM++ (Chattopadhay et al. 2018): ReLU(sum_k w_k A_k), w_k = sum over positions of alpha ReLU(g),
alpha = g^2 / (2 g^2 + sum(A_k) g^3), g = dS/dA_k.

Nothing is added to the denominator: g^2 is of the order of 1e-8, which a customary 1e-6 would dwarf. Where g <= 0 its
ReLU makes the term 0 anyway, and elsewhere alpha = 1 / (2 + sum(A_k) g), which cannot underflow. As in every
implementation, S is the logit although the derivation has its exponential: that scales a map, and no more.
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
            slopes = picked(model.weights, tasks, 0).relu()
            weights = slopes * _inverse(2 + slopes * features.mean((2, 3))[:, None])  # [N, K, C]
            return torch.einsum("nkc,nchw->nkhw", weights, features).relu()
    features, gradients = model.gradients(images, tasks)
    return over_tasks(_map(features, gradient) for gradient in gradients)


def _map(features: Tensor, gradient: Tensor) -> Tensor:
    gradient = gradient.relu()
    alpha = _inverse(2 + features.sum((2, 3), keepdim=True) * gradient)
    return torch.einsum("nc,nchw->nhw", (alpha * gradient).sum((2, 3)), features).relu()


def _inverse(values: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0: possible where activations are negative."""
    return torch.where(values == 0, 0, 1 / values)
