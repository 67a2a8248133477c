"""Values of records to rows: one per probe and task, and one for the tasks' average, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chextools.errors import InputError
from chextools.metrics import bootstrap
from chextools.probing.probes import PROBES, ProbeSettings
from chextools.records import records
from chextools.results.results import AVERAGE
from chextools.results.rows import interval_row


@dataclass
class Summary:
    """Gathers values of records, and makes rows of them: one per probe and task, and one for the tasks' average."""

    settings: ProbeSettings
    tasks: Sequence[str]
    patients: list[str] = field(default_factory=list)
    values: dict[str, list[list[float]]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [name for name in PROBES if name in self.settings.metrics]
        self.values = {key: [] for name in names for key in (name, *PROBES[name].beside.values())}

    def add(self, record: Mapping[str, Any]) -> None:
        self.patients.append(records.patient(dict(record)))
        for key, rows in self.values.items():
            by_task = record.get(key) or {}
            numbers = (by_task.get(task) for task in self.tasks)
            rows.append([math.nan if number is None else float(number) for number in numbers])
        for name, by_task in (record.get("undefined") or {}).items():
            for task, why in by_task.items():
                self.reasons.setdefault((name, task), why)
        for task in record.get("failed") or {}:
            self.failed[task] = self.failed.get(task, 0) + 1

    def rows(self, replicates: int, resample: str = "cxr", skipped: int = 0) -> list[dict]:
        """The rows, with bootstrap intervals. skipped: records of which nothing came through.

        Raises InputError where no record could be probed.
        """
        if not self.patients:
            raise InputError(f"none of {skipped} records could be probed")
        seed = self.settings.seed
        groups = bootstrap.groups_of(self.patients) if resample == "patient" else None
        found = []
        for name in (name for name in PROBES if name in self.settings.metrics):
            table = np.array(self.values[name], float).reshape(len(self.patients), len(self.tasks))
            drawn = bootstrap.means(table, replicates, seed, groups)
            beside = {
                what: bootstrap.nanmean(np.where(np.isnan(table), np.nan, self.values[key]))
                for what, key in PROBES[name].beside.items()
            }
            tail = self.settings.told(name) | {"resample": resample, "seed": seed}
            means, observed, has = bootstrap.nanmean(drawn), bootstrap.nanmean(table), ~np.isnan(table)
            n, drawable = has.sum(axis=0), bootstrap.drawable(has, groups)
            failed = [skipped + self.failed.get(task, 0) for task in self.tasks]
            for k in sorted(range(len(self.tasks)), key=self.tasks.__getitem__):
                row = interval_row(name, self.tasks[k], means[k], drawn[:, k], n[k], failed[k], drawable[k])
                row |= {"observed": float(observed[k])} | {what: float(values[k]) for what, values in beside.items()}
                if PROBES[name].chance is not None:
                    row["chance"] = PROBES[name].chance
                if not n[k]:
                    row["reason"] = self.reasons.get((name, self.tasks[k]), "no heatmap of this task")
                found.append(row | tail)
            over = bootstrap.nanmean(drawn, axis=1)
            mean, seen = (float(bootstrap.nanmean(values)) for values in (means, observed))
            row = interval_row(name, AVERAGE, mean, over, n.sum(), max(failed), drawable.max()) | {"observed": seen}
            row |= {what: float(bootstrap.nanmean(values)) for what, values in beside.items()}
            if PROBES[name].chance is not None:
                row["chance"] = PROBES[name].chance
            found.append(row | tail)
        return found
