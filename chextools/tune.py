"""chex-tune: the heatmap threshold, score cutoff or operating point that is best per task on data with a truth.

from chextools import tune
tuned = tune.run(["maps"], tune.TuningSettings(purpose="threshold", truth="gt.json"))
tuned.best
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from chextools.errors import InputError
from chextools.inputs.inputs import read_some
from chextools.inputs.truth import read_truth
from chextools.plumbing.parallel import default_jobs
from chextools.records.tally import Tally
from chextools.results import thresholds
from chextools.tasks import canonical, choose
from chextools.tuning.choice import Tuning, tuning_of
from chextools.tuning.settings import TuningSettings
from chextools.tuning.trials import measure

__all__ = ["Tuning", "TuningSettings", "run"]


def run(
    inputs: Sequence[str], settings: TuningSettings, *, stdin: BinaryIO | None = None, tally: Tally | None = None
) -> Tuning:
    """Choose per task what is best on inputs: paths of heatmaps, masks or scores, or `-` for `stdin`.

    tally: counts what fails, and shows progress. Raises InputError where there is nothing to choose from.
    """
    stdin, tally = stdin or sys.stdin.buffer, tally or Tally()
    truth, chosen = None, list(map(canonical, settings.tasks))
    if settings.truth:
        truth = read_truth(settings.truth, stdin, settings.truth_settings)
        tally.take(truth.failures)
        chosen = choose(settings.tasks, truth.tasks, truth.where)
    elif settings.purpose != "score":
        raise InputError(f"no truth to choose a {settings.purpose} by")
    threshold = settings.threshold
    if isinstance(threshold, (str, float, int)):
        threshold = thresholds.threshold_of(threshold)
    settings = replace(settings, tasks=tuple(chosen), threshold=threshold)
    settings.values  # noqa: B018  refused before anything is read
    _, items = read_some(inputs, stdin)
    measured = measure(items, truth, settings, settings.jobs or default_jobs())
    rows = [record["row"] for record in tally.passing(tally.progress(measured, "images"))]
    return tuning_of(rows, truth, settings, tally.skipped)
