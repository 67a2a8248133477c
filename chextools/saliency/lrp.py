"""Layer-wise relevance propagation (Bach et al. 2015): a logit is handed back from layer to layer, to what made it.

Relevance is kept as R = x g, so that going back is taking gradients g with other slopes. A linear layer z = w x + b
hands z on to its inputs by their shares of it; its rule says what the shares are:

    epsilon         w x / (z + e sign(z)), e a hundredth of the root mean square of the layer's outputs for an image
    epsilon-plus    only parts w x of the sign of z count (z+, Montavon et al. 2017, for both signs); in convolutions,
                    averages and sums. Linear layers as above.
    gradient-input  w x / z: the gradient times the input, for any network

BatchNorm is folded into its neighbours. An activation hands on what it gets, a maximum to the pixel that wins. Shares
of a bias are lost with epsilon, and so is what a unit held at its bound got.

What transformers have goes by AttnLRP (Achtibat et al. 2024): a matrix product, and a product of two maps, give half
to each; a softmax is its first-order Taylor expansion, which is its gradient; attention is made of these. A layer or
group norm takes its standard deviation for a constant (Ali et al. 2022). A gate, a sigmoid that only multiplies, gets
nothing: the map takes all (Arras et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from chextools.models.folded import Bound
from chextools.saliency import rules
from chextools.saliency.network import Network, input_gradients, over_tasks, plainly
from chextools.saliency.rules import (
    ACTIVATION,
    ATTENTION,
    AVERAGE,
    GROUP_NORM,
    LAYER,
    LAYER_NORM,
    MATMUL,
    MAXIMUM,
    MOVE,
    PRODUCT,
    SUM,
    Rules,
    Slope,
    by_channel,
    grouped,
    scores_of_attention,
)

RULES = ("epsilon-plus", "epsilon", "gradient-input")
EPSILON = 0.01  # of the root mean square of a layer's outputs
_LEAST = 1e-6  # of an output: where all parts of its sign are less, it is its bias
_NOT_ZERO_AT_ZERO = (nn.Sigmoid, nn.Hardsigmoid)  # relevance would come from nothing


def check(model: Network, rule: str) -> None:
    """Raise InputError for a network that has something without a rule."""
    if rule != "gradient-input":
        rules.check(model.folded(forward=True), model.model.family, _NOT_ZERO_AT_ZERO)


@plainly()
def maps(
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
        self.gates = rules.gates(network)
        self.rules = {
            ACTIVATION: self._activation,
            LAYER: self._damped,
            AVERAGE: self._damped,
            PRODUCT: self._product,
            MATMUL: self._matmul,
            LAYER_NORM: self._layer_norm,
            GROUP_NORM: self._group_norm,
            ATTENTION: self._attention,
        }

    def _activation(self, node: fx.Node, inputs: tuple) -> Tensor:
        if node in self.gates:
            return self.value(node).detach()
        x = inputs[0]
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.ReLU):
            return module(x)
        with torch.no_grad():
            value = self.value(node)
            slope = module.inside(x).to(x.dtype) if isinstance(module, Bound) else _over(value, x)
        return Slope.apply(x, value, slope)

    def _product(self, node: fx.Node, inputs: tuple) -> Tensor:
        value = self.value(node)
        alone = not all(isinstance(each, Tensor) and each.requires_grad for each in inputs[:2])
        return value if alone else _half(value)  # beside a gate all of it

    def _matmul(self, node: fx.Node, _: tuple) -> Tensor:
        return _half(self.value(node))

    def _layer_norm(self, node: fx.Node, inputs: tuple) -> Tensor:
        given, x = self.with_inputs(node), inputs[0]
        made = _normed(x, given["axes"], given["eps"])
        made = made if given["weight"] is None else made * given["weight"]
        return made if given["bias"] is None else made + given["bias"]

    def _group_norm(self, node: fx.Node, inputs: tuple) -> Tensor:
        given, x = self.with_inputs(node), inputs[0]
        made = _normed(grouped(x, given["groups"]), (-1,), given["eps"]).view_as(x) * by_channel(given["weight"], x)
        return made if given["bias"] is None else made + by_channel(given["bias"], x)

    def _attention(self, node: fx.Node, inputs: tuple) -> Tensor:
        given = self.with_inputs(node)
        query, key, value = inputs[:3]
        scale, mask = scores_of_attention(given, query, key)
        scores = _half(query @ key.mT) * scale
        scores = scores if mask is None else scores + mask
        return _half(scores.softmax(-1) @ value)

    def _damped(self, node: fx.Node, _: tuple) -> Tensor:
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
            passing = self.kinds[user] in (AVERAGE, SUM, MAXIMUM, MOVE) and self.only_positive[user]
            relu = user.op == "call_module" and isinstance(self.module.get_submodule(user.target), nn.ReLU)
            if not (relu or passing):
                return False
        return True

    def _layer(self, node: fx.Node, inputs: tuple) -> Tensor:
        x, layer = inputs[0], self.fetch_attr(str(node.target))
        if isinstance(layer, nn.Linear):
            return self._damped(node, inputs)
        up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        with torch.no_grad():
            value = layer(x)

        def apply(x: Tensor, weight: Tensor) -> Tensor:
            return layer._conv_forward(x, weight, None)  # noqa: SLF001 - its own padding and all

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


def _half(value: Tensor) -> Tensor:
    """A product that says it is half of what each of its two factors makes it: their shares together are all of it."""
    return Slope.apply(value, value, torch.full_like(value, 0.5))


def _normed(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt().detach()


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
