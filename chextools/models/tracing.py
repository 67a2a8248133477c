"""From any nn.Module, or a program of torch.export, to the graph that a checkpoint carries: one trace, batch dynamic.

Only chex-import and chex-train come here: it imports torch.export, which takes seconds, and runs the network's own
code. The graph does not depend on the weights, so that of a network in training is traced once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import os
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export

from chextools.errors import InputError
from chextools.models import operators
from chextools.models.graph import IMAGES, TYPES, NetworkGraph, Node, Ref, Stored, Type

# What gives back what it is given, in evaluation.
_SAME = frozenset("contiguous clone alias detach lift_fresh lift_fresh_copy positive identity view_of".split())
_DROPS = frozenset("dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout".split())
_IGNORED = ("_assert", "sym_constrain", "_guard", "_functional_assert", "_empty_nn_module_stack")
_PLACES = {"device", "layout", "pin_memory", "memory_format", "non_blocking", "copy", "generator"}
_MADE_OF_SHAPE = {"zeros": "new_zeros", "ones": "new_ones", "full": "new_full", "empty": "new_zeros"}
_DEPENDS = "what it computes depends on the values of its input"
_WRAPPED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")

Value = Any  # a Ref, a Stored, or a plain value


def trace(model: nn.Module, channels: int, size: int) -> tuple[NetworkGraph, dict[str, Tensor]]:
    """(graph, tensors by their keys in the state dict) of a network [N, channels, size, size] -> [N, outputs].

    The network is left as it is, and torch's random state, too.

    Several outputs [N, k] become one, side by side. Raises InputError where the network's computation depends on its
    data or on how many images there are, where it uses an operator that a graph may not have, and where it returns
    something else.
    """
    _start_autograd()
    training = {module: module.training for module in model.modules()}
    try:
        program = _exported(model.eval(), channels, size)
        return of_program(program, _family(model))
    finally:
        for module, mode in training.items():
            module.training = mode


def of_program(program: ExportedProgram, family: str) -> tuple[NetworkGraph, dict[str, Tensor]]:
    """The same of a program of torch.export. Raises InputError as `trace` does."""
    try:
        translator = _Translator(program, family)
        return translator.run()
    except _WritesToView:  # torch takes what works in place apart, at a price: in seconds, and in names
        with quietly():
            apart = program.run_decompositions({})
        return _Translator(apart, family).run()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Nothing of what libraries print or log: stdout is for records, and an error is one line of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
    finally:
        logging.disable(before)


def _start_autograd() -> None:
    """Go back once: autograd starts a thread for each device it knows then, and torch.export makes up eight."""
    torch.zeros((), requires_grad=True).backward()


def _exported(model: nn.Module, channels: int, size: int) -> ExportedProgram:
    parameter = next(model.parameters(), torch.empty(0))
    images = torch.zeros(2, channels, size, size, device=parameter.device, dtype=parameter.dtype)
    why = ""
    for batch in (Dim("batch", min=1, max=4096), Dim.AUTO):
        for strict in (False, True):
            try:
                with torch.no_grad(), quietly(), _normalize_unchecked():
                    return export(model, (images,), dynamic_shapes=({0: batch},), strict=strict)
            except Exception as error:  # whatever a stranger's forward does, and whatever torch makes of it
                why = why or _said(error)
                if why is _DEPENDS:
                    raise InputError(f"{_family(model)} cannot be traced: {why}") from None
    raise InputError(f"{_family(model)} cannot be traced: {why}")


@contextlib.contextmanager
def _normalize_unchecked() -> Iterator[None]:
    """torchvision's Normalize looks whether its own numbers are 0, which no trace can follow: here it does not."""
    library = sys.modules.get("torchvision.transforms._functional_tensor")
    before = getattr(library, "normalize", None)
    if before is None:
        yield
        return
    vars(library)["normalize"] = _normalized
    try:
        yield
    finally:
        vars(library)["normalize"] = before


