"""chex-train --outlines: masks that go where the images go, and a loss that is the energy outside of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_networks import lively
from torch import nn
from torchvision import models

from chextools.errors import InputError
from chextools.masks.mask import Mask
from chextools.models.checkpoints import columns
from chextools.saliency import hirescam
from chextools.saliency.network import Network
from chextools.training import augment, guidance
from chextools.training.data import Data
from chextools.training.guidance import Guide
from chextools.training.outlines import Outlines, read_outlines

# Masks


def test_masks_go_where_the_images_go():
    """A mask that is also the image is still the image after both were rotated, moved, scaled, cropped and mirrored."""
    random = np.random.default_rng(0)
    masks = np.zeros((6, 40, 40), np.float32)
    for mask in masks:
        top, left = random.integers(4, 20, 2)
        mask[top : top + 14, left : left + 9] = 1
    pixels = torch.from_numpy((masks * 200).astype(np.uint8))
    how = augment.Augmentation(20, 0.1, 0.2, flip=True, crop=0.6)
    places = [0, 2, 2, 5]
    found = augment.moved(torch.from_numpy(masks[places]), places, how, 7, 6)
    torch.testing.assert_close(found, augment.apply(pixels, how, 7)[places] / 200)
    assert (found - torch.from_numpy(masks[places])).abs().amax((1, 2)).min() > 0.5
    part = augment.apply(pixels[2:4], how, 7, slice(2, 4), 6)
    torch.testing.assert_close(part, augment.apply(pixels, how, 7)[2:4])


def test_masks_are_kept_bit_by_bit_and_squashed_as_the_images_are():
    whole = np.zeros((30, 60), bool)
    whole[10:20, 30:50] = True
    outlines = Outlines(15)
    outlines.add(3, 1, Mask.from_array(whole))
    outlines.add(4, 0, Mask.empty((30, 60)))
    rows = np.array([4, 3, 3])
    assert outlines.pairs(rows) == [(1, 1), (2, 1)] and len(outlines) == 1
    expected = np.zeros((15, 15))
    expected[5:10, 8:12] = 1  # columns 7.5 to 12.5: half of a pixel is covered by 0.5 of 255, rounded
    found = outlines.masks(rows)
    assert found.dtype == np.float32 and found.shape == (2, 15, 15)
    assert (
        found[:, :, [*range(7), *range(8, 12), *range(13, 15)]] == expected[:, [*range(7), *range(8, 12), 13, 14]]
    ).all()


@pytest.fixture
def two_sets(tmp_path, monkeypatch):
    """Of both sets the first image is positive and has the id a; the outline of a is a triangle."""
    monkeypatch.chdir(tmp_path)
    truth = {"a": {"img_size": [20, 20], "Edema": [[[2, 2], [18, 2], [2, 18]]]}, "b": {"img_size": [20, 20]}}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    records = [{"id": "a", "labels": {"Edema": 1}}, {"id": "b", "labels": {"Edema": 0}}]
    return Data(records, "one.csv", ("one.csv",)), Data(records[:1], "two", ("two",))


def test_outlines_are_those_of_positive_labels(two_sets, caplog):
    one, two = two_sets
    found = read_outlines(["gt.json"], [one], ["Fracture", "Edema"], 20, None)
    assert found.pairs(np.arange(2)) == [(0, 1)]
    drawn = Mask.from_polygons((20, 20), [[[2, 2], [18, 2], [2, 18]]]).to_array()
    assert (found.masks(np.array([0]))[0] == drawn).all()
    assert "gt.json: outlines of 1 of 1 positive labels, in 1 images" in caplog.text
    other = read_outlines(["two=gt.json"], [one, two], ["Edema"], 20, None)
    assert other.pairs(np.arange(3)) == [(2, 0)] and other.digest() != found.digest()


def test_outlines_of_nobody_knows_whom_are_refused(two_sets):
    one, two = two_sets
    with pytest.raises(InputError, match="gt.json: a is in one.csv and two: --outlines SET=FILE says of which set it"):
        read_outlines(["gt.json"], [one, two], ["Edema"], 20, None)
    with pytest.raises(InputError, match="gt.json: none of its outlines is of a positive label of one.csv"):
        read_outlines(["gt.json"], [one], ["Fracture"], 20, None)


# The loss


def test_the_loss_by_hand():
    cams = torch.tensor([[[1.0, -5], [3, 0]], [[-1, -1], [-1, -1]]])
    masks = torch.tensor([[[1.0, 1], [0.5, 0]], [[1, 1], [1, 1]]])
    assert guidance.outside(cams, masks).tolist() == pytest.approx([1 - 2.5 / 4, 1])


def network(linear: bool = True) -> nn.Module:
    torch.manual_seed(0)
    head = [nn.Linear(4, 3)] if linear else [nn.Linear(4, 5), nn.Hardswish(), nn.Linear(5, 3)]
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head)


@pytest.mark.parametrize("linear", [True, False])
def test_its_gradient_is_that_of_finite_differences(linear):
    """Of every kind of weights: in the trunk, in batch normalisation, in the head."""
    model = network(linear).double()
    guide = Guide(model.float(), columns(["a", "b", "c"], {}), 12)
    assert guide.is_linear == linear
    model.double()
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    masks = (torch.rand(3, 12, 12, dtype=torch.float64) > 0.6).double()
    pairs = [(0, 1), (0, 2), (2, 1)]

    def loss():
        with guide.watching():
            output = model(images)
        return guide.outside(output, pairs, masks)

    value = loss()
    value.backward()
    assert 0 < float(value.detach()) < 3
    for parameter in (model[0].weight, model[1].bias, model[5].weight):
        at = (0,) * parameter.dim()
        expected = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter[at] += step
                expected.append(float(torch.enable_grad()(loss)()))
                parameter[at] -= step
        assert float(parameter.grad[at]) == pytest.approx((expected[0] - expected[1]) / 2e-6, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "densenet121"])
def test_the_maps_are_hirescams(arch):
    """Of torchvision's networks, whichever way they pool: where one linear layer follows, but for a factor."""
    tasks = [str(number) for number in range(8)]
    model = lively(models.get_model(arch, num_classes=8))
    guide = Guide(model, columns(tasks, {}), 64)
    assert guide.is_linear == (arch in ("shufflenet_v2_x0_5", "densenet121"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = hirescam.maps(Network(model), images, range(8))
    with guide.watching() as watch:
        output = model(images)
    side = expected.shape[-1]
    pairs = [pair for pair in np.ndindex(2, 8) if expected[pair].amax() > 1e-3]
    assert pairs
    for pair in pairs:
        one = torch.zeros(1, 8 * side, 8 * side)
        one[0, :8, :8] = 1  # one cell
        energy = expected[pair].relu()
        value = float(guide.outside(output, [pair], one).detach())
        assert value == pytest.approx(1 - float(energy[0, 0] / energy.sum()), abs=1e-4), pair
    assert watch.maps.shape[-1] == side


def test_networks_without_a_pool_are_refused():
    with pytest.raises(InputError, match="has no pool over its last maps, which --outlines needs"):
        Guide(models.vit_b_32(num_classes=2, image_size=32), [(0, None), (1, None)], 32)
    with pytest.raises(InputError, match="has no pool"):
        Guide(models.shufflenet_v2_x0_5(num_classes=2), [(0, None), (1, None)], 32)  # maps of one cell
