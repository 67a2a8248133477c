"""Heatmap to mask, pixel for pixel as the study does it (Saporta et al. 2022, Methods), without making the pixels.

The heatmap is upsampled to the X-ray's size, its minimum subtracted and the rest divided by its maximum. Then either
Otsu's threshold over 256 grey levels separates it, and contours longer than one point are filled; or a given
threshold cuts it, without filling.
"""

from __future__ import annotations

import numpy as np

from chextools.heatmaps.levels import level_above, otsu
from chextools.heatmaps.surface import surface_of
from chextools.masks.mask import Mask
from chextools.masks.morphology import filled, without_islands


def binarize(
    values: np.ndarray,
    size: tuple[int, int],
    threshold: float | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    smooth: int = 1,
    sign: str = "raw",
) -> Mask:
    """The mask of a heatmap.

    values: float32 [h, w], finite.
    size: (height, width) of the X-ray in pixels.
    threshold: of the normalised map in [0, 1]; None for Otsu's.
    input_size: the network's input, to which a map at a layer's resolution is upsampled first.
    smooth: side in pixels of a box filter over the upsampled map. (The study filters a colour rendering instead.)
    sign: which evidence counts in a signed map: positive (negatives are 0), abs, or raw (least to greatest).

    A flat map gives an empty mask, as 0/0 does in the study. (Where it is not 0, the study divides two roundings.)
    """
    surface = surface_of(values, size, input_size=input_size, smooth=smooth, sign=sign)
    if surface.is_flat:
        return Mask.empty(size)
    if threshold is not None:
        return Mask(size, surface.transitions(level_above(threshold, surface.minimum, surface.maximum)))
    cut = otsu(surface.histogram())
    if cut >= 255:
        return Mask.empty(size)
    mask = Mask(size, surface.transitions_above(cut))
    return without_islands(filled(mask))
