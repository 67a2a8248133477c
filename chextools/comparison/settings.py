"""What to compare, and how: the settings of chex-compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """What to compare, and how.

    metric: of `catalogue.COMPARED`; None for the only one that the results hold.
    tasks: those wanted; none for all that both sides have.
    margin: a difference that does not matter, in the metric's units: for tests of equivalence and non-inferiority.
    truth, uncertain, missing: labels for auroc, as in `EvaluationSettings`.
    sign: which evidence of signed heatmaps counts, for ssim and spearman; None for what each says.
    replicates, seed: of the bootstrap and of the signs that are flipped.
    resample: whether CXRs ("cxr") or all of a patient's ("patient") belong together.
    jobs: processes for heatmaps; None for as many as are ours to use.
    """

    metric: str | None = None
    tasks: Sequence[str] = ()
    margin: float | None = None
    truth: str | None = None
    uncertain: str = "ignore"
    missing: str | None = None
    sign: str | None = None
    replicates: int = 1000
    seed: int = 0
    resample: str = "cxr"
    jobs: int | None = None
