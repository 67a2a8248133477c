"""How an image becomes the square that a network takes: the same way as where the network was trained.

fit     what becomes of the proportions
        squash                the whole image, not kept, as in the study
        shorter-centre-crop   the square of the shorter side in the middle, as torchxrayvision
        pad                   the whole image, kept, on black
resize_to  the side, the shorter one of a crop, that the whole image is resized to before the middle is taken: Resize
        and CenterCrop of torchvision, timm and transformers, to the pixel. None: the square is taken first
resample  how pixels become fewer
        pil      Pillow's filter as wide as the step, in 8 bits
        draft    the same, but large JPEGs are decoded reduced: quicker, and what chex-train does
        torch    the same filter without rounding, as torchvision's antialias=True on tensors
        skimage  a Gaussian filter, then linear: skimage.transform.resize, which torchxrayvision calls
        none     between the nearest pixels, as OpenCV's and older torchvision's on tensors
interpolation  the filter: bilinear or bicubic; Pillow has lanczos and nearest, too
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chextools.errors import InputError
from chextools.xrays import images, packs

MAX_RESIZED = 1 << 14
FITS = ("squash", "shorter-centre-crop", "pad")
RESAMPLES = ("pil", "draft", "torch", "skimage", "none")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
_OF_PILLOW = ("pil", "draft")


@dataclass(frozen=True, order=True)
class Square:
    """A network's input: its side in pixels, and how an image becomes it."""

    size: int
    fit: str = "squash"
    resample: str = "draft"
    interpolation: str = "bilinear"
    resize_to: int = 0  # 0: the square is taken first

    def check(self) -> None:
        """Raise InputError for what does not go together."""
        if self.fit not in FITS or self.resample not in RESAMPLES or self.interpolation not in INTERPOLATIONS:
            raise InputError(f"images become squares in an unknown way ({self.fit[:40]!r})")
        usable = {"skimage": ("bilinear",), "draft": ("bilinear",), "torch": INTERPOLATIONS[:2]}
        if self.interpolation not in usable.get(
            self.resample, INTERPOLATIONS[:2] if self.resample == "none" else INTERPOLATIONS
        ):
            raise InputError(f"the filter {self.resample} has no {self.interpolation} interpolation")
        if self.resize_to and self.fit == "pad":
            raise InputError("an image that is padded to a square is not resized to another side first")
        if self.resize_to and not self.size <= self.resize_to <= MAX_RESIZED:
            raise InputError(f"an image resized to {self.resize_to} pixels has no square of {self.size} in its middle")

    def described(self) -> str:
        return self.fit if not self.resize_to else f"{self.fit} of {self.resize_to} pixels"

    @property
    def sees_all(self) -> bool:
        """Whether the square is all of the image, its proportions not kept."""
        return self.fit == "squash" and self.resize_to in (0, self.size)

    @property
    def crops(self) -> bool:
        """Whether the network does not see all of an image."""
        return self.fit == "shorter-centre-crop" or self.resize_to > self.size

    def pixels(self, record: Mapping) -> np.ndarray:
        """[size, size] of a record's image, in grey levels from 0 to 255: uint8, or float32 where not rounded.

        Raises InputError for what is no image, naming its file.
        """
        if self.sees_all and self.resample == "draft":
            return packs.pixels(record, self.size)
        return self.made(images.read(record["image"]))

    def made(self, image: np.ndarray) -> np.ndarray:
        """The same of an image [height, width], uint8."""
        if not self.resize_to:
            return _resized(_squared(image, self.fit), (self.size, self.size), self.resample, self.interpolation)
        height, width = self.whole(image.shape)
        resized = _resized(image, (height, width), self.resample, self.interpolation)
        top, left = _middle(height, self.size), _middle(width, self.size)
        return resized[top : top + self.size, left : left + self.size]

    def whole(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that the whole image of `size` has at the scale of the square; at least 1."""
        height, width = size
        if self.fit == "squash":
            return (self.resize_to or self.size,) * 2
        if self.resize_to:  # as torchvision: the longer side is cut to a whole number
            longer = int(self.resize_to * max(size) / min(size))
            return (self.resize_to, longer) if height <= width else (longer, self.resize_to)
        side = min(size) if self.fit == "shorter-centre-crop" else max(size)
        return max(1, round(height * self.size / side)), max(1, round(width * self.size / side))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of the square in pixels of an image of `size` (height, width); may be outside.

        Whole numbers unless the image is resized first.
        """
        height, width = size
        if self.resize_to:
            rows, columns = self.whole(size)
            top, left = _middle(rows, self.size), _middle(columns, self.size)
            down, right = height / rows, width / columns
            return top * down, left * right, (top + self.size) * down, (left + self.size) * right
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
        if self.sees_all:
            return maps
        height, width = self.whole(size)
        top, left, bottom, right = self.seen(size)
        rows, inside_y = _positions(height, size[0], top, bottom, maps.shape[-2])
        columns, inside_x = _positions(width, size[1], left, right, maps.shape[-1])
        found = _between(_between(maps, rows, -2), columns, -1)
        return np.where(inside_y[:, None] & inside_x, found, 0).astype(maps.dtype)


def _middle(side: int, size: int) -> int:
    """Where the middle of a side starts, as torchvision's CenterCrop rounds it."""
    return int(round((side - size) / 2))


def _squared(image: np.ndarray, fit: str) -> np.ndarray:
    height, width = image.shape
    top, left, bottom, right = map(round, Square(1, fit).seen((height, width)))
    if fit != "pad":
        return image[top:bottom, left:right]
    square = np.zeros((bottom - top, right - left), image.dtype)
    square[-top : height - top, -left : width - left] = image
    return square


def _resized(image: np.ndarray, size: tuple[int, int], resample: str, interpolation: str) -> np.ndarray:
    """An image as one of (height, width) `size`."""
    if resample in _OF_PILLOW:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling[interpolation.upper()]))
    if image.shape == size:
        return image.astype(np.float32)
    if resample == "skimage":
        return _by_skimage(image, size)
    found = image.astype(np.float32)
    for axis in (0, 1):
        found = _filtered(found, size[axis], axis, resample == "torch", interpolation)
    return found


