"""Changes of images: no more than was said, from the seed alone."""

from __future__ import annotations

import pytest
import torch

from chextools.training.augment import Augmentation, apply


def square() -> torch.Tensor:
    """64 images [41, 41] with a bright square in their middle."""
    pixels = torch.zeros(64, 41, 41, dtype=torch.uint8)
    pixels[:, 18:23, 18:23] = 200
    return pixels


def test_nothing_asked_is_nothing_done():
    pixels = square()
    assert apply(pixels, Augmentation(), 1) is pixels


def test_augmentation_moves_and_shades_by_no_more_than_it_says():
    pixels = square()
    moved = apply(pixels, Augmentation(shift=0.1), 1)
    place = torch.arange(41.0)
    total = moved.sum(dim=(1, 2))
    x, y = (moved.sum(dim=1) @ place) / total - 20, (moved.sum(dim=2) @ place) / total - 20
    assert x.abs().max() <= 4.11 and y.abs().max() <= 4.11 and x.abs().max() > 3 and (x * y).mean().abs() < 3
    shaded = apply(pixels, Augmentation(brightness=0.1), 1)[:, 20, 20]
    assert 200 - 25.6 <= shaded.min() < 185 and 215 < shaded.max() <= 200 + 25.6
    same, other = (apply(pixels, Augmentation(shift=0.1), seed) for seed in (1, 2))
    assert torch.equal(moved, same) and not torch.equal(moved, other)


def test_scale_makes_larger_and_smaller():
    area = apply(square(), Augmentation(scale=0.2), 3).sum(dim=(1, 2)) / (25 * 200)
    assert 0.8**2 - 0.05 < area.min() < 0.75 and 1.3 < area.max() < 1.2**2 + 0.05


def test_rotation_keeps_the_middle_and_how_much_there_is():
    pixels = torch.zeros(64, 41, 41, dtype=torch.uint8)
    pixels[:, 19:22, 8:33] = 200  # a bar
    turned = apply(pixels, Augmentation(rotate=45), 0)
    assert (turned[:, 20, 20] > 150).all()
    torch.testing.assert_close(turned.sum(dim=(1, 2)), torch.full((64,), 75 * 200.0), rtol=0.05, atol=0)
    rows = (turned > 100).any(dim=2).sum(dim=1)  # how many the bar reaches into
    assert rows.min() <= 5 and 15 <= rows.max() <= 25 * 0.5**0.5 + 4


def test_contrast_is_about_the_mean_and_no_value_leaves_the_range():
    pixels = square()
    mean = pixels.float().mean(dim=(1, 2))
    torch.testing.assert_close(apply(pixels + 20, Augmentation(contrast=0.1), 0).mean(dim=(1, 2)), mean + 20)
    bright = apply(pixels, Augmentation(brightness=1, contrast=1), 0)
    assert bright.min() == 0 and bright.max() == 255


def test_a_flip_mirrors_about_half_of_the_images():
    pixels = torch.zeros(64, 9, 9, dtype=torch.uint8)
    pixels[:, :, :2] = 200
    flipped = apply(pixels, Augmentation(flip=True), 0)
    right = (flipped[:, :, 8] > 100).all(dim=1)
    assert 16 < right.sum() < 48
    torch.testing.assert_close(flipped[right], pixels[right].flip(2).float())


@pytest.mark.parametrize("part", [slice(2, 4), slice(0, 5), slice(4, 5)])
def test_augmentation_of_a_part_is_that_of_the_whole(part):
    pixels = torch.randint(0, 255, (5, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    how = Augmentation(5, 0.1, 0.1, 0.1, 0.1, True)
    torch.testing.assert_close(apply(pixels[part], how, 7, part, 5), apply(pixels, how, 7)[part])
