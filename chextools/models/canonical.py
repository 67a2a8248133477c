"""Networks in a form that attribution can own: every activation and pool a module used once, nothing in place.

torchvision reuses one ReLU module at several places (ResNet), calls activations and pools as functions (DenseNet,
Inception v3) and works in place, so hooks see other tensors than gradients do. Here the network is traced (torch.fx)
into a graph of modules under the same names, hence with the same state-dict keys, and the same results bit for bit.
The graph can be cut at any layer (`cut`), so that gradients flow from the logits to that layer and no further.

The caller's network is neither changed nor copied: both share their weights.
"""

from __future__ import annotations

import copy
import math
import operator
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chextools.errors import InputError
from chextools.models.narrowed import narrow
from chextools.tasks import hint

# Where class activation maps are made unless the user says otherwise, by the class of the network, of checkpoints of
# format 1: the last feature maps before the classifier, after their activation, as `layers.find_layer` finds them. VGG
# and AlexNet end in a pool, which would halve the resolution, so theirs is the activation before it. A vision
# transformer's output depends on its patches only through the last attention, so theirs is what enters it.
DEFAULT_LAYERS: dict[str, str | Callable[[Any], str]] = {
    "AlexNet": lambda model: _last_activation(model, "features"),
    "ConvNeXt": "features",
    "DenseNet": "relu",
    "EfficientNet": "features",
    "GoogLeNet": "inception5b",
    "Inception3": "Mixed_7c",
    "InceptionV4": "features",
    "MaxVit": lambda model: f"blocks.{len(model.blocks) - 1}",
    "MNASNet": "layers",
    "MobileNetV2": "features",
    "MobileNetV3": "features",
    "RegNet": "trunk_output",
    "ResNet": "layer4",
    "ShuffleNetV2": "conv5",
    "SqueezeNet": "features",
    "SwinTransformer": "permute",
    "VGG": lambda model: _last_activation(model, "features"),
    "VisionTransformer": lambda model: f"encoder.layers.encoder_layer_{len(model.encoder.layers) - 1}.ln_1",
}

_ACTIVATIONS: dict[object, Callable[[], nn.Module]] = {
    functional.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    functional.relu6: nn.ReLU6,
    functional.silu: nn.SiLU,
    functional.hardswish: nn.Hardswish,
    functional.hardsigmoid: nn.Hardsigmoid,
    functional.sigmoid: nn.Sigmoid,
    torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
}
_POOLS: dict[object, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    functional.max_pool2d: (
        nn.MaxPool2d,
        ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"),
    ),
    functional.avg_pool2d: (
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    functional.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, ("output_size",)),
}
_IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_METHODS_IN_PLACE = {"add_": "add", "sub_": "sub", "mul_": "mul", "div_": "div", "relu_": "relu", "sigmoid_": "sigmoid"}
# What is used several times without being the same computation twice, and what does nothing in evaluation.
_DROPS = (nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)
_DROP_NAMES = ("StochasticDepth", "DropPath")
_DROP_FUNCTIONS = (functional.dropout, functional.dropout2d, functional.dropout3d)


