"""From a checkpoint's graph and tensors to the network, in the canonical form that saliency owns.

Nothing of where the network came from is imported: layers, norms, activations and pools become modules of torch's own
under the names of the graph, and so under the keys of the state dict; the rest stays an operator. What depends on
weights alone is computed once. Before any number is, all shapes are, without memory (torch's device "meta"): a graph
that would need more than networks do, or whose tensors do not fit each other, is refused there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from chextools.errors import InputError, LimitError
from chextools.models import operators
from chextools.models.canonical import Canonical, remove_unused
from chextools.models.graph import IMAGES, NetworkGraph, Node, Ref, Stored, Type
from chextools.models.shapes import shape_of

MAX_VALUES = 2**28  # numbers in what a node makes of one image: 1 GiB
MAX_OUTPUTS = 10_000
_CONSTANT_ROOM = 2**22  # numbers that a graph may compute from nothing, beside four times those that it stores
_MAX_LIST = 4096


class Norm(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the class of which torch makes its own three
    """BatchNorm in evaluation, of values [N, C, ...] of any number of dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        pass


def assemble(graph: NetworkGraph, tensors: Mapping[str, Tensor], channels: int, size: int) -> Canonical:
    """The network of images float32 [N, channels, size, size], in evaluation mode, its weights shared and frozen.

    Raises InputError, in one line, for an operator or argument that is not allowed, a tensor that is not there, shapes
    that do not fit each other, and for more memory than the checkpoint's own size justifies.
    """
    functions = {name: operators.resolved(name) for name in {node.operator for node in graph.nodes}}
    if absent := sorted(graph.keys() - tensors.keys()):
        raise InputError(f"its graph takes the tensor {absent[0]}, which it lacks")
    used = {key: _usable(tensors[key], key) for key in graph.keys()}
    with torch.inference_mode(False), torch.no_grad():
        shapes = _shapes(graph, functions, used, (1, channels, size, size))
        constants = _constants(graph, functions, used, shapes)
        network = _Assembly(graph, functions, used, constants, shapes).run()
    return network.eval().requires_grad_(False)


def _usable(tensor: object, key: str) -> Tensor:
    """A tensor that is what it says. Raises InputError for one that stands for more numbers than are stored."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise InputError(f"the tensor {key} is not a plain one")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"the tensor {key} says it has more numbers than there are")
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


# Shapes, without numbers


def _shapes(
    graph: NetworkGraph, functions: Mapping[str, Callable], tensors: Mapping[str, Tensor], images: tuple[int, ...]
) -> dict[str, Tensor]:
    """What each node makes of one image, on torch's device "meta", where a tensor is its shape and type."""
    device = torch.device("meta")
    stored = {key: torch.empty_like(tensor, device=device) for key, tensor in tensors.items()}
    made: dict[str, Any] = {IMAGES: torch.empty(images, device=device)}
    for node in graph.nodes:
        made[node.name] = _applied(node, functions[node.operator], made, stored, device)
        _check_room(node, made[node.name], MAX_VALUES)
    output = made[graph.output]
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[0] != 1 or output.shape[1] > MAX_OUTPUTS:
        raise InputError("its graph does not end in one row of outputs for an image")
    return made


def _applied(
    node: Node, function: Callable, made: Mapping[str, Any], stored: Mapping[str, Tensor], device: torch.device
) -> Any:
    """What a node makes. Raises InputError for whatever torch says of its arguments."""

    def value(argument: Any) -> Any:
        if isinstance(argument, Ref):
            return made[argument.node]
        if isinstance(argument, Stored):
            return stored[argument.key]
        if isinstance(argument, Type):
            return getattr(torch, argument.name)
        return [value(each) for each in argument] if isinstance(argument, tuple) else argument

    args = [value(each) for each in node.args]
    kwargs = {name: value(each) for name, each in node.kwargs.items()}
    if _has_device(function):
        kwargs["device"] = device
    if operators.base(node.operator) in operators.LISTS:
        _check_list(node, args)
    if node.operator in operators.INTEGERS and not all(type(each) is int for each in args):
        raise InputError(f"its graph is damaged: {node.name} is arithmetic of what are no whole numbers")
    try:
        if device.type == "meta":
            shape = shape_of(operators.base(node.operator), _by_name(function, args, kwargs))
            if shape is not None:
                return shape
        return function(*args, **kwargs)
    except MemoryError:
        raise
    except Exception as error:  # torch raises nearly anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"its graph is damaged: {node.name} ({node.operator}): {said[:200]}") from None


