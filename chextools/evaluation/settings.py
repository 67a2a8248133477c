"""What to evaluate, and how: the settings of chex-eval."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from chextools.inputs.truth import TruthSettings
from chextools.metrics.catalogue import CLASSIFICATION, LOCALISATION


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What to evaluate, and how.

    truth: a path, or several of several readers, or - for stdin: what radiologists outlined; of scores labels by id,
        instead of the predictions' own; None for metrics that need none, which then are of the heatmaps of CXRs
        labelled positive, or of all where they have no labels.
    truth_settings: what files of truth do not say.
    readers: compare the truth's readers with each other, or the inputs', rather than predictions with the truth.
    metrics: of `catalogue.LOCALISATION` or of `catalogue.CLASSIFICATION`; none for those of the former that are
        measured by default and that the predictions allow.
    tasks: those wanted; none for all.
    slice: whether metrics of masks are over the CXRs on which truth and mask are not empty ("positive"), or on which
        either is not ("full").
    sign: which evidence of a signed heatmap counts (`signs.SIGNS`); None for what the record or heatmap says.
    tolerance, tolerance_size: of hits, see `pointing.hit`. nsd_tolerance: of boundaries, see `boundaries.nsd`.
    spacing: the side of a pixel in mm, for distances in mm; "record" for each record's own "spacing", [height, width]
        of a pixel in mm; "px" for distances in pixels; None for "record" where the first record has one, else "px".
    lesion_overlap, lesion_rule: what finds a lesion, see `lesions.lesion_recall`.
    border: the border's width for the metric of that name, as a share of each side of the image.
    lungs: for the metric "outside", a path to the lungs, in any form of truth.
    uncertain: what uncertain labels count as, for metrics of scores: "ignore", "zeros" or "ones".
    missing: what blank labels count as, for metrics of scores: "negative" or "ignore"; None for `tasks.blank_means`.
    score_threshold: from which a score is positive: for all tasks, by task, or a file of chex-tune's rows.
    shortcuts: for the metric "shortcut", what CXRs may be told apart by: keys of the records, and files of records with
        scores, such as `chex-predict --floor` writes.
    replicates, seed, resample: of the bootstrap, which draws each "cxr" or "patient".
    jobs: processes for what costs time; None for as many as are ours to use.
    """

    truth: str | Sequence[str] | None = None
    truth_settings: TruthSettings | None = None
    readers: bool = False
    metrics: Collection[str] = ()
    tasks: Sequence[str] = ()
    slice: str = "positive"
    sign: str | None = None
    tolerance: float = 0.0
    tolerance_size: int | None = None
    nsd_tolerance: float = 2.0
    spacing: float | str | None = None
    lesion_overlap: float = 0.1
    lesion_rule: str = "iou"
    border: float = 0.1
    lungs: str | None = None
    uncertain: str = "ignore"
    missing: str | None = None
    score_threshold: str | float | Mapping[str, float] | None = None
    shortcuts: Sequence[str] = ()
    replicates: int = 1000
    seed: int = 0
    resample: str = "cxr"
    jobs: int | None = None

    @property
    def of_scores(self) -> bool:
        """Whether the metrics are of scores."""
        return any(metric in CLASSIFICATION for metric in self.metrics)

    @property
    def needs_truth(self) -> bool:
        """Whether a metric of where a model looks is against what radiologists outlined."""
        return not self.metrics or any(LOCALISATION[name].needs_truth for name in self.localisation)

    @property
    def localisation(self) -> list[str]:
        """The metrics of where a model looks, in the order of their rows."""
        return [metric for metric in LOCALISATION if metric in self.metrics]
