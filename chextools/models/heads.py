"""The end of a network: what makes probabilities of logits is taken off, since what is explained is the logit."""

from __future__ import annotations

import dataclasses

from chextools.models.graph import NetworkGraph, Node, Ref
from chextools.models.operators import base

_ACTIVATIONS = ("sigmoid", "softmax", "log_softmax")
_MOVES = ("flatten", "reshape", "view", "squeeze", "cat")


def without_activation(graph: NetworkGraph) -> tuple[NetworkGraph, str | None]:
    """(the graph without a sigmoid or softmax at its end, which one there was).

    Between it and the end may be what only moves numbers, and it may stand at the end of several branches that are
    put side by side; then of all of them, or it stays.
    """
    by_name = {node.name: node for node in graph.nodes}
    ends = _ends(by_name, graph.output)
    kinds = {base(node.operator) for node in ends}
    if len(kinds) != 1 or not kinds <= set(_ACTIVATIONS):
        return graph, None
    replaced = {node.name: node.args[0] for node in ends}
    if any(not isinstance(value, Ref) for value in replaced.values()):
        return graph, None
    nodes = tuple(
        dataclasses.replace(node, args=_with(node.args, replaced)) for node in graph.nodes if node.name not in replaced
    )
    output = replaced[graph.output].node if graph.output in replaced else graph.output
    layers = {path: name for path, name in graph.layers.items() if name not in replaced}
    return dataclasses.replace(graph, nodes=nodes, output=output, layers=layers), kinds.pop()


def _ends(by_name: dict[str, Node], name: str) -> list[Node]:
    """What the outputs come from, but for what moves numbers."""
    node = by_name[name]
    if base(node.operator) not in _MOVES:
        return [node]
    before = [use.node for use in node.uses() if isinstance(use, Ref) and use.node in by_name]
    return [end for each in before for end in _ends(by_name, each)]


def _with(value: object, replaced: dict[str, Ref]) -> tuple:
    def one(each: object) -> object:
        if isinstance(each, tuple):
            return tuple(one(part) for part in each)
        return replaced.get(each.node, each) if isinstance(each, Ref) else each

    return one(value)  # type: ignore[return-value]
