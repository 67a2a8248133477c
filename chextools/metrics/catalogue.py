"""The metrics of chex-eval by name, what each looks at and where it is: their one list, which imports none of them.

A new metric of where a model looks is a file of this folder and a line of `LOCALISATION`. Its function takes what it
looks at, then the truth, and returns a number of one image and task, NaN where it is undefined:

    MASKS     function(mask: Mask, truth: Mask, **options)        both of one size; either may be empty
    HEATMAPS  function(surface: Surface, truth: Mask, **options)  the truth is not empty
    POINTS    function(points: [(y, x), ...], truth: Mask, **options)   a human's points, or a heatmap's greatest pixel

or, where it has `extras`, a tuple of its number and theirs. One of `counts` returns so many, which are summed over
images; `summary(sums [..., counts, K], **options)` of the same module makes of them the metric [..., K], and a dict of
what stands beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MASKS, HEATMAPS, POINTS = "masks", "heatmaps", "points"


class Metric(NamedTuple):  # a dataclass is made ten times as slowly, at each start
    """A metric of where a model looks.

    looks_at: MASKS, HEATMAPS or POINTS.
    function: module and function; none where areas say all, which are measured of every mask.
    extras: further numbers of each image and task, whose means stand beside the metric's.
    options: settings that the function takes by name.
    chance: what to expect of a map at random: "share" of the image that the truth covers, or a number.
    floor: whether the metric of what looks at the centre of the image stands beside it: a disc with the mask's area, or
        a heatmap that is a cone.
    is_default: whether it is measured where nobody asks for any.
    counts: how many counts, where these are summed over images.
    is_distance: whether less is better, so that an absent mask or heatmap has no worst value.
    undefined: why a task with a truth may have no value at all.
    needs_truth: whether it is measured against what was outlined; others can do without.
    """

    looks_at: str
    function: str = ""
    extras: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    chance: str | float = ""
    floor: bool = False
    is_default: bool = False
    counts: int = 0
    is_distance: bool = False
    undefined: str = ""
    needs_truth: bool = True

    def load(self, name: str = "") -> Callable[..., Any]:
        """The function, or another one of its module."""
        module, _, function = self.function.partition(":")
        return getattr(importlib.import_module(f"chextools.metrics.{module}"), name or function)


_NO_SHARES = "the map has negative values (see --sign), or is 0 everywhere"

# In the order of the rows.
LOCALISATION: Mapping[str, Metric] = {
    "iou": Metric(looks_at=MASKS, is_default=True),
    "hit": Metric(
        looks_at=POINTS,
        function="pointing:hit",
        extras=("chance",),
        options=("tolerance", "tolerance_size"),
        is_default=True,
    ),
    "pixel": Metric(looks_at=MASKS, is_default=True),
    "count": Metric(looks_at=MASKS, is_default=True),
    "energy": Metric(looks_at=HEATMAPS, function="energy:energy_inside", chance="share", undefined=_NO_SHARES),
    "border": Metric(
        looks_at=HEATMAPS,
        function="energy:energy_in_border",
        extras=("chance",),
        options=("border",),
        is_distance=True,
        undefined=_NO_SHARES,
        needs_truth=False,
    ),
    "outside": Metric(
        looks_at=HEATMAPS,
        function="energy:energy_outside",
        extras=("chance",),
        options=("lungs",),
        is_distance=True,
        undefined=f"{_NO_SHARES}, or no CXR has lungs",
        needs_truth=False,
    ),
    "rank": Metric(looks_at=HEATMAPS, function="ranking:rank", chance="share"),
    "pixel-auroc": Metric(looks_at=HEATMAPS, function="ranking:pixel_auroc", chance=0.5),
    "pixel-auprc": Metric(looks_at=HEATMAPS, function="ranking:pixel_auprc", chance="share"),
    "best-iou": Metric(looks_at=HEATMAPS, function="ranking:best_iou", extras=("area", "area_chance"), chance="share"),
    "dice": Metric(looks_at=MASKS),
    "hd95": Metric(looks_at=MASKS, function="boundaries:hd95", options=("spacing",), floor=True, is_distance=True),
    "assd": Metric(looks_at=MASKS, function="boundaries:assd", options=("spacing",), floor=True, is_distance=True),
    "nsd": Metric(looks_at=MASKS, function="boundaries:nsd", options=("nsd_tolerance", "spacing"), floor=True),
    "lesion-recall": Metric(
        looks_at=MASKS, function="lesions:lesion_recall", options=("lesion_overlap", "lesion_rule"), floor=True
    ),
    "lesion-precision": Metric(
        looks_at=MASKS, function="lesions:lesion_precision", options=("lesion_overlap", "lesion_rule"), floor=True
    ),
    "froc": Metric(
        looks_at=HEATMAPS,
        function="froc:lesion_counts",
        options=("lesion_overlap", "lesion_rule"),
        counts=20,
        floor=True,
    ),
}

CLASSIFICATION = ("auroc", "auprc", "brier", "ece", "sensitivity", "specificity", "shortcut")
AT_THRESHOLD = ("sensitivity", "specificity")  # of a score

PER_IMAGE = tuple(name for name, m in LOCALISATION.items() if not m.counts and name not in ("pixel", "count"))
PROBED = ("deletion", "insertion", "road", "faithfulness", "sensitivity", "randomisation")  # by chex-probe
BY_IMAGE = (*PER_IMAGE, *PROBED)  # with a number per CXR and task, in whichever records
STUDY = ("iou", "hit")  # those of them that the study has, with a name in its files
LIKENESS = ("ssim", "spearman")  # of two heatmaps
COMPARED = (*BY_IMAGE, "auroc", *LIKENESS)

SLICES = ("positive", "full")
RESAMPLED = ("cxr", "patient")
LESION_RULES = ("iou", "covered")
UNCERTAIN = ("ignore", "zeros", "ones")
CONSENSUS = ("majority", "union", "intersection", "staple")
MISSING = ("negative", "ignore")
OBJECTIVES = ("iou", "dice")
PURPOSES = ("threshold", "cutoff", "score")

# Geometric features of the truth on which results are regressed
FEATURES = ("num_instances", "area_ratio", "elongation", "irrectangularity")
