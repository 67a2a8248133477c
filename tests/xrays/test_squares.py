"""How an image becomes a square, and where a heatmap of the square lies in the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chextools.errors import InputError
from chextools.xrays.squares import FITS, RESAMPLES, Square

WIDE = np.random.default_rng(0).integers(0, 256, (60, 90)).astype(np.uint8)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("resample", RESAMPLES)
def test_every_way_gives_a_square_of_grey_levels(fit, resample):
    made = Square(32, fit, resample).made(WIDE)
    assert made.shape == (32, 32) and made.min() >= 0 and made.max() <= 255
    assert made.dtype == (np.uint8 if resample in ("pil", "draft") else np.float32)


def test_filters_are_those_of_their_libraries():
    x = torch.from_numpy(WIDE.astype(np.float32))[None, None]
    for name, wide in (("torch", True), ("none", False)):
        wanted = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=wide)[0, 0].numpy()
        np.testing.assert_allclose(Square(32, resample=name).made(WIDE), wanted, atol=2e-3)
    transform = pytest.importorskip("skimage.transform")
    wanted = transform.resize(WIDE.astype(np.float32)[None], (1, 32, 32), mode="constant", preserve_range=True)[0]
    np.testing.assert_allclose(Square(32, resample="skimage").made(WIDE), wanted, atol=1e-4)


def test_a_crop_is_torchxrayvisions_and_a_pad_is_black_around():
    crop = Square(60, "shorter-centre-crop", "torch").made(WIDE)
    np.testing.assert_array_equal(crop, WIDE[:, 15:75])
    pad = Square(90, "pad", "torch").made(WIDE)
    np.testing.assert_array_equal(pad[15:75], WIDE)
    assert not pad[:15].any() and not pad[75:].any()


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (61, 97), (64, 64)])
@pytest.mark.parametrize("fit", FITS)
def test_a_heatmap_of_the_square_is_where_its_image_was(fit, size):
    """A blob in the image, through the square and back, is where it was; outside of what was seen there is nothing."""
    square = Square(120, fit, "torch")
    y, x = np.mgrid[: size[0], : size[1]]
    blob = 255 * np.exp(-((y - size[0] * 0.4) ** 2 + (x - size[1] * 0.55) ** 2) / 50)
    maps = square.made(blob.astype(np.uint8))[None]
    back = square.mapped_back(maps, size)
    assert back.shape == (1, *square.whole(size))
    top = np.unravel_index(back[0].argmax(), back[0].shape)
    found = [(place + 0.5) * side / count for place, side, count in zip(top, size, back[0].shape)]
    assert np.allclose(found, [size[0] * 0.4 + 0.5, size[1] * 0.55 + 0.5], atol=1.0)
    everywhere = square.mapped_back(np.ones((1, 4, 4), np.float32), size)[0]
    top, left, bottom, right = square.seen(size)
    share = (
        max(0, min(bottom, size[0]) - max(top, 0)) * max(0, min(right, size[1]) - max(left, 0)) / (size[0] * size[1])
    )
    assert everywhere.mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("shape", [(301, 377), (377, 300), (256, 256), (1000, 301)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_and_centre_crop_are_torchvisions(shape, interpolation):
    """On Pillow's images to the bit; on tensors, with and without antialiasing, to rounding."""
    from PIL import Image
    from torchvision import transforms

    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    mode = transforms.InterpolationMode(interpolation)
    wanted = transforms.Compose([transforms.Resize(64, mode), transforms.CenterCrop(56)])(Image.fromarray(image))
    square = Square(56, "shorter-centre-crop", "pil", interpolation, 64)
    np.testing.assert_array_equal(square.made(image), np.asarray(wanted))
    for resample, wide in (("torch", True), ("none", False)):
        resize = transforms.Compose([transforms.Resize(64, mode, antialias=wide), transforms.CenterCrop(56)])
        wanted = resize(torch.from_numpy(image.astype(np.float32))[None])[0].numpy()
        found = Square(56, "shorter-centre-crop", resample, interpolation, 64).made(image)
        np.testing.assert_allclose(found, wanted, atol=5e-3)


def test_a_heatmap_of_a_crop_of_a_resized_image_lies_where_its_pixels_were():
    square, size = Square(56, "shorter-centre-crop", "pil", "bilinear", 64), (300, 400)
    assert square.whole(size) == (64, 85) and square.crops and not square.sees_all
    top, left, bottom, right = square.seen(size)
    assert (top, bottom) == (4 * 300 / 64, 60 * 300 / 64) and left == pytest.approx(14 * 400 / 85)
    back = square.mapped_back(np.ones((1, 7, 7), np.float32), size)[0]
    assert back.shape == (64, 85) and back.sum() == 56 * 56 and back[4:60, 14:70].all() and right < 400
    assert Square(56, "squash", "pil", "bilinear", 64).crops and Square(56, "squash").sees_all


@pytest.mark.parametrize(
    ("square", "said"),
    [
        (Square(56, "pad", "pil", "bilinear", 64), "padded"),
        (Square(56, "squash", "pil", "bilinear", 40), "no square of 56"),
        (Square(56, "squash", "skimage", "bicubic"), "skimage has no bicubic"),
        (Square(56, "squash", "torch", "lanczos"), "torch has no lanczos"),
        (Square(56, "stretch"), "unknown way"),
    ],
)
def test_what_does_not_go_together_is_said(square, said):
    with pytest.raises(InputError, match=said):
        square.check()
