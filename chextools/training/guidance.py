"""Supervision by outlines: the share of a class activation map's positive energy that lies outside.

For a task k that is positive in an image, and outlined there by a mask M, the loss is

    1 - sum(M relu(L_k)) / sum(relu(L_k)),    L_k = sum over channels c of A_c dy_k/dA_c

over the cells of A, the last maps before the global pool; M is the share of each cell that is inside. One minus the
energy-based pointing game (Wang et al. 2020, "Score-CAM"), it is the energy loss of Rao et al. 2023 ("Studying how to
efficiently and effectively guide models with explanations"), after Ross et al. 2017 ("Right for the right reasons").
L is HiResCAM; where one linear layer follows the pool it is the class activation map of Zhou et al. 2016, but for a
factor that the ratio does without, and is had without a second pass. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from chextools.errors import InputError
from chextools.models import architectures
from chextools.models.checkpoints import Columns, chosen
from chextools.models.inference import there

_EPSILON = 1e-8


class Guide:
    """Looks at a network's last maps while it trains.

    columns: `Checkpoint.by_task` of its outputs. Raises InputError for a network without maps before a pool.
    """

    def __init__(self, model: nn.Module, columns: Columns, size: int):
        self.columns = columns
        self.head: Any = architectures.head(model)[1]
        self.is_linear = self._look(model, size)
        self._watch = _Watch()

    def watching(self) -> TorchFunctionMode:
        """Enter it around the forward pass whose maps are meant."""
        self._watch = _Watch(keep_leaf=not self.is_linear)
        return self._watch

    def outside(self, output: Tensor, pairs: Sequence[tuple[int, int]], masks: Tensor) -> Tensor:
        """The sum of the losses of (image, task) pairs with their masks [M, H, W], of the outputs just made."""
        maps = self._watch.maps
        assert maps is not None
        with torch.autocast(maps.device.type, enabled=False):
            if self.is_linear:
                weights = chosen(_wide(self.head.weight).T, self.columns)  # [C, K]
                every = torch.einsum("nchw,ck->nkhw", _wide(maps), weights)
                images, tasks = (there(torch.tensor(each), maps.device) for each in zip(*pairs))
                cams = every[images, tasks]
            else:
                cams = self._by_gradient(_wide(output), maps, pairs)
            covered = functional.adaptive_avg_pool2d(masks[:, None], (cams.shape[1], cams.shape[2]))[:, 0]
            return outside(cams, covered).sum()

    def _by_gradient(self, output: Tensor, maps: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
        logits = chosen(output, self.columns)
        products = {}
        for task in dict.fromkeys(task for _, task in pairs):
            (gradient,) = torch.autograd.grad(logits[:, task].sum(), maps, create_graph=True)
            products[task] = (_wide(maps) * _wide(gradient)).sum(1)
        return torch.stack([products[task][image] for image, task in pairs])

    def _look(self, model: nn.Module, size: int) -> bool:
        """Whether a linear layer alone follows the pool."""
        given: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        training = model.training
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
        try:
            model.eval()
            with torch.no_grad(), _Watch() as watch:
                output = model(images)
            maps = watch.maps
            with torch.enable_grad(), _Watch(cut=watch.count - 1):
                cut = model(images)
            reached = torch.autograd.grad(cut.sum(), images, allow_unused=True)[0] if cut.requires_grad else None
        finally:
            model.train(training)
            hook.remove()
        if maps is None or reached is not None:
            raise InputError("has no pool over its last maps, which --outlines needs")
        if not isinstance(self.head, nn.Linear) or given[0].shape != maps.shape[:2]:
            return False
        pooled = torch.allclose(given[0], maps.mean((2, 3)), rtol=1e-3, atol=1e-5)
        return pooled and torch.equal(output, self.head(given[0]))


def outside(cams: Tensor, masks: Tensor) -> Tensor:
    """[M]: the share of the positive energy of maps [M, h, w] outside masks [M, h, w] of 0 to 1; 1 of none at all."""
    energy = cams.relu()
    return 1 - (energy * masks).sum((1, 2)) / (energy.sum((1, 2)) + _EPSILON)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Watch(TorchFunctionMode):
    """Remembers what the last average over maps of more than one cell was given, and how many there were.

    cut: the number of one through which no gradient is to pass. keep_leaf: maps that have no gradient are given one.
    """

    def __init__(self, cut: int | None = None, keep_leaf: bool = False):
        super().__init__()
        self.cut, self.keep_leaf = cut, keep_leaf
        self.maps: Tensor | None = None
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(function, "__name__", "")
        maps = args[0] if args else None
        if name not in ("adaptive_avg_pool2d", "avg_pool2d", "mean") or not isinstance(maps, Tensor):
            return function(*args, **(kwargs or {}))
        if maps.dim() != 4 or maps.shape[2] * maps.shape[3] < 2:
            return function(*args, **(kwargs or {}))
        if self.keep_leaf and torch.is_grad_enabled() and not maps.requires_grad:
            maps = maps.requires_grad_()
        result = function(maps.detach() if self.count == self.cut else maps, *args[1:], **(kwargs or {}))
        if name == "adaptive_avg_pool2d" or result.numel() == maps.shape[0] * maps.shape[1]:
            self.maps = maps
            self.count += 1
        return result
