"""FROC: the share of lesions found against the false findings per image, over thresholds of the heatmap.

Of 8-connected components, pooled over images. A false finding is a component that finds no lesion.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from chextools.heatmaps.levels import levels_above
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask
from chextools.metrics.lesions import OVERLAP, Components, Matched, components_of

THRESHOLDS = tuple(k / 10 for k in range(1, 10))  # of the normalised map
RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)  # false findings per image at which recall is read (Setio et al. 2017)
COUNTS = 2 + 2 * len(THRESHOLDS)


def lesion_counts(
    surface: Surface, truth: Mask, lesion_overlap: float = OVERLAP, lesion_rule: str = "iou"
) -> tuple[float, ...]:
    """Counts of one image: 1, its lesions, then by threshold the lesions found, then the false findings.

    lesion_overlap, lesion_rule: what finds a lesion, as in `lesions.lesion_recall`.
    """
    true = components_of(truth)
    if surface.is_flat:
        return (1, len(true.area), *[0] * (2 * len(THRESHOLDS)))
    found, false = [], []
    for components in _components(surface):
        lesions = Matched(components, true)
        found.append(int(lesions.found(lesion_overlap, lesion_rule).sum()))
        false.append(int((~lesions.right(lesion_overlap, lesion_rule)).sum()))
    return (1, len(true.area), *found, *false)


_known: WeakKeyDictionary[Surface, list[Components]] = WeakKeyDictionary()  # a floor's map is one for many images


def _components(surface: Surface) -> list[Components]:
    """Those of the mask at each threshold."""
    if surface not in _known:
        cuts = levels_above(THRESHOLDS, surface.minimum, surface.maximum)
        _known[surface] = [components_of(Mask(surface.size, surface.transitions(cut))) for cut in cuts]
    return _known[surface]


def summary(sums: np.ndarray, **_options: object) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The FROC score [..., K] of summed counts [..., COUNTS, K], and what stands beside it.

    The score is the mean over `RATES` of the greatest recall at no more false findings per image than that, as in
    LUNA16 (Setio et al. 2017); NaN where there are no lesions. Beside it: "lesions", how many there are, and
    "recall_at_1", that at one false finding per image.
    """
    images, lesions = sums[..., 0, :], sums[..., 1, :]
    found, false = np.split(sums[..., 2:, :], 2, axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(lesions[..., None, :] > 0, found / lesions[..., None, :], np.nan)
        rate = false / images[..., None, :]
    at = [np.where(rate <= limit, recall, np.where(np.isnan(recall), np.nan, 0)).max(axis=-2) for limit in RATES]
    return np.mean(at, axis=0), {"lesions": lesions.astype(np.int64), "recall_at_1": at[RATES.index(1)]}
