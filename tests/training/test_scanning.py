"""Crops, exposures and borders: no more than they say, and the same from the same seed."""

from __future__ import annotations

import numpy as np
import torch

from chextools.training import augment
from chextools.training.augment import Augmentation


def test_a_crop_is_a_part_of_the_image_brought_back_to_its_size():
    """On an image whose levels are its columns, what a crop shows is a straight line between two of them."""
    pixels = torch.arange(200, dtype=torch.uint8).repeat(64, 200, 1)
    found = augment.apply(pixels, Augmentation(crop=0.5), 3)[:, 100]
    share = (found[:, 190] - found[:, 10]) / 180
    assert 0.5 <= share.min() < 0.52 and 0.97 < share.max() <= 1.0001
    assert found.min() >= 0 and found.max() <= 199  # nothing comes into view
    assert (found[:, 100] - 99.5).abs().max() > 40  # anywhere


def test_an_exposure_is_a_rising_curve_about_the_mean():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(200, 0)
    found = augment.scanned(pixels, Augmentation(exposure=0.3), 5).reshape(200, 256).astype(int)
    assert found.dtype == int and (np.diff(found, axis=1) >= 0).all()
    middle = found[:, 128] / 255
    assert middle.min() < 0.42 and middle.max() > 0.58 and abs(middle.mean() - 0.5) < 0.03
    assert (middle > 0.5 - 0.11 - 0.075).all() and (middle < 0.5 + 0.11 + 0.075).all()
    assert (augment.scanned(pixels, Augmentation(exposure=0.3), 5).reshape(200, 256) == found).all()
    assert (augment.scanned(pixels, Augmentation(exposure=0.3), 6).reshape(200, 256) != found).any()


def test_borders_are_one_grey_up_to_their_share_and_every_other_image_has_them():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 40, 40)).astype(np.uint8)
    how = Augmentation(border=0.2)
    found, edges = augment.scanned(pixels, how, 1), augment.edges(how, 1, 40, 100)
    has = edges.any(axis=1)
    assert 30 < has.sum() < 70 and (found[~has] == pixels[~has]).all()
    assert edges.max() == 8 and (edges[has].min(axis=1) < 8).all()
    for image, before, (top, bottom, left, right) in zip(found, pixels, edges):
        inside = np.zeros((40, 40), bool)
        inside[top : 40 - bottom, left : 40 - right] = True
        assert (image[inside] == before[inside]).all() and len(set(image[~inside])) <= 1


def test_each_change_stands_alone_and_a_part_of_a_batch_is_that_of_the_whole():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 20)).astype(np.uint8)
    both = Augmentation(exposure=0.3, border=0.2)
    whole = augment.scanned(pixels, both, 9)
    assert (augment.scanned(pixels[2:4], both, 9, slice(2, 4), 5) == whole[2:4]).all()
    exposed = augment.scanned(pixels, Augmentation(exposure=0.3), 9)
    for image, alone, edge in zip(whole, exposed, augment.edges(both, 9, 20, 5)):
        augment.paint(alone, edge, 0)
        augment.paint(image, edge, 0)
        assert (image == alone).all()
    assert augment.scanned(pixels, Augmentation(), 9) is pixels
