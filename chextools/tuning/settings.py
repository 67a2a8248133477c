"""What to choose, and how: the settings of chex-tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from chextools.inputs.truth import TruthSettings
from chextools.metrics.choosing import grid_values

GRIDS = {
    "threshold": (0.2, 0.8, 0.1),
    "cutoff": (0.0, 0.8, 0.1),
    "score": (0.0, 0.0, 1.0),
}  # the study's; none of scores


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """What to choose, and how.

    purpose: one of `catalogue.PURPOSES`.
    truth: what radiologists outlined, a path, several of several readers, or - for stdin;
        of scores it may be None, for the records' labels.
    truth_settings: what files of truth do not say.
    tasks: those wanted, in this order; none for all.
    grid: (start, stop, step) of the values to choose from; None for the study's. Scores are chosen from themselves.
    objective: of `catalogue.OBJECTIVES`, what a threshold or cutoff maximises the mean of.
    sensitivity: what a score threshold must reach; None to maximise Youden's J.
    missing: what blank labels count as, "negative" or "ignore"; None for `tasks.blank_means`.
    exception: whether cutoffs of Lung Lesion start at 0.1, as in the study.
    threshold, smooth, sign: how heatmaps become masks, before cutoffs; the last two also for thresholds.
    remake: make masks anew where a record has some.
    replicates, seed: of the bootstrap.
    jobs: processes; None for as many as are ours to use.
    """

    purpose: str
    truth: str | Sequence[str] | None = None
    truth_settings: TruthSettings | None = None
    tasks: Sequence[str] = ()
    grid: tuple[float, float, float] | None = None
    objective: str = "iou"
    sensitivity: float | None = None
    missing: str | None = None
    exception: bool = True
    threshold: str | float | Mapping[str, float] | None = "otsu"
    smooth: int = 1
    sign: str | None = None
    remake: bool = False
    replicates: int = 1000
    seed: int = 0
    jobs: int | None = None

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The values to choose from, ascending."""
        return grid_values(*(self.grid or GRIDS[self.purpose]))

    @property
    def key(self) -> str:
        """The key of what is chosen, in the rows."""
        return "score_threshold" if self.purpose == "score" else self.purpose
