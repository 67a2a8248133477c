"""Networks for tests: one with all that makes tracing hard, a tiny one, and weights that let nothing die out."""

from __future__ import annotations

import torch
from torch import nn


class Own(nn.Module):
    """Branches, sums in place, one activation used twice, a part written over, and a sigmoid at the end."""

    def __init__(self, outputs: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.act = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, outputs), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.stem(x))
        z = self.left(y)
        z += self.right(y)
        z = self.act(self.norm(z))
        z[:, :2] *= 2
        return self.head(z.mean((2, 3)))


def tiny(outputs: int) -> nn.Module:
    """What costs next to nothing, where it does not matter what a network is."""
    first = [nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(
        *first, nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs)
    )


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights from a seed, such that no norm is the identity and nothing dies out."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    for parameter in network.parameters():
        if parameter.dim() < 2 or parameter.std() == 0:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return network.eval()