class _Tracer(fx.Tracer):
    """Remembers the node that each module's first output is, containers included: layers go by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, str] = {}

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.outputs.setdefault(self.path_of_module(m), result.node.name)
        return result

    def is_leaf_module(self, m: nn.Module, name: str) -> bool:
        return super().is_leaf_module(m, name) or type(m).__name__ in _DROP_NAMES


class Canonical(fx.GraphModule):
    """A network as `as_canonical` makes it.

    layer_nodes: the names that `cut` takes, in order of computation, and the node that each is the output of.
    family: the class of the network it was made from, such as "DenseNet".
    default_layer: where class activation maps are made, None where nobody has said.
    outputs: how many there are, where it was made from a graph.
    """

    layer_nodes: dict[str, str]
    family: str
    default_layer: str | None
    outputs: int


def as_canonical(model: nn.Module) -> Canonical:
    """The canonical form of a network: in evaluation mode, its weights shared and frozen.

    Raises InputError for a network whose computation depends on its data, which cannot be traced.
    """
    kind = type(model).__name__
    root = _unshared(model)
    tracer = _Tracer()
    try:
        graph = tracer.trace(root)
    except Exception as error:  # whatever a stranger's forward does with a proxy
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{kind} cannot be traced for saliency: {said[:200]}") from None
    outputs = _Rewriter(root, graph, tracer.outputs).run()
    result = Canonical(root, graph, kind)
    _keep_unused(root, result)
    position = {node.name: place for place, node in enumerate(graph.nodes)}
    result.layer_nodes = dict(sorted(outputs.items(), key=lambda item: position[item[1]]))
    result.family = kind
    default: str | None
    try:
        found = DEFAULT_LAYERS[kind]
        default = found if isinstance(found, str) else found(model)
    except (KeyError, AttributeError):  # a class of the same name from elsewhere
        default = None
    result.default_layer = default if default in result.layer_nodes else None
    return result.eval()


@dataclass(frozen=True)
class Cut:
    """A canonical network in two parts, cut at a layer.

    features: images float32 [N,3,H,W] -> the layer's output, and whatever else the rest needs.
    head: these values -> the network's output [N, outputs].
    layer: its name.
    linear: [outputs, C] where the head is a global average pool and one linear layer, else None.
    entries: linear layers that the layer's output goes into. tail: the head after these, of their outputs, which come
        last among what it takes.
    """

    features: Callable[[Tensor], tuple[Tensor, ...]]
    head: Callable[..., Tensor]
    layer: str
    linear: Tensor | None
    entries: tuple[nn.Linear, ...]
    tail: Callable[..., Tensor]


def cut(network: Canonical, layer: str | None = None) -> Cut:
    """The network cut at a layer, by default the last feature maps of its family.

    Raises InputError for a layer that it lacks.
    """
    layer = checked_layer(network, layer)
    target = next(node for node in network.graph.nodes if node.name == network.layer_nodes[layer])
    after = _descendants(target)
    output = next(node for node in network.graph.nodes if node.op == "output")
    if output not in after:
        raise InputError(f"{network.family}: its output does not depend on the layer {layer!r}")
    given = [target]
    for node in network.graph.nodes:
        if node in after:
            given += [n for n in node.all_input_nodes if n not in after and n not in given and n.op != "get_attr"]
    features: fx.Graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        if node not in after:
            copies[node] = features.node_copy(node, copies.__getitem__)
    features.output(tuple(copies[node] for node in given))
    remove_unused(features)
    head, copies = fx.Graph(), {}
    for node in given:
        copies[node] = head.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in network.graph.nodes:
        if node in after or (node.op == "get_attr" and node not in copies):
            copies[node] = head.node_copy(node, copies.__getitem__)
    remove_unused(head)
    head = narrow(network, head)
    entries, tail = _after_entries(network, head)
    return Cut(
        fx.GraphModule(network, features).eval(),
        fx.GraphModule(network, head).eval(),
        layer,
        _linear(network, target, output) if len(given) == 1 else None,
        entries,
        fx.GraphModule(network, tail).eval(),
    )


def _after_entries(network: Canonical, head: fx.Graph) -> tuple[tuple[nn.Linear, ...], fx.Graph]:
    """The linear layers that the head's first value goes into, and the head with their outputs for further values."""
    first, *_ = found = [node for node in head.nodes if node.op == "placeholder"]
    modules = {user: network.get_submodule(str(user.target)) for user in first.users if user.op == "call_module"}
    entries = {user: module for user, module in modules.items() if isinstance(module, nn.Linear)}
    tail, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in (*found, *entries):
        copies[node] = tail.placeholder(node.name)
    for node in head.nodes:
        if node not in copies:
            copies[node] = tail.node_copy(node, copies.__getitem__)
    return tuple(entries.values()), tail


def checked_layer(network: Canonical, layer: str | None) -> str:
    """The layer, or the network's default. Raises InputError, with the closest name, if there is none such."""
    if layer is None:
        if network.default_layer is None:
            raise InputError(f"{network.family} has no feature maps that could be found; name a layer with --layer")
        return network.default_layer
    if layer not in network.layer_nodes:
        names = ", ".join(name for name in network.layer_nodes if "." not in name)
        close = hint(layer, network.layer_nodes)
        raise InputError(f"{network.family} has no layer {layer!r}{close}; it has {names} and what is in them")
    return layer


# Making it


