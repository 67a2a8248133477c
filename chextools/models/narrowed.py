"""Of values of which a part is read, that part alone is computed.

A vision transformer's head reads the class token, so of its last block one row of the attention counts, and one token
of all that follows. Going back from what takes a part, from operator to operator, each is asked for that part where it
computes every position by itself; there it works on less. Results are the same to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from torch import fx, nn

from chextools.models.operators import called


@dataclass(frozen=True, slots=True)
class Part:
    """Positions start to start + length along an axis; never of the first, the images'."""

    axis: int
    start: int
    length: int

    def along(self, axis: int) -> Part:
        return Part(axis, self.start, self.length)


Shape = tuple[int, ...]
Wanted = dict[fx.Node, "Part | None"]  # of an operator's inputs; None for all of it

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.Mish, nn.GELU, nn.Softplus),
    *(nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.Hardtanh, nn.Tanh),
)
_FUNCTIONS = frozenset("add sub mul div truediv neg abs exp sqrt rsqrt tanh sigmoid pow square to".split())


def narrow(network: nn.Module, graph: fx.Graph) -> fx.Graph:
    """A graph of the network's modules, whose nodes' meta["shape"] is known for one image, as one that computes less.

    Placeholders and outputs stay what they are.
    """
    work = _Narrowing(network, graph)
    return work.run() if any(work.taken(node) for node in graph.nodes) else graph


