"""The graph that a checkpoint carries: its network as data, one operator after the other, without any code.

A node names an operator of a short list (`models.operators`) and what it takes: images, earlier nodes, stored tensors,
numbers. As it can only refer to what stands before it, there are no circles. Reading one from a stranger costs no more
than its text, and runs nothing; shapes are looked at where tensors are at hand (`models.assembly`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chextools.errors import InputError, LimitError

IMAGES = "images"  # the name by which nodes refer to the network's input
MAX_TEXT = 2**24  # characters; the largest of torchvision and timm have 1.5 million
MAX_NODES = 30_000
MAX_NAME = 500
MAX_ITEMS = 4096  # of a list among a node's arguments
TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")

_DEPTH = 3  # of lists in lists
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True, slots=True)
class Ref:
    """What an earlier node has made; `IMAGES` for the network's input."""

    node: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the checkpoint by its key, which is that of the state dict it came from."""

    key: str


@dataclass(frozen=True, slots=True)
class Type:
    """A type of numbers, as torch calls it."""

    name: str


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: its name is the path of the module that it is all of, else that path and the operator's name."""

    name: str
    operator: str
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def uses(self) -> Iterator[Ref | Stored]:
        """What it takes, in order, as often as it takes it."""
        yield from _uses(self.args)
        yield from _uses(tuple(self.kwargs.values()))


@dataclass(frozen=True)
class NetworkGraph:
    """A network [N, C, size, size] -> [N, outputs].

    nodes: in order of computation. output: the name of the node whose result is the network's. layers: paths of
    modules, and the node that each one's output is. layer: of these or of the nodes, where class activation maps are
    made; None where nobody has said. family: what to call the network in messages.
    """

    nodes: tuple[Node, ...]
    output: str
    layers: dict[str, str] = field(default_factory=dict)
    layer: str | None = None
    family: str = "the network"

    def keys(self) -> set[str]:
        """Of the tensors that it takes."""
        return {use.key for node in self.nodes for use in node.uses() if isinstance(use, Stored)}


def dumps(graph: NetworkGraph) -> str:
    """The graph as JSON, which `loads` reads."""
    nodes = [
        [node.name, node.operator, _encoded(node.args), *([_encoded_dict(node.kwargs)] if node.kwargs else [])]
        for node in graph.nodes
    ]
    found = {
        "nodes": nodes,
        "output": graph.output,
        "layers": graph.layers,
        "layer": graph.layer,
        "family": graph.family,
    }
    return json.dumps(found, separators=(",", ":"), allow_nan=False)


def loads(text: object) -> NetworkGraph:
    """The graph of a checkpoint. Raises InputError, in one line, for what `dumps` would not write."""
    if not isinstance(text, str):
        raise InputError("its graph is no text")
    if len(text) > MAX_TEXT:
        raise LimitError(f"its graph has {len(text)} characters; at most {MAX_TEXT} are read")
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InputError("its graph is not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("nodes"), list) or not found["nodes"]:
        raise InputError("its graph has no nodes")
    if len(found["nodes"]) > MAX_NODES:
        raise LimitError(f"its graph has {len(found['nodes'])} nodes; at most {MAX_NODES} are read")
    nodes = tuple(_node(entry) for entry in found["nodes"])
    layer, family = found.get("layer"), found.get("family", "the network")
    graph = NetworkGraph(nodes, _name(found.get("output")), _layers(found.get("layers")), layer, family)
    if not isinstance(family, str) or len(family) > MAX_NAME:
        raise InputError("its graph has no usable name")
    _check_order(graph)
    return graph


def _node(entry: object) -> Node:
    if not isinstance(entry, list) or len(entry) not in (3, 4) or not isinstance(entry[2], list):
        raise InputError("its graph has a node that is not [name, operator, arguments]")
    kwargs = entry[3] if len(entry) == 4 else {}
    if not isinstance(kwargs, dict):
        raise InputError("its graph has a node that is not [name, operator, arguments]")
    return Node(
        _name(entry[0]),
        _name(entry[1]),
        tuple(_decoded(value) for value in entry[2]),
        {_name(key): _decoded(value) for key, value in kwargs.items()},
    )


def _check_order(graph: NetworkGraph) -> None:
    """Raise InputError for a name twice, and for what refers to nothing that stands before it."""
    known = {IMAGES}
    for node in graph.nodes:
        for use in node.uses():
            if isinstance(use, Ref) and use.node not in known:
                raise InputError(f"its graph is damaged: {node.name} takes {use.node}, which is not before it")
        if node.name in known:
            raise InputError(f"its graph is damaged: {node.name} twice")
        known.add(node.name)
    known.discard(IMAGES)
    for name in (graph.output, *graph.layers.values()):
        if name not in known:
            raise InputError(f"its graph is damaged: there is no node {name}")
    if graph.layer is not None and graph.layer not in known and graph.layer not in graph.layers:
        raise InputError(f"its graph is damaged: there is no layer {graph.layer}")


def _layers(found: object) -> dict[str, str]:
    if not isinstance(found, dict) or len(found) > MAX_NODES:
        raise InputError("its graph has no usable layers")
    return {_name(path): _name(node) for path, node in found.items()}


def _name(found: object) -> str:
    if not isinstance(found, str) or not 0 < len(found) <= MAX_NAME:
        raise InputError("its graph is damaged: something has no usable name")
    return found


def _encoded(value: object) -> object:
    if isinstance(value, (tuple, list)):
        return [_encoded(each) for each in value]
    if isinstance(value, Ref):
        return {"node": value.node}
    if isinstance(value, Stored):
        return {"tensor": value.key}
    if isinstance(value, Type):
        return {"type": value.name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"a {type(value).__name__} cannot be part of a graph")


def _encoded_dict(values: dict[str, Any]) -> dict[str, object]:
    return {name: _encoded(value) for name, value in values.items()}


def _decoded(value: object, depth: int = 0) -> object:
    if isinstance(value, list):
        if depth == _DEPTH or len(value) > MAX_ITEMS:
            raise LimitError("its graph has a list of lists, or one too long")
        return tuple(_decoded(each, depth + 1) for each in value)
    if isinstance(value, dict):
        if len(value) != 1:
            raise InputError("its graph has an argument of no known kind")
        ((kind, name),) = value.items()
        if kind == "node":
            return Ref(_name(name))
        if kind == "tensor":
            return Stored(_name(name))
        if kind == "type" and name in TYPES:
            return Type(name)
        if kind == "number" and name in _NUMBERS:
            return _NUMBERS[name]
        raise InputError("its graph has an argument of no known kind")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError("its graph has a number of more than 64 bits")
    if isinstance(value, str) and len(value) > MAX_NAME:
        raise InputError("its graph has an argument of no known kind")
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _uses(value: object) -> Iterator[Ref | Stored]:
    if isinstance(value, (Ref, Stored)):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _uses(each)
