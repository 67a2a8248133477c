"""Whether each lesion is found, rather than each pixel: of the 8-connected components of mask and truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs, components, overlapping

OVERLAP = 0.1


def lesion_recall(mask: Mask, truth: Mask, lesion_overlap: float = OVERLAP, lesion_rule: str = "iou") -> float:
    """Share of the truth's lesions that are found (Maier-Hein, Reinke et al. 2024). NaN where it has none.

    lesion_rule: a lesion is found where its greatest IoU with a component of the mask ("iou"), or the share of it that
    the mask covers ("covered"), is more than `lesion_overlap`; 0 is for whatever touches.
    """
    lesions = matched(mask, truth)
    if not lesions.true_area.size:
        return float("nan")
    return float(lesions.found(lesion_overlap, lesion_rule).mean())


def lesion_precision(mask: Mask, truth: Mask, lesion_overlap: float = OVERLAP, lesion_rule: str = "iou") -> float:
    """Share of the mask's components that find a lesion: their greatest IoU with one, or the share of them that lies
    in the truth, is more than `lesion_overlap`. NaN where it has none.
    """
    lesions = matched(mask, truth)
    if not lesions.area.size:
        return float("nan")
    return float(lesions.right(lesion_overlap, lesion_rule).mean())


@dataclass(frozen=True)
class Components:
    """The 8-connected components of a mask: runs in positions of `Mask`, of which component each is, their areas."""

    starts: np.ndarray
    ends: np.ndarray
    number: np.ndarray
    area: np.ndarray


def components_of(mask: Mask) -> Components:
    """Components by their first pixel, column by column; pixels that touch at a corner belong together."""
    starts, ends = column_runs(mask)
    height = mask.size[0]
    shift = 2 * (starts // height) + 1  # an empty row above and below each column
    low, high = starts + shift, ends + shift
    beside = overlapping(low + height + 2 - 1, high + height + 2 + 1, low, high)
    _, number = np.unique(components(len(starts), *beside), return_inverse=True)
    number = number.reshape(-1)
    return Components(starts, ends, number, np.bincount(number, ends - starts).astype(np.int64))


class Matched:
    """The components of a mask against those of the truth.

    area, true_area: of each, in pixels. pairs: int64 [3, n], which components overlap: of the truth, of the mask, and
    in how many pixels.
    """

    def __init__(self, mask: Components, truth: Components):
        self.area, self.true_area = mask.area, truth.area
        i, j = overlapping(truth.starts, truth.ends, mask.starts, mask.ends)
        both = np.minimum(truth.ends[i], mask.ends[j]) - np.maximum(truth.starts[i], mask.starts[j])
        keys, place = np.unique(truth.number[i] * max(len(mask.area), 1) + mask.number[j], return_inverse=True)
        true, own = np.divmod(keys, max(len(mask.area), 1))
        self.pairs = np.stack([true, own, np.bincount(place.reshape(-1), both, len(keys)).astype(np.int64)])

    @cached_property
    def _iou(self) -> np.ndarray:
        true, own, both = self.pairs
        return both / (self.true_area[true] + self.area[own] - both)

    def found(self, overlap: float, rule: str) -> np.ndarray:
        """Which lesions are found, bool."""
        return self._share(0, self.true_area, rule) > overlap

    def right(self, overlap: float, rule: str) -> np.ndarray:
        """Which components of the mask find a lesion, bool."""
        return self._share(1, self.area, rule) > overlap

    def _share(self, side: int, areas: np.ndarray, rule: str) -> np.ndarray:
        if rule == "covered":
            return np.bincount(self.pairs[side], self.pairs[2], len(areas)) / areas
        best = np.zeros(len(areas))
        np.maximum.at(best, self.pairs[side], self._iou)
        return best


def matched(mask: Mask, truth: Mask) -> Matched:
    """The components of two masks of one size."""
    return Matched(components_of(mask), components_of(truth))
