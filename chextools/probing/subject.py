"""What a probe looks at: an image as the network sees it, and its heatmaps over that."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.xrays.squares import Square

Values = dict[str, dict[str, float]]  # by key of the record, then by task; NaN where undefined
Curves = dict[str, dict[str, list[float]]]


@dataclass
class Subject:
    """An image, and the heatmaps of those tasks that are probed.

    id: of the image. tasks: those with a map. columns: where they are among the network's. square: the input that maps
    refer to. images: grey levels [size, size] by square. heatmaps: as they were read. sign: which evidence counts.
    """

    id: str
    tasks: list[str]
    columns: list[int]
    square: Square
    images: Mapping[Square, np.ndarray]
    heatmaps: Heatmaps
    sign: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def size(self) -> int:
        return self.square.size

    @cached_property
    def maps(self) -> dict[str, np.ndarray]:
        """By task the map at the input's pixels, float32 [size, size], its sign applied."""
        return {
            task: over_square(signed(self.heatmaps.maps[task], self.sign), self.heatmaps.size, self.square)
            for task in self.tasks
        }

    def is_flat(self, task: str) -> bool:
        values = signed(self.heatmaps.maps[task], self.sign)
        return bool(values.min() == values.max())

    @cached_property
    def places(self) -> dict[str, Tensor]:
        """By task each pixel's place among all, the greatest first; of equal ones the first in raster order."""
        return {task: self._places(-values.ravel()) for task, values in self.maps.items() if not self.is_flat(task)}

    def random_places(self, seed: int) -> Tensor:
        """Places in an order that seed and id draw."""
        return self._places(self.random(seed, "order").random(self.size**2))

    @cached_property
    def centre_places(self) -> Tensor:
        """Places by the distance from the centre, the nearest first."""
        away = np.arange(self.size) - (self.size - 1) / 2
        return self._places((away[:, None] ** 2 + away**2).ravel())

    def random(self, seed: int, what: str) -> np.random.Generator:
        """Numbers that depend on seed, image and purpose, and on nothing else."""
        return np.random.default_rng(
            [seed, zlib.crc32(self.id.encode("utf-8", "surrogatepass")), zlib.crc32(what.encode())]
        )

    def _places(self, keys: np.ndarray) -> Tensor:
        places = np.empty(len(keys), np.int32)
        places[np.argsort(keys, kind="stable")] = np.arange(len(keys), dtype=np.int32)
        return torch.from_numpy(places.reshape(self.size, self.size)).to(self.device)


@dataclass
class Plan:
    """Altered images, and what is made of their scores.

    count: of images. make: those of a slice: bool [n, size, size], which pixels stay, the others taking the baseline;
    or, where baseline is None, grey levels float32 [n, size, size]. finish: from scores float64 [count, tasks of the
    network] to values and curves.
    """

    count: int
    make: Callable[[slice], Tensor]
    baseline: str | None
    finish: Callable[[np.ndarray], tuple[Values, Curves]]


def signed(values: np.ndarray, sign: str) -> np.ndarray:
    """The evidence that counts, as where masks are made."""
    if sign == "positive":
        return np.maximum(values, np.float32(0))
    return np.abs(values) if sign == "abs" else values


def over_square(values: np.ndarray, size: tuple[int, int], square: Square) -> np.ndarray:
    """A map [h, w] over an image of `size`, at the pixels of the network's input: float32 [side, side].

    Bilinear with half-pixel centres; 0 where the input lies outside the image.
    """
    top, left, bottom, right = square.seen(size)
    rows = _sampled(values.shape[0], size[0], top, bottom, square.size)
    columns = _sampled(values.shape[1], size[1], left, right, square.size)
    return (rows @ values.astype(np.float64) @ columns.T).astype(np.float32)


def _sampled(nodes: int, side: int, first: float, last: float, count: int) -> np.ndarray:
    """[count, nodes]: weights of nodes over a side of an image at pixels between two of its positions."""
    position = first + (np.arange(count) + 0.5) * (last - first) / count
    source = np.clip(position * nodes / side - 0.5, 0, nodes - 1)
    lower = source.astype(np.int64)
    weights = np.zeros((count, nodes))
    at = np.arange(count)
    weights[at, lower] = 1 - (source - lower)
    weights[at, np.minimum(lower + 1, nodes - 1)] += source - lower
    weights[(position < 0) | (position > side)] = 0
    return weights


def area(scores: Sequence[float] | np.ndarray) -> float:
    """The area under a curve at equal steps from 0 to 1, by trapezoids."""
    values = np.asarray(scores, float)
    return float((values.sum() - (values[0] + values[-1]) / 2) / (len(values) - 1))
