"""Layer-wise relevance propagation (Bach et al. 2015): a logit is handed back from layer to layer, to what made it.

Relevance is kept as R = x g, so that going back is taking gradients g with other slopes. A linear layer z = w x + b
hands z on to its inputs by their shares of it; its rule says what the shares are:

    epsilon         w x / (z + e sign(z)), e a hundredth of the root mean square of the layer's outputs for an image
    epsilon-plus    only parts w x of the sign of z count (z+, Montavon et al. 2017, for both signs); in convolutions,
                    averages and sums. Linear layers as above.
    gradient-input  w x / z: the gradient times the input, for any network

BatchNorm is folded into its neighbours. An activation hands on what it gets, a maximum to the pixel that wins. Shares
of a bias are lost with epsilon, and so is what a unit held at its bound got. Products of two feature maps, layer norm
and attention have no rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from chextools.models.folded import Bound
from chextools.saliency import rules
from chextools.saliency.network import Network, input_gradients, over_tasks, plainly
from chextools.saliency.rules import ACTIVATION, AVERAGE, LAYER, MAXIMUM, MOVE, SUM, Rules, Slope

RULES = ("epsilon-plus", "epsilon", "gradient-input")
EPSILON = 0.01  # of the root mean square of a layer's outputs
_LEAST = 1e-6  # of an output: where all parts of its sign are less, it is its bias
_NOT_ZERO_AT_ZERO = (nn.Sigmoid, nn.Hardsigmoid)  # relevance would come from nothing


def check(model: Network, rule: str) -> None:
    """Raise InputError for a network that has something without a rule."""
    if rule != "gradient-input":
        rules.check(model.folded(forward=True), model.model.family, _NOT_ZERO_AT_ZERO)


@plainly()
def lrp(
    model: Network, images: Tensor, tasks: Sequence[int], *, rule: str = RULES[0], epsilon: float = EPSILON
) -> Tensor:
    """Maps [N, K, H, W] at the input's resolution, signed, summed over channels.

    rule: one of `RULES`. epsilon: a share of the root mean square of a layer's outputs. One pass for the images, one
    back per task.
    """
    if rule == "gradient-input":
        run = None
    else:
        run = {"epsilon": _Epsilon, "epsilon-plus": _EpsilonPlus}[rule](model.folded(forward=True), epsilon)
    leaf, logits = model.graph(images, run)
    return over_tasks((gradient * images).sum(1) for gradient in input_gradients(leaf, logits, tasks))


class _Epsilon(Rules):
    def __init__(self, network: fx.GraphModule, epsilon: float):
        super().__init__(network)
        self.epsilon = epsilon
        self.rules = {ACTIVATION: self._activation, LAYER: self._damped, AVERAGE: self._damped}

    def _activation(self, node: fx.Node, inputs: tuple) -> Tensor:
        x, module = inputs[0], self.fetch_attr(node.target)
        if isinstance(module, nn.ReLU):
            return module(x)
        with torch.no_grad():
            value = module(x)
            slope = module.inside(x).to(x.dtype) if isinstance(module, Bound) else _over(value, x)
        return Slope.apply(x, value, slope)

    def _damped(self, node: fx.Node, inputs: tuple) -> Tensor:
        z = self.value(node)
        with torch.no_grad():
            size = z.abs()
            rms = z.flatten(1).square().mean(1).sqrt().reshape(-1, *[1] * (z.dim() - 1))
            slope = _over(size, size + self.epsilon * rms)
        return Slope.apply(z, z, slope)


class _EpsilonPlus(_Epsilon):
    def __init__(self, network: fx.GraphModule, epsilon: float):
        super().__init__(network, epsilon)
        self.rules |= {LAYER: self._layer, AVERAGE: self._average, SUM: self._sum}
        self.only_positive: dict[fx.Node, bool] = {}
        for node in reversed(network.graph.nodes):
            self.only_positive[node] = self._matters_if_positive(node)

    def _matters_if_positive(self, node: fx.Node) -> bool:
        """Whether relevance comes to this node's output only where that is positive: half of the work is saved."""
        if node.op == "output" or not node.users:
            return False
        for user in node.users:
            passing = rules.kind(self.module, user) in (AVERAGE, SUM, MAXIMUM, MOVE) and self.only_positive[user]
            relu = user.op == "call_module" and isinstance(self.module.get_submodule(user.target), nn.ReLU)
            if not (relu or passing):
                return False
        return True

    def _layer(self, node: fx.Node, inputs: tuple) -> Tensor:
        x, layer = inputs[0], self.fetch_attr(node.target)
        if isinstance(layer, nn.Linear):
            return self._damped(node, inputs)
        up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        with torch.no_grad():
            value = layer(x)

        def apply(x: Tensor, weight: Tensor) -> Tensor:
            return layer._conv_forward(x, weight, None)

        positive, negative = x.relu(), -(-x).relu()
        signed = bool((x < 0).any())
        parts = apply(positive, up) + (apply(negative, down) if signed else 0)
        others = None
        if not self.only_positive[node]:
            others = apply(positive, down) + (apply(negative, up) if signed else 0)
        return _shared(value, parts, others)

    def _average(self, node: fx.Node, inputs: tuple) -> Tensor:
        x = inputs[0]
        with torch.no_grad():
            value = self.value(node, x)
        others = None if self.only_positive[node] else self.value(node, -(-x).relu())
        return _shared(value, self.value(node, x.relu()), others)

    def _sum(self, node: fx.Node, inputs: tuple) -> Tensor:
        a, b = inputs[:2]
        with torch.no_grad():
            value = a + b
        others = None if self.only_positive[node] else -(-a).relu() - (-b).relu()
        return _shared(value, a.relu() + b.relu(), others)


def _shared(value: Tensor, positive: Tensor, negative: Tensor | None) -> Tensor:
    """A value that is said to come of its positive parts where it is positive, of its negative ones where negative.

    negative: None where only positive values matter.
    """
    parts = positive if negative is None else torch.where(value > 0, positive, negative)
    with torch.no_grad():
        usable = parts.abs() > _LEAST * value.abs()
        if negative is None:
            usable &= value > 0
        slope = torch.where(usable, value / parts, 0)
    return Slope.apply(parts, value, slope)


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where b is 0."""
    return torch.where(b == 0, 0, a / b)
