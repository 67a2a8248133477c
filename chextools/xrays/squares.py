"""How an image becomes the square that a network takes: the same way as where the network was trained.

fit     what becomes of the proportions
        squash                the whole image, not kept, as in the study
        shorter-centre-crop   the square of the shorter side in the middle, as torchxrayvision
        pad                   the whole image, kept, on black
resample  how pixels become fewer
        pil      Pillow's bilinear filter as wide as the step, in 8 bits; large JPEGs are decoded reduced
        torch    the same filter without rounding, as torchvision's antialias=True on tensors
        skimage  a Gaussian filter, then linear: skimage.transform.resize, which torchxrayvision calls
        none     linear between four pixels, as OpenCV's and older torchvision's on tensors
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chextools.xrays import images, packs

FITS = ("squash", "shorter-centre-crop", "pad")
RESAMPLES = ("pil", "torch", "skimage", "none")


@dataclass(frozen=True, order=True)
class Square:
    """A network's input: its side in pixels, and how an image becomes it."""

    size: int
    fit: str = "squash"
    resample: str = "pil"

    def pixels(self, record: Mapping) -> np.ndarray:
        """[size, size] of a record's image, in grey levels from 0 to 255: uint8, or float32 where not rounded.

        Raises InputError for what is no image, naming its file.
        """
        if self.fit == "squash" and self.resample == "pil":
            return packs.pixels(record, self.size)
        return self.made(images.read(record["image"]))

    def made(self, image: np.ndarray) -> np.ndarray:
        """The same of an image [height, width], uint8."""
        return _resized(_squared(image, self.fit), self.size, self.resample)

    def whole(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that the whole image of `size` has at the scale of the square; at least 1."""
        height, width = size
        if self.fit == "squash":
            return self.size, self.size
        side = min(size) if self.fit == "shorter-centre-crop" else max(size)
        return max(1, round(height * self.size / side)), max(1, round(width * self.size / side))

    def seen(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the square in pixels of an image of `size` (height, width); may be outside."""
        height, width = size
        if self.fit == "squash":
            return 0, 0, height, width
        if self.fit == "pad":
            side = max(size)
            top, left = -((side - height) // 2), -((side - width) // 2)
        else:
            side = min(size)
            top, left = height // 2 - side // 2, width // 2 - side // 2
        return top, left, top + side, left + side

    def mapped_back(self, maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Maps [..., h, w] over the square as maps [..., *whole(size)] over the image, bilinear, half-pixel centres.

        0 where the network did not look. Maps of a squashed image are over all of it: they come back as they are.
        """
        if self.fit == "squash":
            return maps
        height, width = self.whole(size)
        top, left, bottom, right = self.seen(size)
        rows, inside_y = _positions(height, size[0], top, bottom, maps.shape[-2])
        columns, inside_x = _positions(width, size[1], left, right, maps.shape[-1])
        found = _between(_between(maps, rows, -2), columns, -1)
        return np.where(inside_y[:, None] & inside_x, found, 0).astype(maps.dtype)


def _squared(image: np.ndarray, fit: str) -> np.ndarray:
    height, width = image.shape
    top, left, bottom, right = Square(1, fit).seen((height, width))
    if fit != "pad":
        return image[top:bottom, left:right]
    square = np.zeros((bottom - top, right - left), image.dtype)
    square[-top : height - top, -left : width - left] = image
    return square


def _resized(image: np.ndarray, size: int, resample: str) -> np.ndarray:
    if resample == "pil":
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    if image.shape == (size, size):
        return image.astype(np.float32)
    if resample == "skimage":
        return _by_skimage(image, size)
    return _linear(_linear(image.astype(np.float32), size, 0, resample == "torch"), size, 1, resample == "torch")


def _linear(image: np.ndarray, size: int, axis: int, wide: bool) -> np.ndarray:
    """A side resized by a triangle filter: as wide as the step where that is greater than a pixel, or of two pixels."""
    side = image.shape[axis]
    step = side / size
    reach = max(step, 1.0) if wide else 1.0
    centres = (np.arange(size) + 0.5) * step
    offsets = np.arange(int(np.ceil(2 * reach)) + 2)
    first = np.floor(centres - reach).astype(int)[:, None]
    places = first + offsets
    weights = np.maximum(0, 1 - np.abs((places + 0.5 - centres[:, None]) / reach))
    if wide:
        weights = np.where((places >= 0) & (places < side), weights, 0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    taken = np.moveaxis(image, axis, 0)[np.clip(places, 0, side - 1)]
    return np.moveaxis(np.einsum("nk,nk...->n...", weights, taken), 0, axis)


def _by_skimage(image: np.ndarray, size: int) -> np.ndarray:
    """skimage.transform.resize(image, (size, size), mode="constant", preserve_range=True) of floats."""
    from scipy import ndimage

    values = image.astype(np.float32)
    factors = np.array(image.shape) / size
    if max(factors) > 1:
        values = ndimage.gaussian_filter(values, np.maximum(0, (factors - 1) / 2), mode="grid-constant", cval=0)
    found = ndimage.zoom(values, 1 / factors, order=1, mode="grid-constant", cval=0, grid_mode=True)
    return np.clip(found, image.min(), image.max())


def _positions(count: int, side: int, start: int, stop: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """(places among `cells` over [start, stop), whether there) of `count` pixel centres over a side of the image."""
    at = (np.arange(count) + 0.5) * side / count
    return (at - start) / (stop - start) * cells - 0.5, (at >= start) & (at < stop)


def _between(maps: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    count = maps.shape[axis]
    places = np.clip(places, 0, count - 1)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, count - 1)
    share = (places - low).reshape([-1 if d == axis % maps.ndim else 1 for d in range(maps.ndim)])
    return maps.take(low, axis) * (1 - share) + maps.take(high, axis) * share
