"""Optimisers, the learning rate at each step, and the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def make(name: str, groups: list[dict], lr: float, weight_decay: float | None) -> torch.optim.Optimizer:
    """The optimiser of groups of parameters (`training.rates`), with PyTorch's settings, SGD with momentum 0.9.

    AdamW decays by 0.01 unless told otherwise.
    """
    import torch

    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    if weight_decay is None:
        weight_decay = 0.01 if name == "adamw" else 0.0
    options: dict = {"lr": lr, "weight_decay": weight_decay}
    if name == "sgd":
        options["momentum"] = 0.9
    try:
        return kind(groups, fused=True, **options)
    except (RuntimeError, TypeError):  # an older torch, or a device for which there is no fused one
        return kind(groups, **options)


def rate(schedule: str, step: int, steps: int, warmup: int) -> float:
    """What the learning rate is multiplied with at a step, counted from 0, of `steps`.

    constant; cosine, from 1 to 0; step: a tenth after each third of the steps. Before that, a linear warm-up.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1)))
    if schedule == "step":
        return 0.1 ** min(int(3 * done), 2)
    return 1.0


class Loss:
    """Cross-entropy summed over labels: binary for a task with one output, over three classes for a multiclass one.

    multiclass: which tasks are. weights: float32 [K, 3] of negative, positive and uncertain labels.
    """

    def __init__(self, multiclass: Iterable[bool], weights: np.ndarray, device: torch.device):
        multiclass = list(multiclass)
        import torch

        self.three = torch.tensor([k for k, m in enumerate(multiclass) if m], device=device, dtype=torch.long)
        self.two = torch.tensor([k for k, m in enumerate(multiclass) if not m], device=device, dtype=torch.long)
        single: list[int] = []
        triple: list[int] = []
        column = 0
        for m in multiclass:
            (triple if m else single).extend(range(column, column := column + (3 if m else 1)))
        self.single, self.triple = (torch.tensor(c, device=device, dtype=torch.long) for c in (single, triple))
        self.weights = torch.as_tensor(weights, device=device)

    def __call__(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """A scalar: the sum over labels [N, K] that have weight, of the outputs [N, columns]."""
        from torch.nn import functional

        output = output.float()
        total = output.sum() * 0
        if len(self.single):
            total = total + functional.binary_cross_entropy_with_logits(
                output[:, self.single],
                target[:, self.two],
                weight[:, self.two],
                pos_weight=self.weights[self.two, 1],
                reduction="sum",
            )
        if len(self.triple):
            classes = output[:, self.triple].reshape(len(output), -1, 3).log_softmax(dim=2)
            which = target[:, self.three].long()
            chosen = classes.gather(2, which[:, :, None])[:, :, 0]
            importance = self.weights[self.three].expand(len(output), -1, -1).gather(2, which[:, :, None])[:, :, 0]
            total = total - (chosen * importance * weight[:, self.three]).sum()
        return total
