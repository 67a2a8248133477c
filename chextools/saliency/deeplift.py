"""DeepLIFT, Rescale rule (Shrikumar et al. 2017): how a logit's difference from that of a baseline comes about.

Going back, an activation's slope is its change over the change of its input, (f(x) - f(x')) / (x - x'); all that is
linear keeps its gradient. What the input gets is the product with x - x', and sums to the change in logit. A maximum
gives its change to the pixel that wins in the image where that grows, else to the one that wins in the baseline: that
pixel changes by no less, so that no slope exceeds 1.

A product of two maps gives each the mean of the other, in the image and the baseline: its change is a' db + b' da
exactly, and these are the Shapley values of the two (Lundberg and Lee 2017, who take products apart so). A matrix
product is one of such. What is made of these is taken apart: a softmax into exp, a sum, and a product with its inverse;
a layer or group norm into squares, an inverse root, and a product; attention into all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chextools.models.folded import Bound
from chextools.models.operators import called
from chextools.saliency import baselines, rules
from chextools.saliency.network import Network, input_gradients, over_tasks, plainly
from chextools.saliency.rules import (
    ACTIVATION,
    ATTENTION,
    GROUP_NORM,
    LAYER_NORM,
    LENGTH,
    MATMUL,
    MAXIMUM,
    PRODUCT,
    QUOTIENT,
    SOFTMAX,
    Rules,
    Slope,
    Winners,
    by_channel,
    grouped,
    may_hold,
    replaced,
    scores_of_attention,
)

_STRAIGHT = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.Hardsigmoid,
    nn.Hardtanh,
    Bound,
)  # in pieces: changes over changes lose no digits


def check(model: Network) -> None:
    """Raise InputError for a network that has something without a rule."""
    rules.check(model.folded(), model.model.family)


@plainly()
def maps(model: Network, images: Tensor, tasks: Sequence[int], *, baseline: baselines.Baseline = 0.0) -> Tensor:
    """Maps [N, K, H, W] at the input's resolution, signed, summed over channels.

    They sum to the logit less that of the baseline. One pass for the baseline, one for the images, one back per task.
    """
    network = model.folded()
    start = baselines.of(baseline, images)
    with torch.no_grad():
        inputs = _Inputs(network)
        if not _MIXING.isdisjoint(inputs.kinds.values()):
            start = start.expand_as(images)
        inputs(start)
    leaf, logits = model.graph(images, _Rescale(network, inputs.seen))
    difference = images - start
    return over_tasks((gradient * difference).sum(1) for gradient in input_gradients(leaf, logits, tasks))


_REMEMBERED = (ACTIVATION, MAXIMUM, PRODUCT, QUOTIENT, MATMUL, SOFTMAX, LAYER_NORM, GROUP_NORM, ATTENTION, LENGTH)


_MIXING = {MATMUL, ATTENTION, SOFTMAX}  # around these, images and heads or windows are often one dimension


class _Inputs(Rules):
    """Remembers what goes into whatever is not linear."""

    def __init__(self, network: fx.GraphModule):
        super().__init__(network)
        self.seen: dict[str, tuple] = {}
        self.rules = dict.fromkeys(_REMEMBERED, self._remember)

    def _remember(self, node: fx.Node, inputs: tuple) -> Tensor:
        self.seen[node.name] = self.factors(node) if self.kinds[node] == MATMUL else inputs
        return self.value(node)


class _Rescale(Rules):
    def __init__(self, network: fx.GraphModule, of_baseline: dict[str, tuple]):
        super().__init__(network)
        self.of_baseline = of_baseline
        self.rules = {
            ACTIVATION: self._activation,
            MAXIMUM: self._maximum,
            PRODUCT: self._product,
            QUOTIENT: self._quotient,
            MATMUL: self._matmul,
            SOFTMAX: self._softmax,
            LAYER_NORM: self._layer_norm,
            GROUP_NORM: self._group_norm,
            ATTENTION: self._attention,
            LENGTH: self._length,
        }

    def _activation(self, node: fx.Node, inputs: tuple) -> Tensor:
        start = self.of_baseline.pop(node.name)
        if node.op == "call_module":
            module = self.fetch_attr(str(node.target))
            return _rescaled(module, inputs[0], start[0], isinstance(module, _STRAIGHT))[0]
        if called(node) in ("div", "truediv"):  # what does not depend on the image over what does
            return _rescaled(lambda x: inputs[0] / x, inputs[1], start[1])[0]
        return _rescaled(lambda x: self.value(node, x), inputs[0], start[0])[0]

    def _product(self, node: fx.Node, inputs: tuple) -> Tensor:
        a0, b0 = self.of_baseline.pop(node.name)[:2]
        return _product(inputs[0], a0, inputs[1], b0)[0]

    def _quotient(self, node: fx.Node, inputs: tuple) -> Tensor:
        a0, b0 = self.of_baseline.pop(node.name)[:2]
        return _product(inputs[0], a0, *_rescaled(torch.reciprocal, inputs[1], b0))[0]

    def _matmul(self, node: fx.Node, _: tuple) -> Tensor:
        a, b, times = self.factors(node)
        a0, b0 = self.of_baseline.pop(node.name)[:2]
        return _product(a, a0, b, b0, times)[0]

    def _length(self, node: fx.Node, _: tuple) -> Tensor:
        given, start = self.with_inputs(node), self.of_baseline.pop(node.name)[0]
        x, axes, keepdim = given["x"], given["axes"], given["keepdim"]
        squares, squares0 = _product(x, start, x, start)
        return _rescaled(torch.sqrt, squares.sum(axes, keepdim), squares0.sum(axes, keepdim))[0]

    def _softmax(self, node: fx.Node, inputs: tuple) -> Tensor:
        start = self.of_baseline.pop(node.name)
        return _softmax(inputs[0], start[0], self.with_inputs(node)["axis"])[0]

    def _layer_norm(self, node: fx.Node, inputs: tuple) -> Tensor:
        given, start = self.with_inputs(node), self.of_baseline.pop(node.name)
        made = _normed(inputs[0], start[0], given["axes"], given["eps"])
        made = made if given["weight"] is None else made * given["weight"]
        return made if given["bias"] is None else made + given["bias"]

    def _group_norm(self, node: fx.Node, inputs: tuple) -> Tensor:
        given, x, start = self.with_inputs(node), inputs[0], self.of_baseline.pop(node.name)[0]
        made = _normed(grouped(x, given["groups"]), grouped(start, given["groups"]), (-1,), given["eps"]).view_as(x)
        made = made * by_channel(given["weight"], x)
        return made if given["bias"] is None else made + by_channel(given["bias"], x)

    def _attention(self, node: fx.Node, inputs: tuple) -> Tensor:
        given, start = self.with_inputs(node), self.of_baseline.pop(node.name)
        query, key, value = inputs[:3]
        scale, mask = scores_of_attention(given, query, key)
        scores, scores0 = _product(query, start[0], key.mT, start[1].mT, torch.matmul)
        scores, scores0 = scores * scale, scores0 * scale
        if mask is not None:
            scores, scores0 = scores + mask, scores0 + mask
        return _product(*_softmax(scores, scores0, -1), value, start[2], torch.matmul)[0]

    def _maximum(self, node: fx.Node, inputs: tuple) -> Tensor:
        x, start = inputs[0], self.of_baseline.pop(node.name)[0]
        with torch.no_grad():
            value, at = _maxima(self.fetch_attr(node.target), x)
            before, at_before = _maxima(self.fetch_attr(node.target), start)
            where = torch.where(value >= before, at, at_before)
            change = (x - start).flatten(2).gather(2, where.flatten(2)).view_as(where)
            slope = torch.where(change == 0, 1, (value - before) / change)
        return Winners.apply(x, value, where, slope, self.fetch_attr(node.target))


Pair = tuple[Tensor, Tensor]  # of the image, whose gradient is the multiplier; and of the baseline


def _rescaled(function: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, straight: bool = False) -> Pair:
    """A function of single numbers: its change over theirs.

    straight: whether it is made of straight lines, whose changes over changes lose no digits.
    """
    with torch.no_grad():
        value, before = function(x), function(start)
        change = x - start
        slope = (value - before) / change
        # elsewhere a small change is one of rounding errors over a small one; the derivative half-way is as exact
        close = change == 0 if straight else change.abs() < torch.finfo(x.dtype).eps ** 0.5 * (1 + x.abs())
        close = close | ~slope.isfinite()
        if may_hold(close):
            halfway = _derivative(function, (x + start) / 2).nan_to_num(0, 0, 0)  # a root's at 0
            slope = torch.where(close, halfway, slope)
    return Slope.apply(x, value, slope), before


def _product(a: Tensor, a0: Tensor, b: Tensor, b0: Tensor, times: Callable = torch.mul) -> Pair:
    with torch.no_grad():
        value = times(a, b)
        half_a, half_b = (a + a0) / 2, (b + b0) / 2
    return replaced(value, times(a, half_b) + times(half_a, b)), times(a0, b0)


def _softmax(x: Tensor, start: Tensor, axis: int) -> Pair:
    with torch.no_grad():
        highest = torch.maximum(x.amax(axis, keepdim=True), start.amax(axis, keepdim=True))
    e, e0 = _rescaled(torch.exp, x - highest, start - highest)
    over, over0 = _rescaled(torch.reciprocal, e.sum(axis, keepdim=True), e0.sum(axis, keepdim=True))
    return _product(e, e0, over, over0)


def _normed(x: Tensor, start: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over some axes."""
    d, d0 = x - x.mean(axes, keepdim=True), start - start.mean(axes, keepdim=True)
    squares, squares0 = _product(d, d0, d, d0)
    variance, variance0 = squares.mean(axes, keepdim=True), squares0.mean(axes, keepdim=True)
    return _product(d, d0, *_rescaled(torch.rsqrt, variance + eps, variance0 + eps))[0]


def _maxima(pool: nn.MaxPool2d, x: Tensor) -> tuple[Tensor, Tensor]:
    return functional.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )


def _derivative(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(function(leaf).sum(), leaf)[0]
