"""Layer-wise relevance propagation (Bach et al. 2015): a logit is handed back from layer to layer, to what made it.

Relevance is kept as R = x g, so that going back is taking gradients g with other slopes. A linear layer z = w x + b
hands z on to its inputs by their shares of it; its rule says what the shares are:

    epsilon         w x / (z + e sign(z)), e a hundredth of the root mean square of the layer's outputs for an image
    epsilon-plus    only parts w x of the sign of z count (z+, Montavon et al. 2017, for both signs); in convolutions,
                    averages and sums. Linear layers as above.
    gradient-input  w x / z: the gradient times the input, for any network

BatchNorm is folded into its neighbours. An activation hands on what it gets, a maximum to the pixel that wins.

What transformers have goes by AttnLRP (Achtibat et al. 2024): a matrix product, and a product of two maps, give half
to each; a softmax is its first-order Taylor expansion, which is its gradient; attention is made of these. What only
scales, the deviation of a norm or whatever else a map is divided by, is a constant (there, and Ali et al. 2022). A
gate, a sigmoid that only multiplies, gets nothing: the map takes all (Arras et al. 2017).

Not all relevance comes to the input. Constants keep what they made: biases, class tokens, positions, a unit that is
held at its bound, the constant of a softmax's expansion; and epsilon has its share. All of it is counted where it is
taken, so that what the input has and what was absorbed sum to the logit. Where they do not, something was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function

from chextools.models.folded import Bound
from chextools.models.operators import called
from chextools.saliency import rules
from chextools.saliency.methods import UNCOUNTED
from chextools.saliency.network import Network, gradients_of_several, input_gradients, over_tasks, plainly
from chextools.saliency.rules import (
    ACTIVATION,
    ATTENTION,
    AVERAGE,
    DIFFERENCE,
    GROUP_NORM,
    LAYER,
    LAYER_NORM,
    LENGTH,
    MATMUL,
    MAXIMUM,
    MOVE,
    NORM,
    PRODUCT,
    QUOTIENT,
    SCALE,
    SOFTMAX,
    SUM,
    Rules,
    Slope,
    by_channel,
    grouped,
    may_hold,
    scores_of_attention,
)

RULES = ("epsilon-plus", "epsilon", UNCOUNTED)
EPSILON = 0.01  # of the root mean square of a layer's outputs
_LEAST = 1e-6  # of an output: where all parts of its sign are less, it is its bias
_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
_NOT_ZERO_AT_ZERO = (nn.Sigmoid, nn.Hardsigmoid)  # relevance would come from nothing


def check(model: Network, rule: str) -> None:
    """Raise InputError for a network that has something without a rule."""
    if rule != UNCOUNTED:
        rules.check(model.folded(forward=True), model.model.family, _NOT_ZERO_AT_ZERO)


@plainly()
def maps(
    model: Network, images: Tensor, tasks: Sequence[int], *, rule: str = RULES[0], epsilon: float = EPSILON
) -> Tensor:
    """Maps [N, K, H, W] at the input's resolution, signed, summed over channels.

    rule: one of `RULES`. epsilon: a share of the root mean square of a layer's outputs. One pass for the images, one
    back per task.
    """
    return accounted(model, images, tasks, rule=rule, epsilon=epsilon)[0]


@plainly()
def accounted(
    model: Network, images: Tensor, tasks: Sequence[int], *, rule: str = RULES[0], epsilon: float = EPSILON
) -> tuple[Tensor, Tensor]:
    """(the maps of `maps`, what was absorbed on the way, float64 [N, K]): their sums are the logits.

    With gradient-input nothing is counted, and what was absorbed is NaN.
    """
    if rule == UNCOUNTED:
        leaf, logits = model.graph(images)
        found = over_tasks((gradient * images).sum(1) for gradient in input_gradients(leaf, logits, tasks))
        return found, torch.full(found.shape[:2], torch.nan, dtype=torch.float64, device=found.device)
    book = torch.zeros(len(images), dtype=torch.float64, device=images.device, requires_grad=True)
    run = {"epsilon": _Epsilon, "epsilon-plus": _EpsilonPlus}[rule](model.folded(forward=True), epsilon, book)
    leaf, logits = model.graph(images, run)
    made, absorbed = [], []
    for gradient, taken in gradients_of_several([leaf, book], logits, tasks):
        made.append((gradient * images).sum(1))
        absorbed.append(torch.zeros_like(book) if taken is None else taken)
    return over_tasks(iter(made)), torch.stack(absorbed, 1)


class _Epsilon(Rules):
    """book: float64 [N], of zeros; its gradient is what was absorbed of each image's relevance."""

    def __init__(self, network: fx.GraphModule, epsilon: float, book: Tensor):
        super().__init__(network)
        self.epsilon, self.book = epsilon, book
        self.gates = rules.gates(network)
        self.rules = {
            ACTIVATION: self._activation,
            LAYER: self._damped,
            AVERAGE: self._damped,
            NORM: self._linear,
            SUM: self._with_constants,
            DIFFERENCE: self._with_constants,
            SCALE: self._linear,
            PRODUCT: self._product,
            QUOTIENT: self._quotient,
            LENGTH: self._constant,
            MATMUL: self._matmul,
            SOFTMAX: self._softmax,
            LAYER_NORM: self._layer_norm,
            GROUP_NORM: self._group_norm,
            ATTENTION: self._attention,
            MOVE: self._move,
        }

    def _booked(self, node: fx.Node, value: Tensor, kept: Tensor | float | None) -> Tensor:
        """The value, of whose relevance `kept` over it is kept here; None for nothing."""
        if kept is None or not value.requires_grad:
            return value
        kept = torch.as_tensor(kept, dtype=value.dtype, device=value.device).detach().expand_as(value)
        return _Booked.apply(value, self.book, kept, self._images_axis(node, value))

    def _images_axis(self, node: fx.Node, value: Tensor) -> int:
        """Along which axis a value's images are, the first thing that changes slowly: nearly always the first."""
        shape, count = node.meta.get("shape"), len(self.book)
        if count == 1 or shape is None or len(shape) != value.dim():
            return 0
        return next((k for k, side in enumerate(value.shape) if side == count * shape[k]), 0)

    def _move(self, node: fx.Node, _: tuple) -> Any:
        value = self.value(node)
        if (
            node.op.startswith("call_")
            and called(node) in rules.WITH_CONSTANTS
            and isinstance(value, Tensor)
            and value.requires_grad
        ):
            return self._booked(node, value, self._of_zeros(node))
        return value

    def _of_zeros(self, node: fx.Node) -> Tensor:
        """What an operator makes of zeros where it has a map: its constants."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        args, kwargs = fx.node.map_aggregate((args, kwargs), _zeroed)
        with torch.no_grad():
            return getattr(self, node.op)(node.target, args, kwargs)

    def _linear(self, node: fx.Node, _: tuple) -> Tensor:
        value = self.value(node)
        constant = node.op == "call_module" or called(node) in ("linear", "conv2d", "add", "sub", "rsub", "addcmul")
        return self._booked(node, value, self._of_zeros(node) if constant else None)

    def _with_constants(self, node: fx.Node, inputs: tuple) -> Tensor:
        moving = all(isinstance(each, Tensor) and each.requires_grad for each in inputs[:2])
        return self._booked(node, self.value(node), None if moving else self._of_zeros(node))

    def _activation(self, node: fx.Node, inputs: tuple) -> Tensor:
        if node in self.gates:
            return self.value(node).detach()
        x = inputs[0]
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.ReLU):
            return module(x)
        if called(node) in ("div", "truediv"):
            x = inputs[1]
        with torch.no_grad():
            value = self.value(node)
            slope = module.inside(x).to(x.dtype) if isinstance(module, Bound) else _over(value, x)
        return self._booked(node, Slope.apply(x, value, slope), value - slope * x)

    def _product(self, node: fx.Node, inputs: tuple) -> Tensor:
        value = self.value(node)
        alone = not all(isinstance(each, Tensor) and each.requires_grad for each in inputs[:2])
        return value if alone else _half(value)  # beside a gate all of it

    def _quotient(self, _: fx.Node, inputs: tuple) -> Tensor:
        return inputs[0] / inputs[1].detach()

    def _constant(self, node: fx.Node, _: tuple) -> Tensor:
        return self.value(node).detach()

    def _matmul(self, node: fx.Node, _: tuple) -> Tensor:
        return _half(self.value(node))

    def _softmax(self, node: fx.Node, _: tuple) -> Tensor:
        given = self.with_inputs(node)
        return self._expanded(node, given["x"], given["axis"])

    def _expanded(self, node: fx.Node, x: Tensor, axis: int) -> Tensor:
        value = x.softmax(axis)
        with torch.no_grad():
            finite = torch.where(value == 0, 0, x)  # what a mask hides is minus infinity
            kept = value * (1 - finite + (value * finite).sum(axis, keepdim=True))
        return self._booked(node, value, kept)

    def _layer_norm(self, node: fx.Node, inputs: tuple) -> Tensor:
        given, x = self.with_inputs(node), inputs[0]
        made = _normed(x, given["axes"], given["eps"])
        made = made if given["weight"] is None else made * given["weight"]
        bias = given["bias"]
        return made if bias is None else self._booked(node, made + bias, bias)

    def _group_norm(self, node: fx.Node, inputs: tuple) -> Tensor:
        given, x = self.with_inputs(node), inputs[0]
        made = _normed(grouped(x, given["groups"]), (-1,), given["eps"]).view_as(x) * by_channel(given["weight"], x)
        if given["bias"] is None:
            return made
        bias = by_channel(given["bias"], x)
        return self._booked(node, made + bias, bias)

    def _attention(self, node: fx.Node, inputs: tuple) -> Tensor:
        given = self.with_inputs(node)
        query, key, value = inputs[:3]
        scale, mask = scores_of_attention(given, query, key)
        scores = _half(query @ key.mT) * scale
        if mask is not None:
            scores = self._booked(node, scores + mask, torch.where(mask.isfinite(), mask, 0))
        return _half(self._expanded(node, scores, -1) @ value)

    def _damped(self, node: fx.Node, _: tuple) -> Tensor:
        z = self.value(node)
        with torch.no_grad():
            size = z.abs()
            rms = z.flatten(1).square().mean(1).sqrt().reshape(-1, *[1] * (z.dim() - 1))
            slope = _over(size, size + self.epsilon * rms)
            module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
            bias = getattr(module, "bias", None)
            kept = (1 - slope) * z
            if bias is not None:
                kept = kept + slope * (bias if isinstance(module, nn.Linear) else by_channel(bias, z))
        return self._booked(node, Slope.apply(z, z, slope), kept)


class _EpsilonPlus(_Epsilon):
    def __init__(self, network: fx.GraphModule, epsilon: float, book: Tensor):
        super().__init__(network, epsilon, book)
        self.rules |= {LAYER: self._layer, AVERAGE: self._average, SUM: self._sum}
        self.only_positive: dict[fx.Node, bool] = {}
        for node in reversed(network.graph.nodes):
            self.only_positive[node] = self._matters_if_positive(node)
        self.never_negative: dict[fx.Node, bool] = {}
        for node in network.graph.nodes:
            self.never_negative[node] = self._is_never_negative(node)

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

    def _is_never_negative(self, node: fx.Node) -> bool:
        """Whether what it makes cannot be negative, as its kind alone says."""
        kind = self.kinds[node]
        if node.op == "call_module":
            if isinstance(self.module.get_submodule(str(node.target)), _NEVER_NEGATIVE):
                return True
            passing = kind in (AVERAGE, MAXIMUM, MOVE)
        elif kind == SUM:
            passing = not node.kwargs and all(isinstance(each, fx.Node) for each in node.args)
        else:
            passing = kind == AVERAGE or called(node) in ("cat", "concat", "flatten")
        return passing and all(self.never_negative[each] for each in node.all_input_nodes)

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
        signed = not self.never_negative[node.all_input_nodes[0]] and may_hold(x < 0)
        parts = apply(positive, up) + (apply(negative, down) if signed else 0)
        others = None
        if not self.only_positive[node]:
            others = apply(positive, down) + (apply(negative, up) if signed else 0)
        return self._shared(node, value, parts, others)

    def _average(self, node: fx.Node, inputs: tuple) -> Tensor:
        x = inputs[0]
        with torch.no_grad():
            value = self.value(node, x)
        others = None if self.only_positive[node] else self.value(node, -(-x).relu())
        return self._shared(node, value, self.value(node, x.relu()), others)

    def _sum(self, node: fx.Node, inputs: tuple) -> Tensor:
        a, b = inputs[:2]
        with torch.no_grad():
            value = a + b
            fixed = [each for each in (a, b) if not each.requires_grad]
        others = None if self.only_positive[node] else -(-a).relu() - (-b).relu()
        return self._shared(node, value, a.relu() + b.relu(), others, fixed)

    def _shared(
        self, node: fx.Node, value: Tensor, positive: Tensor, negative: Tensor | None, fixed: Sequence[Tensor] = ()
    ) -> Tensor:
        """A value that is said to come of its positive parts where it is positive, of its negative ones where negative.

        negative: None where only positive values matter. fixed: constants among what was summed.
        """
        parts = positive if negative is None else torch.where(value > 0, positive, negative)
        with torch.no_grad():
            usable = parts.abs() > _LEAST * value.abs()
            if negative is None:
                usable &= value > 0
            slope = torch.where(usable, value / parts, 0)
            kept = torch.where(usable, 0, value)
            for each in fixed:
                kept = kept + slope * torch.where(value > 0, each.relu(), 0 if negative is None else -(-each).relu())
        return self._booked(node, Slope.apply(parts, value, slope), kept)


class _Booked(Function):
    """A value; the sum over an image of its gradient times `kept` is book's: apply(value, book, kept, images' axis)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, book: Tensor, kept: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.axis, ctx.count = axis, len(book)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (kept,) = ctx.saved_tensors
        by_image = (gradient * kept).movedim(ctx.axis, 0).reshape(ctx.count, -1)
        return gradient, by_image.sum(1, dtype=torch.float64), None, None


def _zeroed(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) and value.requires_grad else value


def _half(value: Tensor) -> Tensor:
    """A product that says it is half of what each of its two factors makes it: their shares together are all of it."""
    return Slope.apply(value, value, torch.full_like(value, 0.5))


def _normed(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt().detach()


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where b is 0."""
    return torch.where(b == 0, 0, a / b)
