"""One mask of several readers': by vote, or by STAPLE, exact on runs: pixels that all readers mark alike are one case.

STAPLE is Warfield, Zou and Wells, IEEE Trans. Med. Imaging 23(7), 2004: expectation maximisation of the truth at each
pixel, with a sensitivity and a specificity per reader; started and stopped as in ITK's STAPLEImageFilter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.errors import InputError
from chextools.masks.mask import Mask, union

RULES = ("majority", "union", "intersection", "staple")

_ITERATIONS = 100_000  # readers who agree little need tens of thousands, a second of time
_CONVERGED = 1e-7  # change of any sensitivity and specificity, as ITK's, which squares it


def agreed(masks: Sequence[Mask], rule: str) -> Mask:
    """The mask of readers of one image, at least one, of one size. A majority is more than half of them.

    Raises InputError for masks of different sizes, and for readers between whom STAPLE does not decide.
    """
    sizes = {mask.size for mask in masks}
    if len(sizes) > 1:
        raise InputError(f"the readers' masks have the sizes {', '.join(f'{h} x {w}' for h, w in sorted(sizes))}")
    drawn = [mask for mask in masks if mask.bounds.size]
    if not drawn:
        return masks[0]
    if len(masks) == 1 or rule == "union":
        return union(masks)
    bounds, inside = _segments(masks)
    if rule == "staple":
        taken = _staple(np.diff(bounds), inside)[0] > 0.5
    else:
        least = len(masks) if rule == "intersection" else len(masks) // 2 + 1
        taken = inside.sum(axis=0) >= least
    changed = np.flatnonzero(np.diff(np.concatenate([[False], taken, [False]])))
    return Mask(masks[0].size, bounds[changed])


def staple(masks: Sequence[Mask]) -> tuple[np.ndarray, np.ndarray]:
    """Each reader's sensitivity and specificity, float64 [R] each, as STAPLE estimates them; NaN if nobody drew."""
    bounds, inside = _segments(masks)
    return _staple(np.diff(bounds), inside)[1:]


def _segments(masks: Sequence[Mask]) -> tuple[np.ndarray, np.ndarray]:
    """Where any mask changes, and the image's ends: int64 [S + 1]; and who has what lies between: bool [R, S]."""
    pixels = masks[0].size[0] * masks[0].size[1]
    bounds = np.unique(np.concatenate([[0, pixels], *(mask.bounds for mask in masks)]))
    return bounds, np.array([np.searchsorted(mask.bounds, bounds[:-1], side="right") % 2 == 1 for mask in masks])


def _staple(lengths: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The probability of each segment, and each reader's sensitivity and specificity."""
    readers = len(inside)
    cases, case = np.unique(inside, axis=1, return_inverse=True)  # [R, C]
    pixels = np.bincount(case.ravel(), lengths, cases.shape[1])
    truth = cases.mean(axis=0)
    prior = float(truth @ pixels / pixels.sum())
    if prior in (0.0, 1.0):
        return np.full(len(lengths), prior), *np.full((2, readers), np.nan)
    sensitivity = specificity = np.zeros(readers)
    for _ in range(_ITERATIONS):
        before = sensitivity, specificity
        there, absent = truth * pixels, (1 - truth) * pixels
        sensitivity = cases @ there / max(there.sum(), np.finfo(float).tiny)
        specificity = ~cases @ absent / max(absent.sum(), np.finfo(float).tiny)
        marked = np.where(cases, sensitivity[:, None], 1 - sensitivity[:, None]).prod(axis=0) * prior
        other = np.where(cases, 1 - specificity[:, None], specificity[:, None]).prod(axis=0) * (1 - prior)
        both = marked + other
        truth = np.divide(marked, both, out=truth.copy(), where=both > 0)
        change = np.abs([sensitivity - before[0], specificity - before[1]]).max()
        if change <= _CONVERGED:
            break
    else:
        raise InputError(f"STAPLE finds no rest in {_ITERATIONS} rounds, so little do the readers agree: take a vote")
    return truth[case.ravel()], sensitivity, specificity