def _unshared(module: nn.Module) -> nn.Module:
    """A copy of a network that shares its weights, frozen, but no module, hook, mode or setting."""
    copies: dict[int, nn.Module] = {}

    def of(module: nn.Module) -> nn.Module:
        if id(module) in copies:
            return copies[id(module)]
        clone = copies[id(module)] = copy.copy(module)
        clone.__dict__["_parameters"] = OrderedDict(
            (name, None if p is None else nn.Parameter(_single(p), requires_grad=False))
            for name, p in module._parameters.items()  # noqa: SLF001 - a copy of a module is made of its parts
        )
        clone.__dict__["_buffers"] = OrderedDict(
            (name, None if buffer is None else _single(buffer))
            for name, buffer in module._buffers.items()  # noqa: SLF001
        )
        for key, value in module.__dict__.items():
            if key.endswith("_hooks") or key.endswith("_hooks_with_kwargs") or key.endswith("_hooks_always_called"):
                clone.__dict__[key] = type(value)()
        clone.__dict__["_modules"] = OrderedDict(
            (name, None if child is None else of(child))
            for name, child in module._modules.items()  # noqa: SLF001
        )
        if getattr(clone, "inplace", False) is True:
            vars(clone)["inplace"] = False
        return clone

    return of(module).eval()


