"""Of values of which a part is read, that part alone is computed: the same results from smaller tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.functional import scaled_dot_product_attention

from chextools.models.narrowed import narrow

ATEN = torch.ops.aten
TOKENS, WIDTH = 7, 6


class Network(nn.Module):
    """A function of tokens [N, 7, 6], with a linear layer, a norm and an activation at hand."""

    def __init__(self, forward: Callable):
        super().__init__()
        self.linear, self.norm, self.act = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU()
        self.position = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        self._of = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._of(self, x)


def traced(forward: Callable) -> tuple[Network, fx.Graph]:
    """The network and its graph, with the shapes of one image."""
    torch.manual_seed(0)
    network = Network(forward).eval()
    graph = fx.Tracer().trace(network)
    ShapeProp(fx.GraphModule(network, graph)).propagate(torch.zeros(1, TOKENS, WIDTH))
    for node in graph.nodes:
        if "tensor_meta" in node.meta:
            node.meta["shape"] = tuple(node.meta["tensor_meta"].shape)
    return network, graph


def numbers(network: nn.Module, graph: fx.Graph, images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """What a graph computes, and how many numbers it makes on the way."""
    made = []

    class Counting(fx.Interpreter):
        def run_node(self, n: fx.Node):
            value = super().run_node(n)
            if n.op in ("call_module", "call_function") and isinstance(value, torch.Tensor):
                made.append(value.numel())
            return value

    with torch.no_grad():
        return Counting(fx.GraphModule(network, graph)).run(images), sum(made)


def first(x: torch.Tensor, token: int = 0) -> torch.Tensor:
    return ATEN.select.int(x, 1, token)


def attention(network: Network, x: torch.Tensor) -> torch.Tensor:
    """A block of a transformer, by hand, of which the class token is read."""
    h = network.norm(x + network.position)
    weights = ATEN.softmax.int(h.matmul(network.linear(h).transpose(1, 2)), 2)
    x = x + weights.matmul(h)
    return first(x + network.act(network.linear(x)))


def heads(network: Network, x: torch.Tensor) -> torch.Tensor:
    """The same with two heads, and torch's attention."""
    q, k = (ATEN.reshape(network.linear(each), [-1, TOKENS, 2, 3]).permute(0, 2, 1, 3) for each in (x, x + 1))
    y = scaled_dot_product_attention(q, k, k).transpose(1, 2)
    return first(network.norm(network.act(ATEN.reshape(y, [-1, TOKENS, WIDTH]))))


def part_and_all(network: Network, x: torch.Tensor) -> torch.Tensor:
    y = network.linear(x)
    return first(y) + y.mean(1)


SMALLER = {
    "a linear layer": lambda n, x: first(n.linear(x)),
    "the last token": lambda n, x: first(n.act(n.linear(x)), -1),
    "two tokens": lambda n, x: ATEN.slice.Tensor(n.norm(n.linear(x)), 1, 2, 4).mean(1),
    "by position": lambda n, x: first(n.act(x) * n.position + 1, 3),
    "attention": attention,
    "heads": heads,
}
SAME = {
    "all is read": lambda n, x: n.linear(x).mean(1),
    "a part and all": part_and_all,
    "of what the norm goes over": lambda n, x: ATEN.select.int(n.norm(x), 2, 1),
    "of what softmax goes over": lambda n, x: first(ATEN.softmax.int(x, 1)),
    "one of the images": lambda n, x: ATEN.select.int(n.linear(x), 0, 0),
}


@pytest.mark.parametrize("name", SMALLER)
def test_a_part_costs_less_and_is_the_same(name):
    network, graph = traced(SMALLER[name])
    images = torch.randn(3, TOKENS, WIDTH)
    before, cost = numbers(network, graph, images)
    after, less = numbers(network, narrow(network, graph), images)
    torch.testing.assert_close(after, before)
    assert less < cost


@pytest.mark.parametrize("name", SAME)
def test_where_all_counts_the_results_stay(name):
    network, graph = traced(SAME[name])
    images = torch.randn(3, TOKENS, WIDTH)
    torch.testing.assert_close(numbers(network, narrow(network, graph), images)[0], numbers(network, graph, images)[0])


def test_of_the_last_block_one_row_of_the_attention_is_computed():
    network, graph = traced(attention)
    shapes = []

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node):
            value = super().run_node(n)
            if "softmax" in n.name:
                shapes.append(tuple(value.shape))
            return value

    for each in (graph, narrow(network, graph)):
        Watching(fx.GraphModule(network, each)).run(torch.randn(2, TOKENS, WIDTH))
    assert shapes == [(2, TOKENS, TOKENS), (2, 1, TOKENS)]


def test_a_graph_that_takes_no_part_is_the_same_object():
    network, graph = traced(SAME["all is read"])
    assert narrow(network, graph) is graph
