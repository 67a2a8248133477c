"""chex-train --trunk-rate and --layer-decay: which weights move, and how far."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from chextools.training import rates


def rate_of(model: nn.Module, *settings) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in rates.groups(model, *settings) for p in group["params"]}


def small() -> nn.Module:
    """Made in another order than it runs in."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.norm(self.second(self.first(x))).mean((2, 3)))

    return Small()


def test_the_trunk_has_a_share_of_the_heads_rate():
    found = rate_of(small(), 0.5, 0.1, 1, 8)
    assert {name for name, rate in found.items() if rate == 0.5} == {"head.weight", "head.bias"}
    assert len(found) == 8 and {rate for name, rate in found.items() if "head" not in name} == {0.05}


def test_rates_fall_geometrically_towards_the_image():
    found = rate_of(small(), 1.0, 0.5, 0.01, 8)
    assert found["head.bias"] == 1 and found["norm.bias"] == 0.5
    assert found["second.weight"] == pytest.approx(0.05) and found["first.weight"] == pytest.approx(0.005)


@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "vit_b_16"])
def test_every_weight_of_any_network_has_one_rate(arch):
    model = models.get_model(arch, num_classes=2, **({"image_size": 32} if arch == "vit_b_16" else {}))
    found = rate_of(model, 1.0, 1.0, 0.1, 32)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    values = list(found.values())
    assert min(values) == pytest.approx(0.1) and max(values) == 1
    if arch == "vit_b_16":
        inner = "encoder.layers.encoder_layer_{}.self_attention.in_proj_weight".format
        assert found["class_token"] == pytest.approx(0.1) and found[inner(2)] < found[inner(9)]


def test_one_rate_is_one_group():
    model = small()
    (group,) = rates.groups(model, 0.5, 1, 1, 8)
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


def test_a_frozen_trunk_keeps_weights_and_statistics():
    model = small()
    kept = rates.freeze_trunk(model)
    assert kept == [model.norm]
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    assert rate_of(model, 1.0, 1.0, 0.1, 8).keys() == {"head.weight", "head.bias"}
    assert torch.is_grad_enabled()
