"""Rules for what transformers and gated networks are made of, against the formulas of their papers, in float64."""

from __future__ import annotations

import pytest
import torch
from small_networks import lively
from torch import nn

from chextools.models import assembly, tracing
from chextools.saliency.deeplift import maps as deeplift
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
