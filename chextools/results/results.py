"""Results of an evaluation, as the commands that make and read them share them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from chextools.errors import InputError
from chextools.records.ids import near_miss
from chextools.records.records import few

log = logging.getLogger(__name__)

METRICS = ("iou", "hit")  # those with a value per CXR
AVERAGE = "Average"


@dataclass
class Table:
    """One metric by CXR and task, float64 [n, K], and its replicates, [replicates, K]; NaN where undefined."""

    ids: list[str]
    tasks: list[str]
    values: np.ndarray
    replicates: np.ndarray


@dataclass
class Evaluation:
    """What chex-eval found.

    summary: one object per metric and task. tables: by metric. rows: what was measured per CXR, sorted by id.
    calibration: beside ece, one object per task and bin of scores.
    """

    summary: list[dict]
    tables: dict[str, Table]
    rows: Sequence
    tasks: list[str]
    calibration: list[dict] = field(default_factory=list)


def join(left: Iterable[str], left_name: str, right: Iterable[str], right_name: str) -> list[str]:
    """The ids of both, in order; says which are on one side only. Raises InputError if no id is on both."""
    left, right = sorted(set(left)), sorted(set(right))
    both = sorted(set(left).intersection(right))
    if not both:
        near = near_miss(left, right)
        raise InputError(f"no id is both in {left_name} ({left[0]}, ...) and in {right_name} ({right[0]}, ...){near}")
    for these, those, here, there in ((left, right, left_name, right_name), (right, left, right_name, left_name)):
        alone = sorted(set(these).difference(those))
        if alone:
            log.warning("in %s but not in %s, left out: %s", here, there, few(alone, those))
    return both
