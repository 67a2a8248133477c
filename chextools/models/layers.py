"""Where class activation maps are made, of any network: its last feature maps, found without knowing its family.

Every way from the images to the outputs passes some nodes of the graph, its dominators (Lengauer and Tarjan 1979 name
them so; a graph without circles needs no more than a set per node). The last of them that is a map over positions, and
whose gradient is not 0 at most of these, is taken; not a pool, which would only lose resolution, nor maps of the
outputs themselves. Of a network of tokens it is that or its last norm whose patches matter, whichever comes later:
where a class token alone is read, the norm before the last attention. A network that says nothing of the noise it is
looked at with, as its last units are all off, is judged by its maps' shapes; where images are so small that there are
maps of one cell only, it is the last of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from chextools.models.canonical import Canonical

EXTRA_TOKENS = (1, 0, 2, 5)  # before the patches: a class token, none, one more of distillation, four more registers
_MOST = 0.5  # of the positions must matter


def find_layer(network: Canonical, images: Tensor) -> str | None:
    """The name of the layer, as `cut` takes it; None where there are no feature maps.

    images: [N, C, size, size], such as noise, on which gradients are looked at.
    """
    values = _values(network, images)
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    output = next(node for node in network.graph.nodes if node.op == "output")
    outputs = values[output.all_input_nodes[0]].shape[-1]
    passed = sorted(_dominators(network), key=order.__getitem__, reverse=True)
    found = _last_map(network, passed, values, outputs, 2)
    if found is None or values[found].dim() == 3:
        norms = (node for node in values if _is_norm(network, node) and values[node].dim() == 3)
        last = (node for node in sorted(norms, key=order.__getitem__, reverse=True) if _spread(values[node]) > _MOST)
        found = max(filter(None, (found, next(last, None))), key=order.__getitem__, default=None)
    found = found or _last_map(network, passed, values, outputs, 1)
    return None if found is None else _shortest(network, found)


def _last_map(
    network: Canonical, passed: Sequence[fx.Node], values: dict[fx.Node, Tensor], outputs: int, side: int
) -> fx.Node | None:
    """The first of the nodes that is a map, or tokens, of so many cells a side or more."""
    for node in passed:
        value = values.get(node)
        if value is None or _spread(value, side) <= _MOST or _is_pool(network, node) or node.op == "placeholder":
            continue
        if value.dim() == 3 or value.shape[1] != outputs:
            return node
    return None


def _is_norm(network: Canonical, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), nn.LayerNorm)


def as_maps(values: Tensor) -> Tensor | None:
    """[N, C, h, w] of values [N, C, h, w], [N, h, w, C], or of tokens of a square grid [N, n, C]; None of others."""
    if values.dim() == 4:
        last = values.shape[1] == values.shape[2] != values.shape[3]
        return values.permute(0, 3, 1, 2) if last else values
    if values.dim() == 3:
        for extra in EXTRA_TOKENS:
            count = values.shape[1] - extra
            side = math.isqrt(max(0, count))
            if side > 0 and side * side == count:
                return values[:, extra:].transpose(1, 2).unflatten(2, (side, side))
    return None


def _dominators(network: Canonical) -> set[fx.Node]:
    """Nodes that all ways from the images to the output pass; those that only tell a shape are no way."""
    passed: dict[fx.Node, set[fx.Node]] = {}
    for node in network.graph.nodes:
        before = [passed[each] for each in node.all_input_nodes if each in passed]
        if node.op == "placeholder":
            passed[node] = {node}
        elif before and not (node.op == "call_method" and node.target == "size"):
            passed[node] = set.intersection(*before) | {node}
    return passed.get(next(node for node in network.graph.nodes if node.op == "output"), set())


class _Keeper(fx.Interpreter):
    """Keeps what each node makes, and its gradient."""

    def __init__(self, network: Canonical):
        super().__init__(network, garbage_collect_values=False)
        self.values: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.requires_grad:
            value.retain_grad()
            self.values[n] = value
        return value


def _values(network: Canonical, images: Tensor) -> dict[fx.Node, Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        keeper, images = _Keeper(network), images.clone().requires_grad_()
        keeper.run(images).sum().backward()
    if images.grad is None or not bool((images.grad != 0).any()):
        for value in keeper.values.values():
            value.grad = torch.ones_like(value)  # nothing tells positions apart
    return keeper.values


def _spread(value: Tensor, side: int = 2) -> float:
    """Share of the positions whose gradient is not 0; 0 of what is not a map of so many positions a side or more."""
    gradient = None if value.grad is None else as_maps(value.grad)
    if gradient is None or gradient.shape[2] != gradient.shape[3] or gradient.shape[2] < side:
        return 0.0
    return float((gradient != 0).any(1).float().mean())  # NaN counts


def _is_pool(network: Canonical, node: fx.Node) -> bool:
    pools = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), pools)


def _shortest(network: Canonical, node: fx.Node) -> str:
    names: Sequence[str] = [path for path, name in network.layer_nodes.items() if name == node.name]
    return min(names, key=len)