def _normalized(tensor: Tensor, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    mean, std = (torch.as_tensor(each, dtype=tensor.dtype, device=tensor.device) for each in (mean, std))
    mean, std = (each.view(-1, 1, 1) if each.ndim == 1 else each for each in (mean, std))
    return (tensor.sub_ if inplace else tensor.sub)(mean).div_(std)


def _family(model: nn.Module) -> str:
    return str(getattr(model, "family", type(model).__name__))


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if "data-dependent" in str(error).lower() or "GuardOnDataDependent" in type(error).__name__:
        return _DEPENDS
    said = f"{type(error).__name__}: {text[:300]}" if type(error).__name__ not in text else text[:300]
    return f"{where}: {said}" if (where := _where(error)) else said


def _of_one(node: fx.Node) -> bool:
    """Whether a batch norm is over one thing by itself, by its own numbers: convolutions standardise weights so."""
    count = node.args[0].meta["val"].shape[0]
    return isinstance(count, int) and count == 1 and node.args[3] is None


def _where(error: BaseException) -> str:
    """FILE:LINE of the last code on the way to an error that is neither ours nor a library's; empty where none is."""
    own, standard = os.path.dirname(os.path.dirname(__file__)), sysconfig.get_paths()["stdlib"]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = frame.filename
        if os.path.isfile(path) and "-packages" not in path and not path.startswith((own + os.sep, standard + os.sep)):
            return f"{os.path.relpath(path)}:{frame.lineno}"
    return ""


class _WritesToView(Exception):
    """Something works in place on what another name shows a part of."""


class _Translator:
    def __init__(self, program: ExportedProgram, family: str):
        self.program, self.family = program, family
        self.values: dict[fx.Node, Value] = {}
        self.several: dict[fx.Node, Value] = {}  # whose first result alone is one of ours
        self.nodes: list[Node] = []
        self.stack: list[list[tuple[str, str, str]]] = []  # by node: call, path and class of the modules it is in
        self.tensors: dict[str, Tensor] = {}
        self.calls: dict[str, str] = {}
        self.layers: dict[str, str] = {}

    def run(self) -> tuple[NetworkGraph, dict[str, Tensor]]:
        signature = self.program.graph_signature
        stored = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        inputs = [node for node in self.program.graph.nodes if node.op == "placeholder" and node.name not in stored]
        if len(inputs) != 1:
            raise InputError(f"{self.family} takes {len(inputs)} inputs, not images alone")
        shape = inputs[0].meta["val"].shape
        if len(shape) != 4 or isinstance(shape[0], int):
            raise InputError(
                f"{self.family} was traced for inputs {[str(side) for side in shape]}, not for any number of images: "
                "export it with dynamic_shapes={0: torch.export.Dim('batch')} in a tuple"
            )
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                key = stored.get(node.name)
                self.values[node] = Ref(IMAGES) if key is None else self._kept(key)
        self._translate(self.program.graph, self.program.graph_module)
        output = self._output(signature)
        return self._finished(output)

    def _kept(self, key: str) -> Stored:
        program = self.program
        tensor = program.state_dict[key] if key in program.state_dict else program.constants[key]
        self.tensors[key] = tensor.detach()
        return Stored(key)

    def _translate(self, graph: fx.Graph, module: fx.GraphModule) -> None:
        for node in graph.nodes:
            if node.op == "call_function":
                self._function(node, module)
            elif node.op == "get_attr":
                found = getattr(module, node.target, None)
                if isinstance(found, Tensor):
                    self.tensors[node.target] = found.detach()
                    self.values[node] = Stored(node.target)
            elif node.op not in ("placeholder", "output"):
                raise InputError(f"{self.family} has {node.op} {node.target}, which no graph may have")
            self._note_layers(node)

    def _note_layers(self, node: fx.Node) -> None:
        value = self.values.get(node)
        for call, path, _ in _modules(node):
            if path and self.calls.setdefault(path, call) == call and isinstance(value, Ref):
                self.layers[path] = value.node

    def _function(self, node: fx.Node, module: fx.GraphModule) -> None:
        if getattr(node.target, "__name__", "") in _WRAPPED or str(node.target) in _WRAPPED:
            self._inline(node, module)
            return
        name = operators.name_of(node.target)
        family, _, overload = name.partition(".")
        if family.rpartition("::")[2].startswith(_IGNORED):
            return
        if (
            family == "batch_norm" and node.args[5] is True and not _of_one(node)
        ) or family == "_native_batch_norm_legit_functional":
            raise InputError(
                f"{self.family} normalises by the batch that an image is in: call its .eval() before it is exported"
            )
        args, kwargs = [self._argument(each) for each in node.args], dict(node.kwargs)
        kwargs = {key: self._argument(each) for key, each in kwargs.items() if key not in _PLACES}
        if node.target is operator.getitem and node.args[0] in self.several:
            self.values[node] = self.several[node.args[0]]
        elif family in _SAME or (family in _DROPS and not self._drops(node)):
            self.values[node] = args[0]
            self.several[node] = args[0]
        elif family in ("to", "_to_copy", "type_as", "float", "double"):
            self._convert(node, args)
        elif family.endswith("_") and not family.startswith("_"):
            self._in_place(node, f"{family[:-1]}.{overload}".rstrip("."), args, kwargs)
        elif family == "batch_norm" and node.args[5] is True:
            self._add(node, "group_norm", [args[0], node.args[0].meta["val"].shape[1], args[1], args[2], args[7]], {})
        else:
            self._add(node, *_modern(name, args, kwargs))

    def _inline(self, node: fx.Node, module: fx.GraphModule) -> None:
        """A part under torch.no_grad or autocast: what it computes stays."""
        at = next(n for n, each in enumerate(node.args) if isinstance(each, fx.Node) and each.op == "get_attr")
        target = node.args[at].target
        inner = getattr(module, str(target))
        names = [each for each in inner.graph.nodes if each.op == "placeholder"]
        self.values |= {name: self._argument(each) for name, each in zip(names, node.args[at + 1 :])}
        self._translate(inner.graph, inner)
        result = next(each for each in inner.graph.nodes if each.op == "output").args[0]
        self.values[node] = [self.values.get(each) for each in result]

    def _argument(self, argument: Any) -> Value:
        if isinstance(argument, fx.Node):
            return self.values.get(argument)
        if isinstance(argument, (list, tuple)):
            return tuple(self._argument(each) for each in argument)
        if isinstance(argument, torch.dtype):
            return _type(argument)
        if isinstance(argument, (torch.device, torch.layout, torch.memory_format)):
            return None
        return argument

    def _drops(self, node: fx.Node) -> bool:
        if len(node.args) > 2 and node.args[2]:
            raise InputError(f"{self.family} drops at random: it is not in evaluation mode")
        return False

    def _convert(self, node: fx.Node, args: list) -> None:
        before, after = node.args[0].meta["val"], node.meta["val"]
        if before.dtype == after.dtype:
            self.values[node] = args[0]
        else:
            self._add(node, "to.dtype", [args[0], _type(after.dtype)], {})

    def _in_place(self, node: fx.Node, name: str, args: list, kwargs: dict) -> None:
        """What shows the same tensor shows the result from here on. Raises _WritesToView where others show parts."""
        target = node.args[0]
        family = name.partition(".")[0]
        if family in _DROPS and not self._drops(node):
            self.values[node] = args[0]
            return
        if not isinstance(target, fx.Node) or not isinstance(args[0], Ref) or args[0].node == IMAGES:
            raise _WritesToView
        same = [each for each, value in self.values.items() if value == args[0]]
        order = {each: place for place, each in enumerate(node.graph.nodes)}
        for each in same:
            made_by_view = each.op == "call_function" and _is_view(each.target) and self._own(each) == args[0].node
            later = [user for user in each.users if order.get(user, 0) < order[node] and _is_view(user.target)]
            if made_by_view or any(order.get(user, 0) > order[node] for view in later for user in view.users):
                raise _WritesToView
        self._add(node, *_modern(name, args, kwargs))
        for each in same:
            self.values[each] = self.values[node]

    def _own(self, node: fx.Node) -> str | None:
        """The name of our node that was made for one of torch's."""
        value = self.values.get(node)
        return value.node if isinstance(value, Ref) else None

    def _add(self, node: fx.Node, name: str, args: Iterable, kwargs: Mapping, first: bool = False) -> None:
        family = name.partition(".")[0]
        if family in _MADE_OF_SHAPE and any(isinstance(each, Ref) for each in _flat(args)):
            family, args = _MADE_OF_SHAPE[family], [Ref(IMAGES), *args]
            name = family
        self.nodes.append(Node(f"%{len(self.nodes)}", name, _plain(tuple(args)), _plain_dict(kwargs)))
        self.stack.append(_modules(node))
        self.values[node] = Ref(self.nodes[-1].name)
        if first:
            self.several[node] = self.values[node]

    def _output(self, signature: Any) -> Ref:
        found = next(node for node in self.program.graph.nodes if node.op == "output").args[0]
        wanted = set(signature.user_outputs)
        results = [each for each in found if isinstance(each, fx.Node) and each.name in wanted]
        values = [each.meta.get("val") for each in results]
        shapes = [tuple(value.shape) if isinstance(value, Tensor) else None for value in values]
        flat = [shape for shape in shapes if shape is not None and len(shape) >= 2]
        if len(results) == 1 and flat:
            result = self.values[results[0]]
            if len(flat[0]) > 2:  # such as [N, tasks, 2]
                self.nodes.append(Node(f"%{len(self.nodes)}", "flatten.using_ints", (result, 1)))
                self.stack.append([])
                result = Ref(self.nodes[-1].name)
        elif len(flat) == len(shapes) > 1 and len({shape[1:] for shape in flat}) == 1 and len(flat[0]) == 2:
            parts = tuple(self.values[each] for each in results)
            self.nodes.append(Node(f"%{len(self.nodes)}", "cat", (parts, 1)))
            self.stack.append([])
            result = Ref(self.nodes[-1].name)
        else:
            said = ", ".join("x".join(map(str, ["N", *shape[1:]])) if shape else "no tensor" for shape in shapes)
            raise InputError(
                f"{self.family} returns {said or 'nothing'}, not one [N, outputs]; import it as FILE.py:FUNCTION, "
                "whose module returns the logits alone"
            )
        if not isinstance(result, Ref) or result.node == IMAGES:
            raise InputError(f"{self.family} returns what does not depend on the images")
        return result

    def _finished(self, output: Ref) -> tuple[NetworkGraph, dict[str, Tensor]]:
        by_name = {node.name: node for node in self.nodes}
        alive, waiting = set(), [output.node]
        while waiting:
            name = waiting.pop()
            if name not in alive and name in by_name:
                alive.add(name)
                waiting += [use.node for use in by_name[name].uses() if isinstance(use, Ref)]
        names = self._names(alive)
        nodes = []
        for node in self.nodes:
            if node.name not in alive:
                continue
            if not operators.is_allowed(node.operator):
                raise InputError(
                    f"{self.family} uses {node.operator}, which is not of the operators that a network may have"
                )
            operators.resolved(node.operator)
            args = _renamed(node.args, names)
            kwargs = {key: _renamed(value, names) for key, value in node.kwargs.items()}
            nodes.append(Node(names[node.name], node.operator, args, kwargs))
        layers = {path: names[name] for path, name in self.layers.items() if name in names and names[name] != path}
        graph = NetworkGraph(tuple(nodes), names[output.node], layers, None, self.family)
        keys = graph.keys()
        return graph, {key: tensor for key, tensor in self.tensors.items() if key in keys}

    def _names(self, alive: set[str]) -> dict[str, str]:
        """By our numbers: the path of the module that a node is all of, else that path and the operator's name."""
        count: dict[str, int] = {}
        for node, stack in zip(self.nodes, self.stack):
            if node.name in alive and stack:
                count[stack[-1][0]] = count.get(stack[-1][0], 0) + 1
        taken, names = {IMAGES}, {}
        for node, stack in zip(self.nodes, self.stack):
            if node.name not in alive:
                continue
            call, path, kind = stack[-1] if stack else ("", "", "")
            plain = operators.base(node.operator).removeprefix("int.").strip("_")
            whole = path and kind.startswith("torch.nn.") and count[call] == 1
            wanted = path if whole else f"{path}.{plain}" if path else plain
            name, number = wanted, 0
            while name in taken or (name in self.calls and name != path):
                number += 1
                name = f"{wanted}_{number}"
            taken.add(name)
            names[node.name] = name
        return names


def _modules(node: fx.Node) -> list[tuple[str, str, str]]:
    """(call, path, class) of the modules that a node is in, from the outermost."""
    stack = node.meta.get("nn_module_stack") or {}
    found = []
    for call, (path, kind) in stack.items():
        path = re.sub(r"^(L\['self'\]|L__self__)\.?", "", str(path))
        kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if not path.startswith("_empty_nn"):
            found.append((str(call), path, kind))
    return found


def _modern(name: str, args: list, kwargs: dict) -> tuple[str, list, dict, bool]:
    """An operator that torch takes others apart into, as that one; and whether it is the first of its results."""
    family = name.partition(".")[0]
    given = [*args, *[None] * 12]
    if family == "_native_batch_norm_legit_no_training":
        return "batch_norm", [*args[:5], False, args[5], args[6], False], {}, True
    if family == "native_layer_norm":
        return "layer_norm", args[:5], {}, True
    if family == "native_group_norm":
        return "group_norm", [args[0], args[6], args[1], args[2], args[7]], {}, True
    if family == "max_pool2d_with_indices":
        return "max_pool2d", args, kwargs, True
    if family == "copy":  # of what was written over as a whole: its shape alone counts
        return "expand_as", [args[1], args[0]], {}, False
    if family == "zero":
        return "zeros_like", args[:1], {}, False
    if family == "_softmax":
        return "softmax.int", args[:2], {}, False
    if family == "_log_softmax":
        return "log_softmax.int", args[:2], {}, False
    if family == "_adaptive_avg_pool2d":
        return "adaptive_avg_pool2d", args, {}, False
    if family == "convolution" and not given[6] and len(args[3]) == 2:
        return "conv2d", [*args[:6], args[8]], {}, False
    if family in ("view", "_unsafe_view", "_reshape_copy"):  # what is contiguous by torch's leave may not be by ours
        return "reshape", args, {}, False
    if family.startswith("_scaled_dot_product") and family != "_scaled_dot_product_attention_math":
        return "scaled_dot_product_attention", args[:3], {k: v for k, v in kwargs.items() if k == "attn_mask"}, True
    return name, args, kwargs, False


def _is_view(function: object) -> bool:
    """Whether what it makes shows a part of what it is given."""
    schema = getattr(function, "_schema", None)
    return schema is not None and any(
        result.alias_info is not None and not result.alias_info.is_write for result in schema.returns
    )


def _type(dtype: torch.dtype) -> Type:
    name = str(dtype).removeprefix("torch.")
    if name not in TYPES:
        raise InputError(f"a network with numbers of type {name} cannot be imported")
    return Type("float32" if name in ("float16", "bfloat16") else name)


def _flat(values: Iterable) -> Iterable:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _flat(value)
        else:
            yield value


def _plain(values: Any) -> Any:
    return tuple(_plain(each) for each in values) if isinstance(values, (tuple, list)) else values


def _plain_dict(values: Mapping) -> dict[str, Any]:
    return {key: _plain(value) for key, value in values.items() if value is not None}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_renamed(each, names) for each in value)
    return Ref(names.get(value.node, value.node)) if isinstance(value, Ref) else value
