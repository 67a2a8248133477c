"""Networks whose BatchNorm is in their neighbours' weights: in evaluation it is linear by channel.

What follows a convolution goes into that one's weights: gradients need less time and memory. What precedes a ReLU and
a convolution of one pixel, as in a DenseNet, can go forward into that one, and the ReLU becomes a bound that is
shifted: with y = s x + b, ReLU(y) = s max(x, -b/s) + b where s > 0, and with min where s < 0. Rules of relevance then
see one linear layer where there is one. What can go neither way stays. The outputs are the same to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules import batchnorm

from chextools.models.canonical import Canonical

_FARTHEST = 1e12  # of a bound: a channel that would need another is as good as constant


class Bound(nn.Module):
    """x, but at least `lower` and at most `upper` by channel: x [N, C, ...]."""

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: Tensor, upper: Tensor):
        super().__init__()
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, _by_channel(self.lower, x), _by_channel(self.upper, x))

    def inside(self, x: Tensor) -> Tensor:
        """Where the output is the input."""
        return (x > _by_channel(self.lower, x)) & (x < _by_channel(self.upper, x))


def fold(network: Canonical, *, forward: bool = False) -> fx.GraphModule:
    """The network with BatchNorm in its neighbours' weights; weights that do not change are shared.

    forward: also into layers that follow it, by which ReLUs become bounds.
    """
    graph: fx.Graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    result = fx.GraphModule(network, graph)
    with torch.no_grad():
        for node in list(graph.nodes):
            norm = _norm(result, node)
            if norm is not None and not _backward(result, node, norm) and forward:
                _forward(result, node, norm)
    graph.eliminate_dead_code()
    graph.lint()
    result.delete_all_unused_submodules()
    result.recompile()
    return result.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Norm:
    """BatchNorm as scale x + shift: float64 [C], for values of `dtype`."""

    scale: Tensor
    shift: Tensor
    dtype: torch.dtype


def _norm(network: fx.GraphModule, node: fx.Node) -> _Norm | None:
    """What a node does, if it is BatchNorm in evaluation, as a module or as a function."""
    if node.op == "call_module":
        norm = network.get_submodule(node.target)
        if not isinstance(norm, batchnorm._BatchNorm):  # noqa: SLF001 - the class of which torch makes its own
            return None
        if norm.running_mean is None or norm.running_var is None:
            return None
        return _as_norm(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    if node.op != "call_function" or node.target is not functional.batch_norm:
        return None
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, node.args)) | node.kwargs
    if given.get("training") or not isinstance(given.get("running_mean"), fx.Node) or not node.args:
        return None
    mean, variance, weight, bias = (_value(network, given.get(name)) for name in names[1:5])
    return None if mean is None or variance is None else _as_norm(mean, variance, weight, bias, given.get("eps", 1e-5))


def _as_norm(mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> _Norm:
    scale = (variance.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    if bias is not None:
        shift = shift + bias.double()
    return _Norm(scale, shift, mean.dtype)


def _value(network: fx.GraphModule, node: fx.Node | None) -> Tensor | None:
    if node is None:
        return None
    value = network
    for part in node.target.split("."):
        value = getattr(value, part)
    return value


def _backward(network: fx.GraphModule, node: fx.Node, norm: _Norm) -> bool:
    """Put the norm into the convolution or linear layer before it; whether that can be done."""
    before = node.args[0]
    layer = _linear(network, before)
    if layer is None or len(before.users) > 1:
        return False
    weight = layer.weight.double() * norm.scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    bias = norm.shift if layer.bias is None else norm.shift + norm.scale * layer.bias.double()
    _replace(network, before, _with(layer, weight, bias))
    node.replace_all_uses_with(node.args[0])
    network.graph.erase_node(node)
    return True


def _forward(network: fx.GraphModule, node: fx.Node, norm: _Norm) -> bool:
    """Put the norm through its ReLU into the layer of one pixel after that; whether that can be done.

    Averages may be between, as they keep constants, but nothing that pads with zeros.
    """
    relu = after = _only_user(node)
    if relu is None or not _is(network, relu, nn.ReLU):
        return False
    while (after := _only_user(after)) is not None and _keeps_constants(network, after):
        pass
    layer = None if after is None else _linear(network, after)
    if layer is None or layer.weight.shape[1] != len(norm.scale) or getattr(layer, "groups", 1) != 1:
        return False
    if isinstance(layer, nn.Conv2d) and layer.padding not in (0, (0, 0)):
        return False
    at = -norm.shift / norm.scale
    constant = ~(at.abs() < _FARTHEST)
    scale, shift = torch.where(constant, 0, norm.scale), torch.where(constant, norm.shift.relu(), norm.shift)
    infinity = torch.full_like(at, torch.inf)
    lower = torch.where(constant, 0, torch.where(scale > 0, at, -infinity)).to(norm.dtype)
    upper = torch.where(constant, 0, torch.where(scale > 0, infinity, at)).to(norm.dtype)
    weight = layer.weight.double()
    by_input = weight if weight.dim() == 2 else weight.sum((2, 3))
    bias = by_input @ shift + (0 if layer.bias is None else layer.bias.double())
    _replace(network, after, _with(layer, weight * scale.reshape(-1, *[1] * (weight.dim() - 2)), bias))
    _replace(network, relu, Bound(lower, upper))
    node.replace_all_uses_with(node.args[0])
    network.graph.erase_node(node)
    return True


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is(network: fx.GraphModule, node: fx.Node, kind: type | tuple[type, ...]) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(node.target), kind)


def _keeps_constants(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it only averages over positions, or drops those of a map of one."""
    if _is(network, node, nn.AvgPool2d):
        pool = network.get_submodule(node.target)
        return pool.padding in (0, (0, 0)) and not pool.ceil_mode and pool.divisor_override is None
    if _is(network, node, nn.AdaptiveAvgPool2d):
        return True
    return _is(network, node, nn.Flatten) or node.target in (torch.flatten, "flatten")


def _linear(network: fx.GraphModule, node: object) -> nn.Conv2d | nn.Linear | None:
    """The module of a node, if it is linear and used once."""
    if not isinstance(node, fx.Node) or not _is(network, node, (nn.Conv2d, nn.Linear)):
        return None
    if sum(other.target == node.target for other in network.graph.nodes if other.op == "call_module") > 1:
        return None
    return network.get_submodule(node.target)


def _with(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> nn.Conv2d | nn.Linear:
    """A layer with other weights, laid out in memory as its own are."""
    made: nn.Linear | nn.Conv2d
    if isinstance(layer, nn.Linear):
        made = nn.Linear(layer.in_features, layer.out_features, device="meta")
    else:
        made = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]  # pairs, as its class makes them
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            padding_mode=layer.padding_mode,
            device="meta",
        )
    layout = torch.empty_like(layer.weight).copy_(weight)
    made.weight, made.bias = nn.Parameter(layout), nn.Parameter(bias.to(layer.weight.dtype))
    return made


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _replace(network: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Have a node call another module, under a name of its own."""
    name = f"folded_{node.name}"
    network.add_submodule(name, module.eval())
    inputs = node.args[:1]
    with network.graph.inserting_before(node):
        new = network.graph.call_module(name, inputs)
    node.replace_all_uses_with(new)
    network.graph.erase_node(node)
