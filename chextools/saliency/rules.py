"""What DeepLIFT and LRP have in common: what a network is made of, and gradients that are replaced by others.

Both go back from a logit to the input as gradients do, but for another slope here and there, so that autograd does the
work: `Slope` and `Winners` give a known value and the slope that is wanted. `Rules` runs a network node by node.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function

from chextools.errors import InputError
from chextools.models.folded import Bound

LAYER, AVERAGE, NORM, MAXIMUM, ACTIVATION, SUM, SCALE, MOVE = (
    "layer",
    "average",
    "norm",
    "maximum",
    "activation",
    "sum",
    "scale",
    "move",
)

_MODULES: dict[str, tuple[type, ...]] = {
    LAYER: (nn.Conv2d, nn.Linear),
    AVERAGE: (nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    NORM: (nn.modules.batchnorm._BatchNorm,),
    MAXIMUM: (nn.MaxPool2d,),
    ACTIVATION: (
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.SiLU,
        nn.GELU,
        nn.Hardswish,
        nn.Sigmoid,
        nn.Hardsigmoid,
        nn.Tanh,
        Bound,
    ),
    MOVE: (nn.Flatten, nn.Identity),
}
_SUMS = {operator.add, operator.sub, torch.add, torch.sub, "add", "sub"}
_SCALES = {operator.mul, operator.truediv, torch.mul, torch.div, "mul", "div"}
_MOVES = {
    torch.cat,
    torch.flatten,
    torch.transpose,
    torch.chunk,
    torch.permute,
    torch.unsqueeze,
    torch.squeeze,
    operator.getitem,
    operator.floordiv,
    getattr,
    "flatten",
    "view",
    "reshape",
    "transpose",
    "permute",
    "contiguous",
    "chunk",
    "split",
    "size",
    "unsqueeze",
    "squeeze",
}


def kind(network: fx.GraphModule, node: fx.Node) -> str | None:
    """What a node of the graph does; None for what neither method has a rule for."""
    if node.op in ("placeholder", "output", "get_attr"):
        return MOVE
    if node.op == "call_module":
        module = network.get_submodule(node.target)
        return next((name for name, types in _MODULES.items() if isinstance(module, types)), None)
    if node.target in _MOVES:
        return MOVE
    if node.target in (torch.mean, "mean"):
        return AVERAGE
    if node.target in _SUMS | _SCALES:
        several = len(node.all_input_nodes) > 1 or any(each.op == "get_attr" for each in node.all_input_nodes)
        if not several:  # a number and a map; a number over a map is not linear
            divides = node.target in (operator.truediv, torch.div, "div")
            return None if divides and not isinstance(node.args[0], fx.Node) else SCALE
        return SUM if node.target in (operator.add, torch.add, "add") else None
    return None


def check(network: fx.GraphModule, family: str, without: tuple[type, ...] = ()) -> None:
    """Raise InputError where the network has something without a rule.

    without: activations that have none.
    """
    for node in network.graph.nodes:
        known = kind(network, node)
        module = network.get_submodule(node.target) if node.op == "call_module" else None
        if known is None or (known == ACTIVATION and isinstance(module, without)):
            what = type(module).__name__ if module is not None else getattr(node.target, "__name__", node.target)
            what = {"mul": "the product of two feature maps"}.get(what, what)
            raise InputError(f"has no rule for {what}, which {family} has; choose another --method, such as ig")


class Rules(fx.Interpreter):
    """Runs a network [N,3,H,W] -> [N, outputs] with a rule for each kind of node; what has none runs as it is."""

    def __init__(self, network: fx.GraphModule):
        super().__init__(network)
        self.rules: dict[str, Callable[[fx.Node, tuple], Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        return self.run(images)

    def run_node(self, node: fx.Node) -> object:
        rule = self.rules.get(kind(self.module, node))
        if rule is None:
            return super().run_node(node)
        return rule(node, self.fetch_args_kwargs_from_env(node)[0])

    def value(self, node: fx.Node, *inputs: object) -> Tensor:
        """What the node makes of its inputs, the first of which may be replaced."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        return getattr(self, node.op)(node.target, (*inputs, *args[len(inputs) :]), kwargs)


class Slope(Function):
    """A value that is said to be `slope` times the input: apply(input, value, slope), all of one shape."""

    @staticmethod
    def forward(ctx, input: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.detach().view_as(value)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


class Winners(Function):
    """The same of a pool: each output is said to be `slope` times one pixel of the input [N, C, H, W].

    apply(input, value, where, slope), where: int64, which pixel, row by row; the last three [N, C, h, w]. Windows may
    overlap.
    """

    @staticmethod
    def forward(ctx, input: Tensor, value: Tensor, where: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(where, slope)
        ctx.shape = input.shape
        return value.detach().view_as(value)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        where, slope = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape).flatten(2)
        return total.scatter_add(2, where.flatten(2), (gradient * slope).flatten(2)).view(ctx.shape), None, None, None
