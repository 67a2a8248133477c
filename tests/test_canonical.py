"""Canonical networks: the same keys and results as torchvision's, nothing in place, nothing used twice."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from conftest import need_module
from torch import nn

from chextools.errors import InputError
from chextools.models import architectures
from chextools.models.canonical import DEFAULT_LAYERS, as_canonical, cut

FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
]
POOLED = (
    "densenet",
    "efficientnet",
    "googlenet",
    "inception",
    "mnasnet",
    "mobilenet_v2",
    "regnet",
    "res",
    "shuffle",
    "swin",
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Small networks gain nothing from more, and lose much where others compute too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(arch: str, outputs: int = 5, size: int = 96) -> nn.Module:
    torch.manual_seed(0)
    model = architectures.build(arch, outputs, size).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # untrained ones do nothing
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


@pytest.mark.parametrize("arch", FAMILIES)
def test_keys_and_results_are_torchvisions_whole_and_cut(arch):
    size = 224 if arch == "maxvit_t" else 96
    model = network(arch, size=size)
    images = torch.randn(2, 3, size, size)
    made = as_canonical(model)
    parts = cut(made)
    with torch.no_grad():
        wanted = model(images)
        assert torch.equal(made(images), wanted)
        values = parts.features(images)
        assert torch.equal(parts.head(*values), wanted)
        if parts.linear is not None:
            by_hand = values[0].mean((2, 3)) @ parts.linear.T
            bias = wanted - by_hand
            torch.testing.assert_close(bias[0], bias[1], rtol=1e-4, atol=1e-4)
    assert (parts.linear is not None) == arch.startswith(POOLED)
    assert made.state_dict().keys() == model.state_dict().keys()
    calls = Counter(node.target for node in made.graph.nodes if node.op == "call_module")
    with_weights = {name for name in calls if any(True for _ in made.get_submodule(name).parameters())}
    assert {name for name, count in calls.items() if count > 1} <= with_weights
    assert not any(getattr(module, "inplace", False) for module in made.modules())
    functions = {getattr(node.target, "__name__", "") for node in made.graph.nodes if node.op == "call_function"}
    assert not functions & {"relu", "relu_", "silu", "hardswish", "iadd", "max_pool2d", "avg_pool2d"}


def test_every_family_of_torchvision_is_among_them():
    families = [arch.rstrip("0123456789").split("_")[0] for arch in FAMILIES]
    starts = ("vgg", "mnasnet", "resne", "wide_resnet", *(family for family in families))
    assert [name for name in architectures.classifiers() if not name.startswith(starts)] == []
    assert len(DEFAULT_LAYERS) == 18


def test_inception_v4_through_the_extra():
    timm = need_module("timm")
    model = timm.create_model("inception_v4", num_classes=2).eval()
    images = torch.randn(1, 3, 96, 96)
    made = as_canonical(model)
    assert made.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(made(images), model(images))
    assert cut(made).linear.shape == (2, 1536)


def test_the_callers_network_is_left_as_it_is():
    model = network("resnet18").train()
    seen = []
    model.layer4.register_forward_hook(lambda *_: seen.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = as_canonical(model)
    made(torch.randn(2, 3, 64, 64))
    assert seen == [] and model.training and not made.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(not p.requires_grad for p in made.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert made.conv1.weight.data_ptr() == model.conv1.weight.data_ptr()  # shared, not copied
    assert model.relu.inplace


def test_half_precision_weights_become_single():
    assert {p.dtype for p in as_canonical(network("resnet18").half()).parameters()} == {torch.float32}


@pytest.mark.parametrize("layer", ["layer1", "layer3.0.relu", "layer3.0.relu_1", "layer2.1.conv1", "maxpool"])
def test_a_cut_anywhere_gives_the_whole(layer):
    """Also inside a residual block, where the shortcut goes past the cut."""
    made = as_canonical(network("resnet18"))
    images = torch.randn(2, 3, 64, 64)
    parts = cut(made, layer)
    assert torch.equal(parts.head(*parts.features(images)), made(images))


def test_an_unknown_layer_is_one_line_with_a_suggestion():
    made = as_canonical(network("resnet18"))
    with pytest.raises(InputError, match=r"^ResNet has no layer 'layer5' \(did you mean 'layer\d'\?\); it has conv1, "):
        cut(made, "layer5")


def test_a_family_without_a_default_layer_asks_for_one():
    class Mine(nn.Sequential):
        pass

    made = as_canonical(Mine(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)))
    with pytest.raises(InputError, match=r"^Mine has no feature maps that could be found; name a layer with --layer$"):
        cut(made)
    assert cut(made, "1").layer == "1"


def test_a_network_that_cannot_be_traced_is_one_line():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(InputError, match="^Branching cannot be traced for saliency: "):
        as_canonical(Branching())
