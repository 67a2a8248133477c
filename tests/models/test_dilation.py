"""Strides of the last stages as dilation: finer maps, the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from chextools.errors import InputError
from chextools.models.dilation import dilate


def side(model: nn.Module, size: int) -> int:
    """Of the maps before the global pool."""
    sides = []
    hook = next(m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d)).register_forward_pre_hook(
        lambda module, inputs: sides.append(inputs[0].shape[-1])
    )
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    hook.remove()
    return sides[0]


@pytest.mark.parametrize("stages, expected", [(0, 5), (1, 10), (2, 20)])
def test_the_last_maps_of_a_resnet_keep_more_cells(stages, expected):
    model = models.resnet18(num_classes=3)
    keys = {name: value.shape for name, value in model.state_dict().items()}
    dilate(model, stages)
    assert side(model, 160) == expected
    assert {name: value.shape for name, value in model.state_dict().items()} == keys


def test_it_is_the_dilation_that_torchvision_has_for_its_bottlenecks():
    torch.manual_seed(0)
    ours, theirs = (
        models.resnet50(num_classes=2),
        models.resnet50(num_classes=2, replace_stride_with_dilation=[False, True, True]),
    )
    dilate(ours, 2)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image))


def test_every_other_cell_of_a_dilated_map_is_a_cell_of_the_plain_one():
    """What dilation is for: the same features, on a grid twice as fine (away from the borders)."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1))
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1))
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        before = strided(image)
        dilate(strided, 1)
        torch.testing.assert_close(strided(image)[..., ::2, ::2], before)
        dilate(plain, 1)
        assert plain(image).shape[-1] == 128


def test_a_network_without_so_many_stages_is_refused():
    with pytest.raises(InputError, match="the network halves its maps 1 times only"):
        dilate(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), 2)
