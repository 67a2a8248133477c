"""chex-compare: one result against another: percentage decrease and paired test, AUROC, or how alike heatmaps are.

from chextools import compare
result = compare.run(["model.jsonl", "human.jsonl"], compare.ComparisonSettings(metric="iou"))
result.rows
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import BinaryIO

from chextools.comparison import differences
from chextools.comparison.settings import ComparisonSettings
from chextools.comparison.sides import read_results
from chextools.errors import InputError
from chextools.metrics.catalogue import LIKENESS
from chextools.plumbing.parallel import default_jobs
from chextools.records.tally import Tally

__all__ = ["Comparison", "ComparisonSettings", "run"]


@dataclass
class Comparison:
    """rows: one per task, and one for the average. study: of results, the same with the study's bounds."""

    rows: list[dict]
    study: list[dict] = field(default_factory=list)

    @property
    def study_csv(self) -> str:
        """The study's miou_pct_decrease.csv or hitrate_pct_decrease.csv. Raises InputError where it has none."""
        if not self.study:
            raise InputError("the study has no file of these")
        return differences.study_text(self.study)


def run(
    inputs: Sequence[str],
    settings: ComparisonSettings | None = None,
    *,
    stdin: BinaryIO | None = None,
    tally: Tally | None = None,
) -> Comparison:
    """Compare two inputs, PRED with REF: paths, or `-` for `stdin`.

    Results by CXR or replicates; for auroc records with scores; for ssim and spearman records or folders of heatmaps.
    tally: counts what fails, and shows progress. Raises InputError where the two cannot be compared.
    """
    settings, stdin, tally = settings or ComparisonSettings(), stdin or sys.stdin.buffer, tally or Tally()
    pred, ref = inputs
    if settings.metric in LIKENESS:
        from chextools.comparison import maps  # here, as most comparisons read none

        return Comparison(maps.rows_of(inputs, settings, stdin, tally, settings.jobs or default_jobs()))
    if settings.metric == "auroc":
        from chextools.comparison import scores  # here, as labels may come with X-rays, which are slow to import

        names = ["stdin" if source == "-" else source for source in inputs]
        steps = tally.progress(repeat(None), "CXRs")
        others = scores.read_scores(ref, settings, stdin, tally, steps)
        own = scores.read_scores(pred, settings, stdin, tally, steps)
        del steps  # what is read is no longer shown
        return Comparison(scores.rows_of(own, names[0], others, names[1], settings, tally.failed))
    # The second is opened first, so that a slip in its name shows before stdin is waited for
    steps = tally.progress(repeat(None), "rows")
    of_ref, of_pred = (read_results(source, stdin, settings.metric, steps) for source in (ref, pred))
    del steps  # what is read is no longer shown
    tally.seen += len(of_pred.values) + len(of_ref.values)
    tally.take(of_pred.failures + of_ref.failures)
    return Comparison(*differences.rows_of(of_pred, of_ref, settings, tally.progress))
