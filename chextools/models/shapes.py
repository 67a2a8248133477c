"""What shape an operator makes of others, for those that networks are mostly made of.

torch can say it of any operator, on its device "meta", but imports sympy and its compiler to do so, which takes longer
than torch itself. A tensor on "meta" stands for a shape and a type here, too; views of one cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[dict[str, Any]], Tensor]


def _empty(shape: Sequence[int], like: Tensor | torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype if isinstance(like, Tensor) else like, device="meta")


def _together(*shapes: Sequence[int]) -> list[int]:
    """The shape that several broadcast to; torch's own function imports sympy."""
    found: list[int] = []
    for sides in zip_longest(*(tuple(shape)[::-1] for shape in shapes), fillvalue=1):
        more = {side for side in sides if side != 1}
        _need(len(more) <= 1, f"shapes {[tuple(shape) for shape in shapes]} do not fit each other")
        found.append(more.pop() if more else 1)
    return found[::-1]


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _same(given: dict[str, Any]) -> Tensor:
    x = given["input"] if "input" in given else given["self"]
    _need(isinstance(x, Tensor), "not a tensor")
    return _empty(x.shape, x)


def _broadcast(given: dict[str, Any]) -> Tensor:
    a, b = given["self"], given["other"]
    _need(isinstance(a, Tensor) and isinstance(b, (Tensor, int, float)), "not tensors")
    shape = _together(a.shape, b.shape) if isinstance(b, Tensor) else a.shape
    return _empty(shape, torch.result_type(a, b))


def _quotient(given: dict[str, Any]) -> Tensor:
    found = _broadcast(given)
    return found if found.is_floating_point() else _empty(found.shape, torch.float32)


def _compared(given: dict[str, Any]) -> Tensor:
    return _empty(_broadcast(given).shape, torch.bool)