def _check_list(node: Node, args: list) -> None:
    """Raise LimitError for an operator that would cut a tensor into very many."""
    if not args or not isinstance(args[0], Tensor) or max(args[0].shape, default=0) > _MAX_LIST * 4:
        raise LimitError(f"its graph is damaged: {node.name} cuts up what is very long")


def _check_room(node: Node, value: Any, limit: int) -> None:
    for each in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(each, Tensor) and (each.numel() > limit or max(each.shape, default=0) > limit):
            raise LimitError(f"its graph needs {each.numel()} numbers at {node.name}; at most {limit} are allowed")
        if isinstance(each, int) and abs(each) > 2**62:
            raise LimitError(f"its graph has a number of more than 62 bits at {node.name}")


@cache
def _has_device(function: Callable) -> bool:
    schema = getattr(function, "_schema", None)
    return schema is not None and any(argument.name == "device" for argument in schema.arguments)


# What depends on weights alone


def _constants(
    graph: NetworkGraph, functions: Mapping[str, Callable], tensors: Mapping[str, Tensor], shapes: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of nodes that do not depend on the images."""
    made: dict[str, Any] = {}
    room = 4 * sum(tensor.numel() for tensor in tensors.values()) + _CONSTANT_ROOM
    for node in graph.nodes:
        if all(isinstance(use, Stored) or use.node in made for use in node.uses()):
            _check_room(node, shapes[node.name], room)
            value = shapes[node.name]
            parts = value if isinstance(value, (list, tuple)) else [value]
            room -= sum(part.numel() for part in parts if isinstance(part, Tensor))
            made[node.name] = _applied(node, functions[node.operator], made, tensors, torch.device("cpu"))
    return made


# Modules


class _Assembly:
    def __init__(
        self,
        graph: NetworkGraph,
        functions: Mapping[str, Callable],
        tensors: Mapping[str, Tensor],
        constants: Mapping[str, Any],
        shapes: Mapping[str, Any],
    ):
        self.source, self.functions, self.tensors = graph, functions, tensors
        self.constants, self.shapes = constants, shapes
        self.root, self.graph = nn.Module(), fx.Graph()
        self.made: dict[str, fx.Node] = {}
        self.stored: dict[object, fx.Node] = {}

    def run(self) -> Canonical:
        with self.graph.inserting_before():
            self.made[IMAGES] = self.graph.placeholder(IMAGES)
        for node in self.source.nodes:
            if node.name not in self.constants:
                made = self.made[node.name] = self._made(node)
                shape = self.shapes[node.name]
                made.meta["shape"] = tuple(shape.shape) if isinstance(shape, Tensor) else None
        if self.source.output not in self.made:
            raise InputError("its graph does not look at the images")
        self.graph.output(self.made[self.source.output])
        remove_unused(self.graph)
        self.graph.lint()
        network = Canonical(self.root, self.graph, "Network")
        alive = {node: place for place, node in enumerate(self.graph.nodes)}
        layers = {path: self.made[name] for path, name in self.source.layers.items() if name in self.made}
        layers |= {name: made for name, made in self.made.items() if name != IMAGES}
        layers = {path: node for path, node in layers.items() if node in alive}
        network.layer_nodes = {
            path: node.name for path, node in sorted(layers.items(), key=lambda item: alive[item[1]])
        }
        network.family = self.source.family
        network.outputs = self.shapes[self.source.output].shape[1]
        network.default_layer = self.source.layer if self.source.layer in network.layer_nodes else None
        return network

    def _made(self, node: Node) -> fx.Node:
        named = _by_name(self.functions[node.operator], node.args, node.kwargs)
        maker = _MAKERS.get(operators.base(node.operator))
        module = maker(self, named) if maker is not None else None
        if module is not None:
            x = self._value(named["input"] if "input" in named else named["self"])
            return self.graph.call_module(self._put(node.name, module), (x,))
        args = tuple(self._value(each) for each in node.args)
        kwargs = {name: self._value(each) for name, each in node.kwargs.items()}
        family = operators.base(node.operator)
        if node.operator in _ARITHMETIC and not kwargs:
            return self.graph.call_function(_ARITHMETIC[node.operator], args)
        if family in ("view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "expand", "chunk"):
            return self.graph.call_method("reshape" if family == "view" else family, args, kwargs)
        if family == "flatten":
            return self.graph.call_function(torch.flatten, args, kwargs)
        if family == "cat":
            return self.graph.call_function(torch.cat, args, kwargs)
        if node.operator == "mean.dim" and not {"dtype"} & kwargs.keys():
            return self.graph.call_method("mean", args, kwargs)
        if node.operator == operators.SIZE:
            return self.graph.call_method("size", args, kwargs)
        return self.graph.call_function(self.functions[node.operator], args, kwargs)

    def tensor(self, argument: Any) -> Tensor | None:
        """An argument that is a tensor known now; None for None and for what depends on the images."""
        if isinstance(argument, Stored):
            return self.tensors[argument.key]
        value = self.constants.get(argument.node) if isinstance(argument, Ref) else None
        return value if isinstance(value, Tensor) else None

    def known(self, argument: Any) -> bool:
        return argument is None or self.tensor(argument) is not None

    def _value(self, argument: Any) -> Any:
        """An argument for the new graph; known tensors become buffers."""
        if isinstance(argument, tuple):
            return [self._value(each) for each in argument]
        if isinstance(argument, Type):
            return getattr(torch, argument.name)
        if isinstance(argument, Ref) and argument.node in self.made:
            return self.made[argument.node]
        if not isinstance(argument, (Ref, Stored)):
            return argument
        if isinstance(argument, Ref) and not isinstance(self.constants[argument.node], Tensor):
            return self.constants[argument.node]
        if argument not in self.stored:
            name = argument.key if isinstance(argument, Stored) else argument.node
            value = self.tensor(argument)
            assert value is not None
            path = self._place(name)
            parent, _, leaf = path.rpartition(".")
            self.root.get_submodule(parent).register_buffer(leaf, value)
            self.stored[argument] = self.graph.get_attr(path)
        return self.stored[argument]

    def _put(self, name: str, module: nn.Module) -> str:
        path = self._place(name)
        parent, _, leaf = path.rpartition(".")
        self.root.get_submodule(parent).add_module(leaf, module.eval())
        return path

    def _place(self, name: str) -> str:
        """A free path for a name, whose folders exist: NAME, else NAME_1 and so on."""
        parent, folders = self.root, []
        *wanted, leaf = [part if part.isidentifier() or part.isdigit() else "part" for part in name.split(".")]
        for folder in wanted:
            while not isinstance(getattr(parent, folder, nn.Module()), nn.Module):
                folder += "_"
            if folder not in parent._modules:  # noqa: SLF001 - as torch's own code asks
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
            folders.append(folder)
        free, number = leaf, 0
        while hasattr(parent, free):
            number += 1
            free = f"{leaf}_{number}"
        return ".".join([*folders, free])


_ARITHMETIC: dict[str, Callable] = {
    "add.Tensor": operator.add,
    "sub.Tensor": operator.sub,
    "mul.Tensor": operator.mul,
    "div.Tensor": operator.truediv,
    "add.Scalar": operator.add,
    "sub.Scalar": operator.sub,
    "mul.Scalar": operator.mul,
    "div.Scalar": operator.truediv,
    **operators.INTEGERS,
    operators.GETITEM: operator.getitem,
}


def _by_name(function: Callable, args: Sequence, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by ATen's names for them, defaults included."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        return {}
    found = {argument.name: argument.default_value for argument in schema.arguments}
    return found | dict(zip(found, args)) | dict(kwargs)


def _parameter(tensor: Tensor | None) -> nn.Parameter | None:
    return None if tensor is None else nn.Parameter(tensor, requires_grad=False)


def _with_weights(module: Any, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
    module.weight, module.bias = _parameter(weight), _parameter(bias)
    return module


def _convolution(assembly: _Assembly, given: dict) -> nn.Module | None:
    weight, bias = assembly.tensor(given["weight"]), assembly.tensor(given["bias"])
    if weight is None or not assembly.known(given["bias"]):
        return None
    padding = given["padding"] if isinstance(given["padding"], str) else _pair(given["padding"])
    module = nn.Conv2d(
        weight.shape[1] * given["groups"],
        weight.shape[0],
        _pair(tuple(weight.shape[2:])),
        _pair(given["stride"]),
        padding,
        _pair(given["dilation"]),
        given["groups"],
        device="meta",
    )
    return _with_weights(module, weight, bias)


def _linear(assembly: _Assembly, given: dict) -> nn.Module | None:
    weight, bias = assembly.tensor(given["weight"]), assembly.tensor(given["bias"])
    if weight is None or weight.dim() != 2 or not assembly.known(given["bias"]):
        return None
    return _with_weights(nn.Linear(weight.shape[1], weight.shape[0], device="meta"), weight, bias)


def _batch_norm(assembly: _Assembly, given: dict) -> nn.Module | None:
    weight, bias, mean, variance = (
        assembly.tensor(given[name]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    if given["training"]:
        raise InputError("its graph has a batch norm that is still training")
    if mean is None or variance is None or not assembly.known(given["weight"]) or not assembly.known(given["bias"]):
        return None
    module = Norm(len(mean), eps=given["eps"], device="meta")
    module.running_mean, module.running_var = mean, variance
    module.num_batches_tracked = None
    return _with_weights(module, weight, bias)


def _layer_norm(assembly: _Assembly, given: dict) -> nn.Module | None:
    if not assembly.known(given["weight"]) or not assembly.known(given["bias"]):
        return None
    module = nn.LayerNorm(list(given["normalized_shape"]), eps=given["eps"], device="meta")
    return _with_weights(module, assembly.tensor(given["weight"]), assembly.tensor(given["bias"]))


def _group_norm(assembly: _Assembly, given: dict) -> nn.Module | None:
    weight = assembly.tensor(given["weight"])
    if weight is None or not assembly.known(given["bias"]):
        return None
    module = nn.GroupNorm(given["num_groups"], len(weight), eps=given["eps"], device="meta")
    return _with_weights(module, weight, assembly.tensor(given["bias"]))


def _hardtanh(_: _Assembly, given: dict) -> nn.Module:
    bounds = (given["min_val"], given["max_val"])
    return nn.ReLU6() if bounds == (0, 6) else nn.Hardtanh(*bounds)


def _max_pool(_: _Assembly, given: dict) -> nn.Module:
    size = _pair(given["kernel_size"])
    stride = _pair(given["stride"]) if given["stride"] else size
    return nn.MaxPool2d(size, stride, _pair(given["padding"]), _pair(given["dilation"]), ceil_mode=given["ceil_mode"])


def _avg_pool(_: _Assembly, given: dict) -> nn.Module:
    size = _pair(given["kernel_size"])
    stride = _pair(given["stride"]) if given["stride"] else size
    return nn.AvgPool2d(
        size, stride, _pair(given["padding"]), given["ceil_mode"], given["count_include_pad"], given["divisor_override"]
    )


def _pair(value: Any) -> tuple[int, int]:
    """ATen's [a, b], or [a] for both."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    if len(values) == 1:
        values = (values[0], values[0])
    if len(values) != 2 or not all(isinstance(each, int) for each in values):
        raise InputError("its graph has a window that is not of two whole numbers")
    return values[0], values[1]


# None where the operator's arguments are not those of a module
_MAKERS: dict[str, Callable[[_Assembly, dict], nn.Module | None]] = {
    "conv2d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "relu": lambda *_: nn.ReLU(),
    "relu6": lambda *_: nn.ReLU6(),
    "silu": lambda *_: nn.SiLU(),
    "mish": lambda *_: nn.Mish(),
    "sigmoid": lambda *_: nn.Sigmoid(),
    "tanh": lambda *_: nn.Tanh(),
    "hardswish": lambda *_: nn.Hardswish(),
    "hardsigmoid": lambda *_: nn.Hardsigmoid(),
    "softplus": lambda _, given: nn.Softplus(given["beta"], given["threshold"]),
    "elu": lambda _, given: nn.ELU(given["alpha"]) if given["scale"] == given["input_scale"] == 1 else None,
    "selu": lambda *_: nn.SELU(),
    "gelu": lambda _, given: nn.GELU(given["approximate"]),
    "leaky_relu": lambda _, given: nn.LeakyReLU(given["negative_slope"]),
    "hardtanh": _hardtanh,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": lambda _, given: nn.AdaptiveAvgPool2d(_pair(given["output_size"])),
}
