"""What DeepLIFT and LRP have in common: what a network is made of, and gradients that are replaced by others.

Both go back from a logit to the input as gradients do, but for another slope here and there, so that autograd does the
work: `Slope` and `Winners` give a known value and the slope that is wanted. `Rules` runs a network node by node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.nn.modules import batchnorm

from chextools.errors import InputError
from chextools.models.folded import Bound
from chextools.models.narrowed import ACTIVATIONS
from chextools.models.operators import called

# What a node does: LAYER to MOVE are linear but for a bias, and so are those of which one side alone depends on the
# image. The others are not: of one map each (ACTIVATION, MAXIMUM, the norms, LENGTH, SOFTMAX), of two, or of three.
LAYER, AVERAGE, NORM, SUM, DIFFERENCE, SCALE, MOVE = "layer average norm sum difference scale move".split()
MAXIMUM, ACTIVATION, LAYER_NORM, GROUP_NORM, SOFTMAX = "maximum activation layer-norm group-norm softmax".split()
PRODUCT, QUOTIENT, MATMUL, ATTENTION, LENGTH = "product quotient matmul attention length".split()

_MODULES: dict[str, tuple[type, ...]] = {
    LAYER: (nn.Conv2d, nn.Linear),
    AVERAGE: (nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    NORM: (batchnorm._BatchNorm,),  # noqa: SLF001 - the class of which torch makes its own
    MAXIMUM: (nn.MaxPool2d,),
    LAYER_NORM: (nn.LayerNorm,),
    GROUP_NORM: (nn.GroupNorm,),
    SOFTMAX: (nn.Softmax,),
    ACTIVATION: (*ACTIVATIONS, Bound),
    MOVE: (nn.Flatten, nn.Identity),
}
_MOVES = frozenset(
    (
        "cat concat stack flatten unflatten reshape view permute transpose t swapaxes movedim unsqueeze squeeze expand "
        "expand_as broadcast_to repeat chunk split split_with_sizes tensor_split unbind getitem select slice narrow "
        "index index_select roll flip rot90 pad constant_pad_nd contiguous clone to size getattr floordiv masked_fill "
        "slice_scatter select_scatter pixel_shuffle pixel_unshuffle upsample_bilinear2d upsample_nearest2d "
        "upsample_bicubic2d"
    ).split()
)
_OF_SEVERAL = frozenset("cat concat stack slice_scatter select_scatter expand_as".split())
WITH_CONSTANTS = _OF_SEVERAL | {"masked_fill", "pad", "constant_pad_nd", "where"}  # what moves, where these may be
_MADE = frozenset("new_zeros new_ones new_full zeros_like ones_like full_like".split())  # of a shape alone
_AVERAGES = frozenset("mean sum".split())
_ELEMENTWISE = frozenset(
    "exp sqrt rsqrt tanh sigmoid erf square reciprocal log abs clamp clamp_min clamp_max softplus elu silu".split()
)
_PAIRS = {"add": SUM, "sub": DIFFERENCE, "rsub": DIFFERENCE, "mul": PRODUCT, "div": QUOTIENT, "truediv": QUOTIENT}
_MATMULS = frozenset("matmul bmm mm einsum".split())
_GATES = (nn.Sigmoid, nn.Hardsigmoid)
_GATING = ("sigmoid", "hardsigmoid", "rsqrt")  # the last divides by a deviation


def kinds(network: fx.GraphModule) -> dict[fx.Node, str | None]:
    """What each node of the graph does; None for what neither method has a rule for."""
    found: dict[fx.Node, str | None] = {}
    numbers: set[fx.Node] = set()
    fixed: set[fx.Node] = set()
    for node in network.graph.nodes:
        inputs = node.all_input_nodes
        if node.op in ("placeholder", "output"):
            found[node] = MOVE
        elif _is_number(node, numbers):
            numbers.add(node)
            found[node] = MOVE
        elif (
            node.op == "get_attr"
            or called(node) in _MADE
            or (inputs and all(each in fixed or each in numbers for each in inputs))
        ):
            fixed.add(node)  # such as a class token, once for each image
            found[node] = MOVE
        else:
            moving = [each for each in inputs if each not in fixed and each not in numbers]
            found[node] = _kind(network, node, len(moving), fixed | numbers)
    return found


def _is_number(node: fx.Node, numbers: set[fx.Node]) -> bool:
    """Whether it is a size, or made of sizes."""
    name = called(node)
    if name in ("size", "sym_size") or (name == "getattr" and node.args[1:] == ("shape",)):
        return True
    inputs = node.all_input_nodes
    return node.op == "call_function" and bool(inputs) and all(each in numbers for each in inputs)


def _kind(network: fx.GraphModule, node: fx.Node, moving: int, fixed: set[fx.Node]) -> str | None:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return next((name for name, types in _MODULES.items() if isinstance(module, types)), None)
    name = called(node)
    if name == "scaled_dot_product_attention":
        return ATTENTION if moving == 3 and not node.args[5:] else None
    if name in _PAIRS:
        if moving > 1 or (moving == 1 and _same_twice(node)):
            return _PAIRS[name]
        divides = name in ("div", "truediv") and (not isinstance(node.args[0], fx.Node) or node.args[0] in fixed)
        if divides:
            return ACTIVATION
        return SUM if name == "add" and len(node.all_input_nodes) > 1 else SCALE
    if name in _MATMULS:
        if name == "einsum" and (len(node.args[1]) != 2 or node.args[1][0] is node.args[1][1]):
            return SCALE if len(node.args[1]) == 1 else None
        return MATMUL if moving > 1 or _same_twice(node) else SCALE
    if name == "linalg_vector_norm":
        return LENGTH if node.args[1:2] in ((), (2,)) and "dtype" not in node.kwargs and not node.args[4:] else None
    if name == "where":
        return MOVE if node.args and node.args[0] in fixed else None
    if name in _AVERAGES:
        return AVERAGE
    if name == "softmax":
        return SOFTMAX
    if name == "addcmul":
        return SCALE if moving == 1 else None
    if name in ("neg", "linear", "conv2d"):
        return SCALE if moving == 1 and (name == "neg" or node.args[1] in fixed) else None
    if name in _ELEMENTWISE or (name == "pow" and not isinstance(node.args[1], fx.Node)):
        return ACTIVATION
    return MOVE if name in _MOVES and (moving == 1 or name in _OF_SEVERAL) else None


def _same_twice(node: fx.Node) -> bool:
    return len(node.args) > 1 and isinstance(node.args[0], fx.Node) and node.args[0] is node.args[1]


def gates(network: fx.GraphModule) -> set[fx.Node]:
    """Sigmoids whose results only multiply, such as those of squeeze-and-excitation; and inverse roots."""
    known = kinds(network)

    def only_multiplies(node: fx.Node) -> bool:
        return bool(node.users) and all(
            known[user] == PRODUCT or (known[user] in (MOVE, SCALE) and user.op != "output" and only_multiplies(user))
            for user in node.users
        )

    return {node for node in network.graph.nodes if _is_gate(network, node) and only_multiplies(node)}


def _is_gate(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), _GATES)
    return called(node) in _GATING and node.op == "call_function"


def check(network: fx.GraphModule, family: str, without: tuple[type, ...] = ()) -> None:
    """Raise InputError where the network has something without a rule.

    without: activations that have none, unless they are gates.
    """
    known, open_gates = kinds(network), gates(network)
    for node in network.graph.nodes:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        unruly = isinstance(module, without) and node not in open_gates
        if known[node] is None or unruly:
            what = type(module).__name__ if module is not None else called(node)
            raise InputError(f"has no rule for {what}, which {family} has; choose another --method, such as ig")


class Rules(fx.Interpreter):
    """Runs a network [N, C, H, W] -> [N, outputs] with a rule for each kind of node; what has none runs as it is."""

    def __init__(self, network: fx.GraphModule):
        super().__init__(network)
        self.kinds = kinds(network)
        self.rules: dict[str, Callable[[fx.Node, tuple], Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        return self.run(images)

    def run_node(self, n: fx.Node) -> Any:
        rule = self.rules.get(self.kinds[n] or "")
        if rule is None:
            return super().run_node(n)
        return rule(n, self.fetch_args_kwargs_from_env(n)[0])

    def factors(self, node: fx.Node) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """The two sides of a matrix product, and how they are multiplied."""
        args, _ = self.fetch_args_kwargs_from_env(node)
        if called(node) == "einsum":
            return *args[1], lambda a, b: torch.einsum(args[0], a, b)
        return args[0], args[1], torch.matmul

    def value(self, node: fx.Node, *inputs: object) -> Tensor:
        """What the node makes of its inputs, the first of which may be replaced."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        return getattr(self, node.op)(node.target, (*inputs, *args[len(inputs) :]), kwargs)

    def with_inputs(self, node: fx.Node) -> dict[str, Any]:
        """The inputs of a norm, softmax or attention by name, of a module's those that it keeps, too."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if node.op == "call_module":
            module = self.fetch_attr(str(node.target))
            if isinstance(module, nn.LayerNorm):
                axes = tuple(range(-len(module.normalized_shape), 0))
                return {"x": args[0], "axes": axes, "weight": module.weight, "bias": module.bias, "eps": module.eps}
            if isinstance(module, nn.GroupNorm):
                given = {"weight": module.weight, "bias": module.bias, "eps": module.eps}
                return {"x": args[0], "groups": module.num_groups, **given}
            return {"x": args[0], "axis": module.dim}
        if called(node) == "linalg_vector_norm":
            given = dict(zip(("x", "ord", "dim", "keepdim"), args)) | kwargs
            axes = given.get("dim") or tuple(range(args[0].dim()))
            return {"x": args[0], "axes": axes, "keepdim": bool(given.get("keepdim"))}
        if called(node) == "softmax":
            return {"x": args[0], "axis": args[1] if len(args) > 1 else kwargs.get("dim", -1)}
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        return {**dict.fromkeys(names), **dict(zip(names, args)), **kwargs}


def scores_of_attention(given: dict[str, Any], query: Tensor, key: Tensor) -> tuple[float, Tensor | None]:
    """(what queries times keys are multiplied with, what is added to that: the mask, or None)."""
    scale = given.get("scale")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    return scale, mask


def may_hold(flags: Tensor) -> bool:
    """Whether any is true, which saves work where none is; of a GPU that it may be, as to ask would be to wait."""
    return flags.is_cuda or bool(flags.any())


def grouped(x: Tensor, groups: int) -> Tensor:
    """[N, C, ...] as [N, groups, everything else]."""
    return x.reshape(x.shape[0], groups, -1)


def by_channel(values: Tensor | None, x: Tensor) -> Tensor | float:
    """[C] so that it multiplies x [N, C, ...]; 1 where there is none."""
    return 1.0 if values is None else values.reshape(1, -1, *[1] * (x.dim() - 2))


def replaced(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value, whose gradient is that of the surrogate."""
    return Slope.apply(surrogate, value, torch.ones_like(value))