class _Narrowing:
    def __init__(self, network: nn.Module, graph: fx.Graph):
        self.network, self.graph, self.made = network, graph, fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.held: dict[fx.Node, Part | None] = {}  # what of its value a copy is
        self.parts: dict[tuple[fx.Node, Part], fx.Node] = {}

    def run(self) -> fx.Graph:
        asked: dict[fx.Node, set[Part | None]] = {node: set() for node in self.graph.nodes}
        wanted: dict[fx.Node, Wanted] = {}
        for node in reversed(self.graph.nodes):
            part = next(iter(asked[node])) if len(asked[node]) == 1 else None
            found = self._inputs(node, part)
            self.held[node] = part if found is not None and self.taken(node) is None else None
            wanted[node] = dict.fromkeys(node.all_input_nodes) if found is None else found
            if not _counts_images(node):
                for each, of in wanted[node].items():
                    asked[each].add(of)
        for node in self.graph.nodes:
            self.copies[node] = self._copied(node, wanted[node])
            if self.held[node] is None:
                self.copies[node].meta = dict(node.meta)
        return self.made

    def taken(self, node: fx.Node) -> Part | None:
        """What a node takes of its one input, if that is all it does."""
        name = _name(node)
        if name not in ("select", "slice") or not isinstance(node.args[0], fx.Node) or node.kwargs:
            return None
        shape = self._shape(node.args[0])
        given = [*node.args[1:], *[None] * 4]
        axis = given[0] if given[0] is not None else 0
        if shape is None or type(axis) is not int or not 0 < axis % len(shape):
            return None
        axis %= len(shape)
        side = shape[axis]
        if name == "select":
            return Part(axis, given[1] % side, 1) if type(given[1]) is int and side > 1 else None
        start, stop, step = given[1] or 0, given[2] if given[2] is not None else side, given[3] or 1
        if any(type(each) is not int for each in (start, stop)) or step != 1:
            return None
        start, stop, _ = slice(start, stop).indices(side)
        return Part(axis, start, stop - start) if 0 < stop - start < side else None

    def _shape(self, node: Any) -> Shape | None:
        if not isinstance(node, fx.Node):
            return None
        if node.op == "get_attr":
            value: Any = self.network
            for name in str(node.target).split("."):
                value = getattr(value, name)
            return tuple(value.shape)
        return node.meta.get("shape")

    def _inputs(self, node: fx.Node, part: Part | None) -> Wanted | None:
        """What a node needs of its inputs for a part of its result; None where it cannot compute less."""
        taken = self.taken(node)
        if taken is not None:
            return {node.all_input_nodes[0]: taken}
        shape = self._shape(node)
        if part is None or shape is None or part.axis == 0:
            return None
        module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if module is not None:
            last = 1 if isinstance(module, nn.Linear) else 0
            last = len(module.normalized_shape) if isinstance(module, nn.LayerNorm) else last
            usable = isinstance(module, (nn.Linear, nn.LayerNorm, *ACTIVATIONS)) and part.axis < len(shape) - last
            return {node.all_input_nodes[0]: part} if usable else None
        name, first = _name(node), node.args[0] if node.args else None
        if name in _FUNCTIONS or (name == "slice" and self._whole(node)):
            return self._elementwise(node, part, len(shape))
        before = self._shape(first)
        if before is None:
            return None
        if name == "softmax":
            usable = type(node.args[1]) is int and node.args[1] % len(shape) != part.axis
            return {first: part} if usable else None
        if name in ("matmul", "bmm"):
            return self._matmul(node, part, len(shape))
        if name == "scaled_dot_product_attention":
            return self._attention(node, part, len(shape))
        axis = _axis_before(node, name, part.axis, before, shape)
        return None if axis is None or axis == 0 else {**dict.fromkeys(node.all_input_nodes), first: part.along(axis)}

    def _whole(self, node: fx.Node) -> bool:
        """Whether a slice takes everything."""
        return self._shape(node) == self._shape(node.args[0])

    def _elementwise(self, node: fx.Node, part: Part, axes: int) -> Wanted | None:
        found: Wanted = {}
        for each in node.all_input_nodes:
            shape = self._shape(each)
            if shape is None:
                return None
            axis = part.axis - (axes - len(shape))
            found[each] = part.along(axis) if axis >= 0 and shape[axis] > 1 else None
            if found[each] is not None and axis == 0 and each.op != "get_attr":
                return None
        return found

    def _matmul(self, node: fx.Node, part: Part, axes: int) -> Wanted | None:
        a, b = node.args[:2]
        rows, columns = part.axis == axes - 2, part.axis == axes - 1
        if a is b or not (rows or columns) or not all(len(self._shape(each) or ()) == axes for each in (a, b)):
            return None
        return {a: part if rows else None, b: part if columns else None}

    def _attention(self, node: fx.Node, part: Part, axes: int) -> Wanted | None:
        query, *others = node.args
        mask = node.kwargs.get("attn_mask", node.args[3] if len(node.args) > 3 else None)
        if part.axis != axes - 2 or query in others or len(node.args) > 4 or set(node.kwargs) - {"scale", "attn_mask"}:
            return None
        found: Wanted = {**dict.fromkeys(node.all_input_nodes), query: part}
        if mask is not None:
            shape = self._shape(mask) or ()
            axis = len(shape) - 2
            if axis < 0 or (axis == 0 and mask.op != "get_attr"):
                return None
            found[mask] = part.along(axis) if shape[axis] > 1 else None
        return found

    def _copied(self, node: fx.Node, wanted: Wanted) -> fx.Node:
        taken = self.taken(node)
        if taken is not None:
            (value,) = (self._part(each, of) for each, of in wanted.items())
            return value if _name(node) == "slice" else self.made.call_function(node.target, (value, taken.axis, 0))
        part = self.held[node]
        if part is not None and _name(node) == "slice":
            return self._part(node.args[0], wanted[node.args[0]])
        made = self.made.node_copy(node, lambda each: self._part(each, wanted[each]))
        if part is not None and _name(node) == "reshape":
            sizes = list(_several(made.args[1:]))
            sizes[part.axis] = part.length
            made.args = (made.args[0], sizes)
        return made

    def _part(self, node: fx.Node, part: Part | None) -> fx.Node:
        """The copy of a node, or a part of it."""
        if part == self.held[node] or part is None:
            return self.copies[node]
        key = (node, part)
        if key not in self.parts:
            self.parts[key] = self.made.call_method("narrow", (self.copies[node], part.axis, part.start, part.length))
        return self.parts[key]


def _name(node: fx.Node) -> str:
    return called(node) if node.op in ("call_function", "call_method") else ""


def _counts_images(node: fx.Node) -> bool:
    """Whether it is the number of images, which is that of any part, too."""
    return _name(node) in ("size", "sym_size") and node.args[1:] == (0,)


def _several(args: tuple) -> Any:
    """Numbers that may stand in a list of their own."""
    return args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args


def _axis_before(node: fx.Node, name: str, axis: int, before: Shape, after: Shape) -> int | None:
    """Which axis of its first input an axis of the result of what moves numbers is; None where it is none."""
    args = node.args[1:]
    if name == "transpose":
        a, b = (each % len(before) for each in args[:2])
        return {a: b, b: a}.get(axis, axis)
    if name == "permute":
        return _several(args)[axis] % len(before)
    if name == "unsqueeze":
        at = args[0] % len(after)
        return None if axis == at else axis - (axis > at)
    if name == "reshape":
        if after[axis] == 1:
            return None
        ahead = prod(after[:axis])
        return next((k for k, side in enumerate(before) if side == after[axis] and prod(before[:k]) == ahead), None)
    return None
