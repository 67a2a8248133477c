"""Rules for what transformers and gated networks are made of, against the formulas of their papers, in float64."""

from __future__ import annotations

import pytest
import torch
from small_networks import lively
from torch import nn

from chextools.models import assembly, tracing
from chextools.saliency.deeplift import maps as deeplift
from chextools.saliency.lrp import accounted
from chextools.saliency.lrp import maps as lrp
from chextools.saliency.network import Network
from chextools.saliency.rules import gates


class Attention(nn.Module):
    """Each pixel of an image [N, 3, 2, 2] is a token."""

    def __init__(self, fused: bool):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(3, 3, bias=False) for _ in range(3))
        self.head, self.fused = nn.Linear(3, 2, bias=False), fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.fused:
            o = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            o = (q @ k.transpose(1, 2) * 3**-0.5).softmax(-1) @ v
        return self.head(o.mean(1))


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.head = (
            nn.Conv2d(3, 4, 1, bias=False),
            nn.Conv2d(4, 4, 1),
            nn.Linear(4, 2, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head((x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()).mean((2, 3)))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(3, bias=False), nn.Linear(3, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(x.flatten(2).transpose(1, 2)).mean(1))


def in_float64(module: nn.Module, side: int = 2) -> tuple[nn.Module, Network, torch.Tensor]:
    torch.manual_seed(0)
    module = lively(module)
    graph, tensors = tracing.trace(module, 3, side)
    tensors = {key: tensor.double() for key, tensor in tensors.items()}
    layer = graph.nodes[0].name
    made = assembly.assemble(graph, tensors, 3, side)
    return module.double(), Network(made, layer), torch.randn(1, 3, side, side).double()


@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_attention_by_attnlrp(fused):
    """Achtibat et al. 2024: halves to the factors of a product, a softmax by its first-order Taylor expansion."""
    module, network, images = in_float64(Attention(fused))
    x = images[0].flatten(1).T
    q, k, v = module.q(x), module.k(x), module.v(x)
    s = q @ k.T * 3**-0.5
    a = s.softmax(-1)
    o = a @ v
    relevance = o * module.head.weight[1] / 4
    r_a, r_v = a * (relevance / o @ v.T) / 2, v * (a.T @ (relevance / o)) / 2
    r_s = s * (r_a - a * r_a.sum(-1, keepdim=True))
    r_q, r_k = q * (r_s / s * 3**-0.5 @ k) / 2, k * ((r_s / s * 3**-0.5).T @ q) / 2
    wanted = sum(
        x * (part / value @ layer.weight)
        for part, value, layer in ((r_q, q, module.q), (r_k, k, module.k), (r_v, v, module.v))
    )
    found = lrp(network, images, [1], rule="epsilon", epsilon=1e-14)
    torch.testing.assert_close(found[0, 0].flatten(), wanted.sum(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(r_a.sum() + r_v.sum(), relevance.sum())


@torch.no_grad()
def test_a_gate_gets_nothing_and_relevance_is_kept():
    """Arras et al. 2017: the map takes all, so that without biases relevance sums to the logit."""
    module, network, images = in_float64(Gated())
    assert len(gates(network.model)) == 1
    found = lrp(network, images, [0, 1], rule="epsilon", epsilon=1e-14)
    torch.testing.assert_close(found.sum((2, 3)), module(images), rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_the_deviation_of_a_norm_is_a_constant_and_relevance_is_kept():
    """Ali et al. 2022."""
    module, network, images = in_float64(Normed())
    found = lrp(network, images, [0, 1], rule="epsilon", epsilon=1e-14)
    torch.testing.assert_close(found.sum((2, 3)), module(images), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("module", [Attention(False), Attention(True), Gated(), Normed()], ids=range(4))
def test_deeplift_sums_to_the_change_to_the_last_digit(module):
    module, network, images = in_float64(module)
    start = torch.randn(images.shape, dtype=images.dtype).mean((2, 3), keepdim=True).expand_as(images)
    baseline = start[0, :, 0, 0].tolist()
    found = deeplift(network, images, [0, 1], baseline=baseline)
    change = (module(images) - module(start)).detach()
    torch.testing.assert_close(found.sum((2, 3)), change, rtol=1e-9, atol=1e-12)


def test_a_product_gives_its_factors_their_shapley_values():
    """x1 x2 from (0, 0): half of it to each; from (0, c): all of what changed to x1 at the mean of x2 and c."""

    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :1] * x[:, 1:2]).flatten(1)[:, :1] * 1.0

    graph, tensors = tracing.trace(Product(), 3, 1)
    network = Network(assembly.assemble(graph, tensors, 3, 1), graph.nodes[0].name)
    images = torch.tensor([2.0, 5.0, 1.0]).reshape(1, 3, 1, 1)
    assert deeplift(network, images, [0]).item() == pytest.approx(10)
    assert deeplift(network, images, [0], baseline=[0.0, 3.0, 0.0]).item() == pytest.approx(2 * 4 + 2 * 1)


class Block(nn.Module):
    """What a transformer is made of, with biases everywhere, a class token and positions."""

    def __init__(self):
        super().__init__()
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.zeros(1, 5, 4))
        self.patches, self.qkv, self.out = nn.Conv2d(3, 4, 1), nn.Linear(4, 12), nn.Linear(4, 4)
        self.one, self.two, self.act = nn.LayerNorm(4), nn.LayerNorm(4), nn.GELU()
        self.up, self.down, self.head = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        q, k, v = self.qkv(self.one(x)).reshape(x.shape[0], 5, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return self.head((x + self.down(self.act(self.up(self.two(x)))))[:, 0])


class Cosine(nn.Module):
    """Attention as in Swin v2, by einsum as in MaxViT."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(3, 3) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).transpose(1, 2)
        q, k = (nn.functional.normalize(layer(x), dim=-1) for layer in (self.q, self.k))
        attention = (torch.einsum("nid,njd->nij", q, k) * 5).softmax(-1)
        return self.head(torch.einsum("nij,njd->nid", attention, self.v(x)).mean(1))


@pytest.mark.parametrize("module", [Block(), Cosine(), Gated(), Attention(True)], ids=range(4))
@pytest.mark.parametrize("rule", ["epsilon", "epsilon-plus"])
def test_what_the_input_has_and_what_was_absorbed_are_the_logit(module, rule):
    """Whatever biases, epsilon, tokens, positions and softmaxes take, to the last digit and image by image."""
    module, network, images = in_float64(module)
    images = torch.cat([images, torch.randn(2, *images.shape[1:]).double()])
    found, absorbed = accounted(network, images, [0, 1], rule=rule)
    torch.testing.assert_close(found.sum((2, 3)) + absorbed, module(images).detach(), rtol=1e-9, atol=1e-11)
    for k in range(3):
        alone, taken = accounted(network, images[k : k + 1], [0, 1], rule=rule)
        torch.testing.assert_close(alone[0], found[k])
        torch.testing.assert_close(taken[0], absorbed[k])


def test_deeplift_of_cosine_attention_sums_to_the_change():
    module, network, images = in_float64(Cosine())
    change = (module(images) - module(torch.full_like(images, 0.3))).detach()
    found = deeplift(network, images, [0, 1], baseline=[0.3, 0.3, 0.3])
    torch.testing.assert_close(found.sum((2, 3)), change, rtol=1e-9, atol=1e-12)


def test_attention_is_lxts():
    """AttnLRP's authors' own; not of the extra `parity`, as it would bring bitsandbytes, accelerate and more."""
    published = pytest.importorskip("lxt.explicit.functional")
    module, network, images = in_float64(Attention(False))
    x = images.flatten(2).transpose(1, 2).requires_grad_()
    q, k, v = (published.linear_epsilon(x, each.weight, None, 0.0) for each in (module.q, module.k, module.v))
    scores = published.mul2(published.matmul(q, k.transpose(1, 2), False, 0.0), 3**-0.5)
    o = published.matmul(published.softmax(scores, -1), v, False, 0.0)
    logit = published.linear_epsilon(published.mean(o, 1, False, 0.0), module.head.weight, None, 0.0)[:, 1]
    (wanted,) = torch.autograd.grad(logit, x, logit.detach())
    found = lrp(network, images, [1], rule="epsilon", epsilon=1e-14)
    torch.testing.assert_close(found[0, 0].flatten(), wanted[0].sum(1), rtol=1e-6, atol=1e-9)


def test_of_a_class_tokens_network_less_is_computed_and_grad_cam_is_the_same():
    module, network, images = in_float64(Block())
    images = torch.cat([images, 2 * images.flip(3)])
    network = Network(network.model, "one")
    assert len(network._cut.entries) == 1
    values = network.features(images)
    torch.testing.assert_close(network.head(values), module(images).detach())
    rows = [node.args[0] for node in network._cut.head.graph.nodes if node.target in ("up", "down", "out", "two")]
    shapes = {}

    class Watched(torch.fx.Interpreter):
        def run_node(self, n):
            shapes[n] = value = super().run_node(n)
            return value

    Watched(network._cut.head).run(*values)
    assert len(rows) == 4 and all(shapes[node].shape[1] == 1 for node in rows)
    features, means = network.mean_gradients(images, [0, 1])
    _, gradients = network.gradients(images, [0, 1])
    for mean, gradient in zip(means, gradients):
        torch.testing.assert_close(mean, gradient.mean((2, 3)))