class Slope(Function):
    """A value that is said to be `slope` times x: apply(x, value, slope), all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        del x  # autograd's, for whom its gradient is
        ctx.save_for_backward(slope)
        return value.detach().view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


class Winners(Function):
    """The same of a pool: each output is said to be `slope` times one pixel of the input [N, C, H, W].

    apply(x, value, where, slope, pool), where: int64, which pixel, row by row; the last three [N, C, h, w]. Windows may
    overlap: what a pixel gets is summed in one order, also on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, where: Tensor, slope: Tensor, pool: nn.MaxPool2d) -> Tensor:
        ctx.save_for_backward(where, slope)
        ctx.shape, ctx.pool = x.shape, pool
        return value.detach().view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        where, slope = ctx.saved_tensors
        sides = (_pair(each) for each in (ctx.pool.kernel_size, ctx.pool.stride, ctx.pool.padding, ctx.pool.dilation))
        of_shape = gradient.new_zeros(()).expand(ctx.shape)  # all that is looked at
        total = torch.ops.aten.max_pool2d_with_indices_backward(
            (gradient * slope).contiguous(), of_shape, *sides, ctx.pool.ceil_mode, where.contiguous()
        )
        return total, None, None, None, None


def _pair(sides: int | tuple[int, int]) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else sides
