"""The operators that a graph may name: functions of ATen, torch's own library, that only compute.

None of them writes to its inputs, reads or writes a file, draws at random, or makes a shape that depends on values. An
operator is named as in ATen, with its overload where that is not "default": "conv2d", "add.Tensor". Beside them stand
`getitem`, one of several results, and arithmetic of whole numbers, for shapes: `int.add` and so on.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

from chextools.errors import InputError

if TYPE_CHECKING:
    from torch import fx

INTEGERS: dict[str, Callable] = {
    "int.add": operator.add,
    "int.sub": operator.sub,
    "int.mul": operator.mul,
    "int.floordiv": operator.floordiv,
    "int.mod": operator.mod,
}
GETITEM = "getitem"
SIZE = "sym_size.int"

# Results that are lists, whose length a shape decides.
LISTS = frozenset("chunk split split_with_sizes tensor_split unbind".split())

ALLOWED = LISTS | frozenset(
    (
        # layers
        "conv1d conv2d conv3d conv_transpose2d linear addmm baddbmm matmul mm bmm einsum batch_norm "
        "layer_norm group_norm instance_norm rms_norm max_pool2d avg_pool2d adaptive_avg_pool2d "
        "adaptive_max_pool2d avg_pool1d adaptive_avg_pool1d scaled_dot_product_attention softmax "
        "log_softmax embedding upsample_bilinear2d upsample_nearest2d upsample_bicubic2d "
        # activations
        "relu relu6 elu selu celu gelu silu mish hardtanh hardswish hardsigmoid leaky_relu prelu sigmoid tanh "
        "softplus log_sigmoid "
        # arithmetic
        "add sub rsub mul div neg abs pow square sqrt rsqrt exp exp2 expm1 log log2 log1p reciprocal sin cos "
        "erf floor ceil round sign clamp clamp_min clamp_max maximum minimum where lerp addcmul addcdiv "
        "floor_divide remainder eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and "
        "bitwise_or bitwise_not isnan isinf nan_to_num "
        # over dimensions
        "sum mean amax amin max min prod any all cumsum std var var_mean std_mean norm linalg_vector_norm "
        "logsumexp argmax argmin "
        # shapes
        "view reshape flatten unflatten transpose permute t swapaxes movedim unsqueeze squeeze expand "
        "expand_as broadcast_to repeat tile cat concat stack slice select narrow index index_select gather "
        "roll flip rot90 pad constant_pad_nd reflection_pad2d replication_pad2d pixel_shuffle pixel_unshuffle "
        "channel_shuffle im2col slice_scatter select_scatter masked_fill tril triu diagonal meshgrid unfold "
        "view_as reshape_as type_as to _to_copy "
        # made of nothing
        "zeros ones full arange linspace scalar_tensor eye zeros_like ones_like full_like new_zeros new_ones "
        "new_full fill "
    ).split()
)


def base(name: str) -> str:
    """An operator's name without its overload."""
    return name.partition(".")[0]


def is_allowed(name: str) -> bool:
    """Whether it is of the list; of overloads that write to what they are given `resolved` takes none."""
    return name in INTEGERS or name in (GETITEM, SIZE) or base(name) in ALLOWED


def resolved(name: str) -> Callable:
    """The function of an operator. Raises InputError for one that is not of the list, or that this torch lacks."""
    import torch

    if not is_allowed(name):
        raise InputError(f"its graph has the operator {name[:80]!r}, which is not of those that a network may have")
    if name in INTEGERS:
        return INTEGERS[name]
    if name == GETITEM:
        return operator.getitem
    family, _, overload = name.partition(".")
    try:
        found = getattr(getattr(torch.ops.aten, family), overload or "default")
    except (AttributeError, RuntimeError):
        raise InputError(f"its graph has the operator {name[:80]!r}, which torch {torch.__version__} lacks") from None
    if found._schema.is_mutable:  # noqa: SLF001 - torch has no other name for it
        raise InputError(f"its graph has the operator {name[:80]!r}, which writes to what it is given")
    return found


def name_of(function: object) -> str:
    """The name of a function in a graph of torch.export: ATen's, or `int.NAME` of Python's own."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        plain = getattr(function, "__name__", str(function))
        return plain if plain == GETITEM else f"int.{plain}"
    library, _, family = schema.name.partition("::")
    if library not in ("aten", "prims"):
        return schema.name
    return f"{family}.{schema.overload_name}" if schema.overload_name else family


def called(node: fx.Node) -> str:
    """What a node calls, without library and overload: "conv2d", "add"."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return schema.name.rpartition("::")[2]
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
