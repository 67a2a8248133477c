"""BatchNorm in its neighbours' weights: the same outputs and gradients from fewer layers."""

from __future__ import annotations

import pytest
import torch
from small_networks import lively, tiny
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from chextools.models.canonical import as_canonical
from chextools.models.folded import Bound, fold


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def images(channels: int) -> torch.Tensor:
    return torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()


def assert_same(folded: nn.Module, network: nn.Module, channels: int = 3) -> None:
    """The same outputs, and the same gradients of them by the image."""
    x = images(channels)
    outputs = [each(x) for each in (folded, network)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def dense() -> nn.Module:
    """As in a DenseNet: each norm precedes a ReLU, and both a layer of one pixel. One scale is below 0, one is 0."""
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1)]
    layers += [nn.ReLU(), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)]
    network = lively(nn.Sequential(*layers))
    network[2].weight.data[:3] = torch.tensor([-0.7, 0.0, 1e-20])
    network[6].weight.data[1] = -1.5
    return network


def test_what_follows_a_convolution_is_in_its_weights():
    network = lively(tiny(2))
    folded = fold(as_canonical(network))
    assert not norms(folded) and len(norms(network)) == 1
    expected = fuse_conv_bn_eval(network[0], network[1])
    found = next(module for module in folded.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3)
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.bias, expected.bias)
    assert_same(folded, network)


def test_what_precedes_a_relu_goes_forward_only_where_asked():
    network = dense()
    plain, forward = (fold(as_canonical(network), forward=each) for each in (False, True))
    assert (len(norms(plain)), len(norms(forward))) == (2, 0)
    assert sum(isinstance(module, Bound) for module in forward.modules()) == 2
    assert_same(plain, network)
    assert_same(forward, network)


def test_weights_that_stay_are_shared_and_the_network_is_left_as_it_is():
    network = lively(tiny(2))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold(as_canonical(network))
    assert network[7].weight.data_ptr() in {p.data_ptr() for p in folded.parameters()}
    assert not any(p.requires_grad for p in folded.parameters()) and not folded.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    "between", [nn.AvgPool2d(2, padding=1), nn.AvgPool2d(3, ceil_mode=True), nn.MaxPool2d(2), nn.Sigmoid()]
)
def test_a_norm_stays_where_something_else_than_averages_is_between(between):
    layers = [nn.BatchNorm2d(3), nn.ReLU(), between, nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = lively(nn.Sequential(*layers))
    folded = fold(as_canonical(network), forward=True)
    assert len(norms(folded)) == 1
    assert_same(folded, network)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 2, 1, groups=2), nn.Conv2d(4, 2, 1, padding=1)]
)
def test_a_norm_does_not_go_into_a_layer_that_pads_or_has_groups(layer):
    network = lively(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    folded = fold(as_canonical(network), forward=True)
    assert len(norms(folded)) == 1
    assert_same(folded, network, channels=4)


class Twice(nn.Module):
    """One convolution at two places, and one whose output is used beside its norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.fork = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(self.conv(x)))
        fork = self.fork(x)
        return (fork + self.other(fork)).mean((2, 3))


def test_layers_that_are_used_twice_keep_their_weights():
    network = lively(Twice())
    folded = fold(as_canonical(network), forward=True)
    assert len(norms(folded)) == 2
    assert_same(folded, network)


class AsFunction(nn.Module):
    """Its norm is a function's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.norm
        y = functional.batch_norm(self.conv(x), n.running_mean, n.running_var, n.weight, n.bias, eps=1e-3)
        return y.mean((2, 3))


def test_a_norm_that_is_a_function():
    network = lively(AsFunction())
    folded = fold(as_canonical(network))
    assert "batch_norm" not in folded.code
    assert_same(folded, network)


def test_a_bound_passes_what_is_inside():
    bound = Bound(torch.tensor([0.0, -torch.inf]), torch.tensor([torch.inf, 1.0]))
    x = torch.tensor([[[-1.0, 0.0, 2.0], [-1.0, 1.0, 2.0]]])
    assert bound(x).tolist() == [[[0, 0, 2], [-1, 1, 1]]]
    assert bound.inside(x).tolist() == [[[False, False, True], [True, False, False]]]