def _single(tensor: Tensor) -> Tensor:
    """At least float32: gradients of half precision vanish."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _Rewriter:
    """Turns functions into modules, gives each use of an activation or pool its own, drops what does nothing."""

    def __init__(self, root: nn.Module, graph: fx.Graph, outputs: dict[str, str]):
        self.root, self.graph = root, graph
        self.node_of = {name: node for node in graph.nodes for name in [node.name]}
        self.outputs = {path: self.node_of[name] for path, name in outputs.items() if name in self.node_of}
        self.used: set[str] = set()

    def run(self) -> dict[str, str]:
        for node in list(self.graph.nodes):
            if node.op == "call_function":
                self._function(node)
            elif node.op == "call_method":
                self._method(node)
            elif node.op == "call_module":
                self._module(node)
        remove_unused(self.graph)
        self.graph.lint()
        alive = {node.name for node in self.graph.nodes}
        return {path: node.name for path, node in self.outputs.items() if node.name in alive and path}

    def _function(self, node: fx.Node) -> None:
        if node.target in _DROP_FUNCTIONS:
            self._bypass(node)
        elif node.target in _ACTIVATIONS:
            self._as_module(node, _ACTIVATIONS[node.target]())
        elif node.target is functional.leaky_relu:
            slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
            self._as_module(node, nn.LeakyReLU(slope))
        elif node.target is functional.gelu:
            self._as_module(node, nn.GELU(approximate=node.kwargs.get("approximate", "none")))
        elif node.target in _POOLS:
            make, names = _POOLS[node.target]
            settings = dict(zip(names, node.args[1:])) | {k: v for k, v in node.kwargs.items() if k in names}
            if not any(isinstance(value, fx.Node) for value in settings.values()):
                self._as_module(node, make(**settings))
        elif node.target in _IN_PLACE:
            node.target = _IN_PLACE[node.target]
        elif node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}

    def _method(self, node: fx.Node) -> None:
        node.target = _METHODS_IN_PLACE.get(node.target, node.target)
        if node.target in _ACTIVATIONS:
            self._as_module(node, _ACTIVATIONS[node.target]())
        elif node.target.endswith("_") and not node.target.startswith("_"):
            raise InputError(f"{type(self.root).__name__} works in place ({node.target}), which saliency cannot follow")

    def _module(self, node: fx.Node) -> None:
        module = self.root.get_submodule(node.target)
        if isinstance(module, _DROPS) or type(module).__name__ in _DROP_NAMES:
            self._bypass(node)
        elif node.target not in self.used:
            self.used.add(node.target)
        elif not any(True for _ in module.parameters()) and not any(True for _ in module.buffers()):
            node.target = self._add(node.target, copy.copy(module))
            self.outputs[node.target] = node

    def _as_module(self, node: fx.Node, module: nn.Module) -> None:
        with self.graph.inserting_before(node):
            new = self.graph.call_module(self._add(node.name, module), (node.args[0] if node.args else _input(node),))
        self.outputs.setdefault(new.target, new)
        self._replace(node, new)

    def _bypass(self, node: fx.Node) -> None:
        self._replace(node, node.args[0] if node.args else _input(node))

    def _replace(self, node: fx.Node, new: fx.Node) -> None:
        node.replace_all_uses_with(new)
        for path, of in self.outputs.items():
            if of is node:
                self.outputs[path] = new
        self.graph.erase_node(node)

    def _add(self, name: str, module: nn.Module) -> str:
        """Add a module under a free name: NAME, NAME_1, NAME_2 and so on."""
        folder, _, leaf = name.rpartition(".")
        parent = self.root.get_submodule(folder)
        free, number = leaf, 0
        while hasattr(parent, free):
            number += 1
            free = f"{leaf}_{number}"
        parent.add_module(free, module.eval())
        path = name[: len(name) - len(leaf)] + free
        self.used.add(path)
        return path


def _input(node: fx.Node) -> fx.Node:
    return node.kwargs["input"] if "input" in node.kwargs else node.kwargs["x"]


def _keep_unused(root: nn.Module, result: fx.GraphModule) -> None:
    """Add what has weights but is not used in evaluation, such as auxiliary classifiers, and keep constants of the
    trace out: the state dict has the same keys."""
    for name in result.state_dict().keys() - root.state_dict().keys():
        folder, _, leaf = name.rpartition(".")
        result.get_submodule(folder)._non_persistent_buffers_set.add(leaf)  # noqa: SLF001 - torch has no other way
    present = result.state_dict().keys()
    for key in root.state_dict():
        if key not in present:
            path, _, name = key.rpartition(".")
            parts = path.split(".") if path else []
            folders = [".".join(parts[: end + 1]) for end in range(len(parts))]
            missing = next((folder for folder in folders if not _has(result, folder)), None)
            if missing is not None:
                result.add_submodule(missing, root.get_submodule(missing))
            else:
                source, target = root.get_submodule(path), result.get_submodule(path)
                where = "_parameters" if name in dict(source.named_parameters(recurse=False)) else "_buffers"
                getattr(target, where)[name] = getattr(source, where)[name]
            present = result.state_dict().keys()


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def _last_activation(model: nn.Module, name: str) -> str:
    container = model.get_submodule(name)
    return f"{name}.{max(i for i, module in enumerate(container.children()) if isinstance(module, nn.ReLU))}"


# Cutting it


def _descendants(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(node.users)
    while waiting:
        user = waiting.pop()
        if user not in found:
            found.add(user)
            waiting += user.users
    return found


def _linear(network: Canonical, target: fx.Node, output: fx.Node) -> Tensor | None:
    """The weights of the last layer, if nothing but a global average pool and flattening is before it."""
    node, pooled = target, False
    while len(node.users) == 1:
        (node,) = node.users
        module = network.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Linear):
            return module.weight if pooled and list(node.users) == [output] and output.args == (node,) else None
        if isinstance(module, nn.AdaptiveAvgPool2d):
            if module.output_size not in (1, (1, 1)):
                return None
            pooled = True
        elif node.op == "call_method" and node.target == "mean":
            axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
            if not _over_positions(tuple(axes), target.meta.get("shape") if node.args[0] is target else None):
                return None
            pooled = True
        elif not (pooled and _flattens(node, module)):
            return None
    return None


def _over_positions(axes: tuple[int, ...], shape: tuple[int, ...] | None) -> bool:
    """Whether these are all axes of positions: of [N, C, h, w], or, by its shape, of [N, h, w, C] or [N, n, C]."""
    if axes in ((2, 3), (-2, -1)):
        return shape is None or len(shape) == 4 and not _channels_last(shape)
    if shape is None:
        return False
    found = {axis % len(shape) for axis in axes}
    if len(shape) == 3:  # tokens, none of which is anything but a patch
        return found == {1} and math.isqrt(shape[1]) ** 2 == shape[1] and shape[1] > 1
    return len(shape) == 4 and found == {1, 2} and _channels_last(shape)


def _channels_last(shape: tuple[int, ...]) -> bool:
    return shape[1] == shape[2] != shape[3]


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    if isinstance(module, nn.Flatten):
        return True
    return node.target in (torch.flatten, "flatten", torch.squeeze, "squeeze")


def remove_unused(graph: fx.Graph) -> None:
    """Erase nodes whose results nobody uses: after the rewriting none has any other effect."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
