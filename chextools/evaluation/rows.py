"""What the rows of all metrics of chex-eval have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from chextools.evaluation.settings import EvaluationSettings
from chextools.metrics import bootstrap


def drawn(settings: EvaluationSettings) -> dict[str, object]:
    """The end of a row: how replicates were drawn."""
    return {"resample": settings.resample, "seed": settings.seed}


def groups_of(patients: Sequence[str], settings: EvaluationSettings) -> tuple[np.ndarray, int] | None:
    """What the bootstrap draws whole, where it does not draw CXRs."""
    return bootstrap.groups_of(patients) if settings.resample == "patient" else None


def over_tasks(extras: Mapping[str, np.ndarray]) -> dict[str, object]:
    """The extras of the average's row: sums of whole numbers, means of others."""
    return {
        name: (values.sum() if values.dtype.kind == "i" else bootstrap.nanmean(values)).item()
        for name, values in extras.items()
    }
