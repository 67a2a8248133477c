"""Attention rollout (Abnar and Zuidema 2020): how much of each patch reaches the tokens that are read, layer by layer.

Each layer's attention, the mean over its heads, is mixed half and half with what passes beside it, rows sum to 1, and
the layers are multiplied. Of a class token its row is the map; where all patches are averaged, the mean row. No task is
looked at. Not defined where tokens attend within windows, or change their number between layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from chextools.errors import InputError
from chextools.models.layers import EXTRA_TOKENS, as_maps
from chextools.models.operators import called
from chextools.saliency.network import Network, plainly
from chextools.saliency.rules import scores_of_attention

_WINDOWS = "its tokens attend within windows, which cannot be rolled out"
_ATTENTION = ("scaled_dot_product_attention", "softmax")


def check(model: Network) -> None:
    """Raise InputError for a network without attention, and, where its shapes are known, one that has windows."""
    found = [node for node in model.model.graph.nodes if called(node) in _ATTENTION]
    if not found:
        raise InputError(f"{model.model.family} has no attention to roll out; choose another --method")
    for node in found:
        shape = node.meta.get("shape")
        if shape is not None and (len(shape) > 4 or (len(shape) == 4 and shape[0] != 1)):
            raise InputError(f"{model.model.family}: {_WINDOWS}; choose another --method")


@plainly()
def maps(model: Network, images: Tensor, tasks: Sequence[int]) -> Tensor:
    """Maps [N, K, h, w] at the resolution of the patches, from 0 to 1; the same for every task."""
    with torch.no_grad():
        watcher = _Watcher(model.model, len(images))
        watcher.run(images)
        if watcher.windows:
            raise InputError(f"{model.model.family}: {_WINDOWS}")
        rolled: Tensor | None = None
        for attention in watcher.found:
            if attention.shape[1:] != watcher.found[0].shape[1:]:
                raise InputError(f"{model.model.family}: its layers attend to other numbers of tokens: no rollout")
            mixed = (attention + torch.eye(attention.shape[-1], device=attention.device)) / 2
            mixed = mixed / mixed.sum(-1, keepdim=True)
            rolled = mixed if rolled is None else mixed @ rolled
        if rolled is None:
            raise InputError(f"{model.model.family}: its attention is not among its tokens: no rollout")
        count = rolled.shape[-1]
        extra = next((each for each in EXTRA_TOKENS if _is_square(count - each)), 0)
        rows = rolled[:, 0] if extra else rolled.mean(1)
        found = as_maps(rows[:, :, None])
        if found is None:
            raise InputError(f"{model.model.family}: {count} tokens are no square of patches: no rollout")
        return found.expand(-1, len(tasks), -1, -1).float().clone()


def _is_square(count: int) -> bool:
    return count > 0 and int(count**0.5 + 0.5) ** 2 == count


class _Watcher(fx.Interpreter):
    """Keeps each layer's attention [N, tokens, tokens], the mean over heads, of those that are among all tokens."""

    def __init__(self, network: fx.GraphModule, images: int):
        super().__init__(network)
        self.images = images
        self.found: list[Tensor] = []
        self.windows = False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if called(n) == "softmax":
            self._keep(value)
        elif called(n) == "scaled_dot_product_attention":
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            given = dict(zip(names, args)) | kwargs
            scale, mask = scores_of_attention(given, args[0], args[1])
            scores = args[0] @ args[1].mT * scale
            self._keep((scores if mask is None else scores + mask).softmax(-1))
        return value

    def _keep(self, attention: Tensor) -> None:
        """Heads are a dimension of their own, or with the images in the first; windows are, with these, no heads."""
        if attention.dim() < 3 or attention.shape[-1] != attention.shape[-2] or attention.shape[0] % self.images:
            return
        if attention.dim() > 4 or (attention.dim() == 4 and attention.shape[0] != self.images):
            self.windows = True
            return
        self.found.append(attention.reshape(self.images, -1, *attention.shape[-2:]).mean(1))
