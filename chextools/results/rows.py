"""What the rows of results begin with, whatever was measured."""

from __future__ import annotations

import numpy as np

from chextools.metrics import bootstrap

NO_TASK = "undefined for every task"  # why an average is


def interval_row(
    metric: str, task: str, mean: float, replicates: np.ndarray, n: int, failed: int, drawable: int | None = None
) -> dict:
    """The start of a row: the mean, with its 95% interval from a column of replicates; n and failed count CXRs.

    drawable: how many CXRs or patients there were to draw from (`bootstrap.drawable`), n unless given; of one there is
    no interval.
    """
    lower, upper, count = bootstrap.interval(replicates)
    if (n if drawable is None else drawable) < 2:
        lower = upper = np.nan
    return {
        "metric": metric,
        "task": task,
        "mean": float(mean),
        "lower": lower,
        "upper": upper,
        "n": int(n),
        "replicates": count,
        "failed": int(failed),
    }
