"""DeepLIFT, Rescale rule (Shrikumar et al. 2017): how a logit's difference from that of a baseline comes about.

Going back, an activation's slope is its change over the change of its input, (f(x) - f(x')) / (x - x'); all that is
linear keeps its gradient. What the input gets is the product with x - x', and sums to the change in logit. A maximum
gives its change to the pixel that wins in the image where that grows, else to the one that wins in the baseline: that
pixel changes by no less, so that no slope exceeds 1. A product of two feature maps, a layer norm and attention have no
rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chextools.models.folded import Bound
from chextools.saliency import baselines, rules
from chextools.saliency.network import Network, input_gradients, over_tasks, plainly
from chextools.saliency.rules import ACTIVATION, MAXIMUM, Rules, Slope, Winners

_STRAIGHT = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardsigmoid, Bound)  # in pieces: changes over changes lose no digits


def check(model: Network) -> None:
    """Raise InputError for a network that has something without a rule."""
    rules.check(model.folded(), model.model.family)


@plainly()
def deeplift(model: Network, images: Tensor, tasks: Sequence[int], *, baseline: baselines.Baseline = 0.0) -> Tensor:
    """Maps [N, K, H, W] at the input's resolution, signed, summed over channels.

    They sum to the logit less that of the baseline. One pass for the baseline, one for the images, one back per task.
    """
    start = baselines.of(baseline, images)
    network = model.folded()
    with torch.no_grad():
        inputs = _Inputs(network)
        inputs(start)
    leaf, logits = model.graph(images, _Rescale(network, inputs.seen))
    difference = images - start
    return over_tasks((gradient * difference).sum(1) for gradient in input_gradients(leaf, logits, tasks))


class _Inputs(Rules):
    """Remembers what goes into activations and maxima."""

    def __init__(self, network: fx.GraphModule):
        super().__init__(network)
        self.seen: dict[str, Tensor] = {}
        self.rules = {ACTIVATION: self._remember, MAXIMUM: self._remember}

    def _remember(self, node: fx.Node, inputs: tuple) -> Tensor:
        self.seen[node.name] = inputs[0]
        return self.value(node)


class _Rescale(Rules):
    def __init__(self, network: fx.GraphModule, of_baseline: dict[str, Tensor]):
        super().__init__(network)
        self.of_baseline = of_baseline
        self.rules = {ACTIVATION: self._activation, MAXIMUM: self._maximum}

    def _activation(self, node: fx.Node, inputs: tuple) -> Tensor:
        x, start = inputs[0], self.of_baseline.pop(node.name)
        module = self.fetch_attr(node.target)
        with torch.no_grad():
            value = module(x)
            change = x - start
            slope = (value - module(start)) / change
            if isinstance(module, _STRAIGHT):
                close = change == 0
            else:  # a change of rounding errors over a small one; the derivative half-way is as exact
                close = change.abs() < torch.finfo(x.dtype).eps ** 0.5
            if close.any():
                slope = torch.where(close, _derivative(module, (x + start) / 2), slope)
        return Slope.apply(x, value, slope)

    def _maximum(self, node: fx.Node, inputs: tuple) -> Tensor:
        x, start = inputs[0], self.of_baseline.pop(node.name)
        with torch.no_grad():
            value, at = _maxima(self.fetch_attr(node.target), x)
            before, at_before = _maxima(self.fetch_attr(node.target), start)
            where = torch.where(value >= before, at, at_before)
            change = (x - start).flatten(2).gather(2, where.flatten(2)).view_as(where)
            slope = torch.where(change == 0, 1, (value - before) / change)
        return Winners.apply(x, value, where, slope)


def _maxima(pool: nn.MaxPool2d, x: Tensor) -> tuple[Tensor, Tensor]:
    return functional.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )


def _derivative(module: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(module(leaf).sum(), leaf)[0]
