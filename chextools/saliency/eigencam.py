"""Eigen-CAM (Muhammad and Yeasin 2020): the first principal component of the feature maps over positions.

Channels are centred first, so that it is a principal component and not the mean; it therefore has both signs. A
component's own sign means nothing: the one is taken that correlates with the mean over channels. No task is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chextools.saliency.network import Network, plainly


@plainly()
def maps(model: Network, images: Tensor, tasks: Sequence[int]) -> Tensor:
    """Maps [N, K, h, w] at the layer's resolution, signed; the same for every task."""
    with torch.no_grad():
        features = model.spatial(model.features(images)[0])
        count, _, height, width = features.shape
        points = features.flatten(2).transpose(1, 2).double()  # [N, positions, channels]
        points = points - points.mean(1, keepdim=True)
        maps = _projections(points)
        mean = points.mean(2)
        maps = torch.where((maps * mean).sum(1, keepdim=True) < 0, -maps, maps)
        return maps.to(features.dtype).reshape(count, 1, height, width).expand(-1, len(tasks), -1, -1).clone()


def _projections(points: Tensor) -> Tensor:
    """[N, positions]: each centred point along the first component, from the smaller of the two Gram matrices."""
    finite = points.isfinite().all(2).all(1)
    points = torch.where(finite[:, None, None], points, 0)
    if points.shape[1] <= points.shape[2]:
        values, vectors = torch.linalg.eigh(points @ points.mT)
        maps = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    else:
        vectors = torch.linalg.eigh(points.mT @ points)[1]
        maps = (points @ vectors[..., -1:])[..., 0]
    return torch.where(finite[:, None], maps, torch.nan)