def _cat(given: dict[str, Any]) -> Tensor:
    parts, axis = given["tensors"], given["dim"]
    first = parts[0]
    axis = axis % first.dim()
    rest = [[side for k, side in enumerate(part.shape) if k != axis] for part in parts]
    _need(all(each == rest[0] for each in rest), "cat of other shapes")
    shape = list(first.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return _empty(shape, first)


def _stack(given: dict[str, Any]) -> Tensor:
    parts = given["tensors"]
    _need(len({part.shape for part in parts}) == 1, "stack of other shapes")
    shape = list(parts[0].shape)
    shape.insert(given["dim"] % (len(shape) + 1), len(parts))
    return _empty(shape, parts[0])


def _mean(given: dict[str, Any]) -> Tensor:
    x, axes = given["self"], given.get("dim")
    axes = range(x.dim()) if axes is None or (isinstance(axes, (list, tuple)) and not axes) else axes
    axes = {axis % x.dim() for axis in ([axes] if isinstance(axes, int) else axes)}
    shape = [1 if k in axes else side for k, side in enumerate(x.shape) if given.get("keepdim") or k not in axes]
    return _empty(shape, x)


def _convolution(given: dict[str, Any]) -> Tensor:
    x, weight, bias, groups = given["input"], given["weight"], given["bias"], given["groups"]
    _need(x.dim() == weight.dim() == 4, "not of images")
    _need(groups > 0 and x.shape[1] == weight.shape[1] * groups, f"{x.shape[1]} channels do not fit {weight.shape}")
    _need(weight.shape[0] % groups == 0, "groups of unequal size")
    _need(bias is None or tuple(bias.shape) == (weight.shape[0],), "a bias of another size")
    padding, step, spread = given["padding"], _two(given["stride"]), _two(given["dilation"])
    if isinstance(padding, str):
        _need(padding in ("same", "valid") and (padding == "valid" or step == (1, 1)), "no such padding")
        sides = x.shape[2:]
        if padding == "valid":
            sides = [_steps(s, k, t, 0, d) for s, k, t, d in zip(sides, weight.shape[2:], step, spread)]
    else:
        each = zip(x.shape[2:], weight.shape[2:], step, _two(padding), spread)
        sides = [_steps(s, k, t, p, d) for s, k, t, p, d in each]
    return _empty([x.shape[0], weight.shape[0], *sides], x)


def _pool(given: dict[str, Any]) -> Tensor:
    x = given["self"]
    _need(x.dim() in (3, 4), "not of images")
    window = _two(given["kernel_size"])
    step = _two(given["stride"]) if given["stride"] else window
    spread, padding = _two(given.get("dilation", 1)), _two(given["padding"])
    each = zip(x.shape[-2:], window, step, padding, spread)
    sides = [_steps(s, k, t, p, d, given["ceil_mode"]) for s, k, t, p, d in each]
    return _empty([*x.shape[:-2], *sides], x)


def _adaptive(given: dict[str, Any]) -> Tensor:
    x = given["self"]
    return _empty([*x.shape[:-2], *_two(given["output_size"])], x)


def _steps(side: int, window: int, step: int, padding: int, spread: int, ceil: bool = False) -> int:
    """How many windows fit along a side."""
    _need(window > 0 and step > 0 and spread > 0 and padding >= 0, "a window of no size")
    room = side + 2 * padding - spread * (window - 1) - 1
    found = (-(-room // step) if ceil else room // step) + 1
    if ceil and (found - 1) * step >= side + padding:
        found -= 1
    _need(found > 0, "a window larger than the image")
    return found


def _two(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    values = values * 2 if len(values) == 1 else values
    _need(len(values) == 2 and all(type(each) is int for each in values), "not two whole numbers")
    return values[0], values[1]


def _linear(given: dict[str, Any]) -> Tensor:
    x, weight, bias = given["input"], given["weight"], given["bias"]
    _need(weight.dim() == 2 and x.shape[-1] == weight.shape[1], f"{tuple(x.shape)} does not fit {tuple(weight.shape)}")
    _need(bias is None or tuple(bias.shape) == (weight.shape[0],), "a bias of another size")
    return _empty([*x.shape[:-1], weight.shape[0]], x)


def _matmul(given: dict[str, Any]) -> Tensor:
    a = given["self"]
    b = given["other"] if "other" in given else given["mat2"]
    _need(a.dim() >= 2 and b.dim() >= 2 and a.shape[-1] == b.shape[-2], f"{tuple(a.shape)} x {tuple(b.shape)}")
    return _empty([*_together(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]], a)


def _attention(given: dict[str, Any]) -> Tensor:
    query, key, value = given["query"], given["key"], given["value"]
    _need(query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2], "attention of other shapes")
    _need(not given["dropout_p"], "attention that drops at random")
    return _empty([*query.shape[:-1], value.shape[-1]], query)


def _batch_norm(given: dict[str, Any]) -> Tensor:
    names = ("weight", "bias", "running_mean", "running_var")
    _of_length(given, names, given["input"].shape[1:2])
    return _same(given)


def _layer_norm(given: dict[str, Any]) -> Tensor:
    shape = tuple(given["normalized_shape"])
    _need(tuple(given["input"].shape[-len(shape) :]) == shape, "a norm of another size")
    _of_length(given, ("weight", "bias"), shape)
    return _same(given)


def _group_norm(given: dict[str, Any]) -> Tensor:
    channels = given["input"].shape[1]
    _need(given["num_groups"] > 0 and channels % given["num_groups"] == 0, "groups of unequal size")
    _of_length(given, ("weight", "bias"), (channels,))
    return _same(given)


def _of_length(given: dict[str, Any], names: Sequence[str], shape: Sequence[int]) -> None:
    for name in names:
        _need(given[name] is None or tuple(given[name].shape) == tuple(shape), f"a {name} of another size")


def _padded(given: dict[str, Any]) -> Tensor:
    x, pad = given["self"], given["pad"]
    _need(len(pad) % 2 == 0 and len(pad) <= 2 * x.dim(), "a padding of another size")
    shape = list(x.shape)
    for k in range(len(pad) // 2):
        shape[-1 - k] += pad[2 * k] + pad[2 * k + 1]
    _need(min(shape) >= 0, "a padding that takes more than there is")
    return _empty(shape, x)


def _filled(given: dict[str, Any]) -> Tensor:
    return _empty(_together(given["self"].shape, given["mask"].shape), given["self"])


def _new(given: dict[str, Any]) -> Tensor:
    return _empty(given["size"], given.get("dtype") or given["self"])


_SAME = (
    "relu relu6 silu gelu mish sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu elu selu celu softplus softmax "
    "log_softmax roll neg abs square sqrt rsqrt exp clamp pow clone contiguous flip zeros_like ones_like reciprocal "
    "erf slice_scatter select_scatter"
).split()
RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(("add", "sub", "mul", "maximum", "minimum"), _broadcast),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compared),
    **dict.fromkeys(("mean", "amax", "amin", "sum"), _mean),
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), _pool),
    **dict.fromkeys(("new_zeros", "new_ones"), _new),
    "div": _quotient,
    "cat": _cat,
    "stack": _stack,
    "conv2d": _convolution,
    "adaptive_avg_pool2d": _adaptive,
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "pad": _padded,
    "constant_pad_nd": _padded,
    "masked_fill": _filled,
}


def shape_of(family: str, given: dict[str, Any]) -> Tensor | None:
    """What an operator makes of tensors on "meta", by ATen's names of its arguments; None where there is no rule.

    Raises ValueError, or whatever Python does, for arguments that do not fit each other.
    """
    rule = RULES.get(family)
    if rule is None or any(
        isinstance(given.get(name), Tensor) and given[name].dim() > 16 for name in ("self", "input")
    ):
        return None
    if family == "pow" and not isinstance(given.get("exponent"), (int, float)):
        return None
    found = rule(given)
    if math.prod(found.shape) < 0:
        raise ValueError("a shape that is negative")
    return found