def _triangle(x: np.ndarray, _: bool) -> np.ndarray:
    return np.maximum(0, 1 - x)


def _cubic(x: np.ndarray, wide: bool) -> np.ndarray:
    """Keys's kernel with torch's two constants."""
    a = -0.5 if wide else -0.75
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_KERNELS = {"bilinear": (_triangle, 1), "bicubic": (_cubic, 2)}


def _filtered(image: np.ndarray, size: int, axis: int, wide: bool, interpolation: str) -> np.ndarray:
    """A side resized by a filter that is as wide as the step where that is greater than a pixel, or as it is."""
    side = image.shape[axis]
    kernel, support = _KERNELS[interpolation]
    step = side / size
    scale = max(step, 1.0) if wide else 1.0
    reach = support * scale
    centres = ((np.arange(size) + 0.5) * np.float32(step)).astype(np.float32)  # as torch's
    offsets = np.arange(int(np.ceil(2 * reach)) + 2)
    first = np.floor(centres - reach).astype(int)[:, None]
    places = first + offsets
    weights = kernel(np.abs((places + 0.5 - centres[:, None]) / scale), wide)
    if wide:
        weights = np.where((places >= 0) & (places < side), weights, 0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    taken = np.moveaxis(image, axis, 0)[np.clip(places, 0, side - 1)]
    return np.moveaxis(np.einsum("nk,nk...->n...", weights, taken), 0, axis)


def _by_skimage(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """skimage.transform.resize(image, size, mode="constant", preserve_range=True) of floats."""
    from scipy import ndimage

    values = image.astype(np.float32)
    factors = np.array(image.shape) / size
    if max(factors) > 1:
        values = ndimage.gaussian_filter(values, np.maximum(0, (factors - 1) / 2), mode="grid-constant", cval=0)
    found = ndimage.zoom(values, 1 / factors, order=1, mode="grid-constant", cval=0, grid_mode=True)
    return np.clip(found, image.min(), image.max())


def _positions(count: int, side: int, start: float, stop: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
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
