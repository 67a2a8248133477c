"""Which part of an AUROC a shortcut explains: what is left of it among CXRs that are alike in the shortcut.

The AUROC within strata compares a positive only with the negatives of its own stratum (the pooled concordance of
Mantel-Haenszel's kind; Janes and Pepe 2008, "adjusting for covariates", weigh strata by their pairs as here). What
tells the classes apart by the shortcut alone is at 0.5 there.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError
from chextools.metrics import bootstrap, scores
from chextools.metrics.similarity import spearman
from chextools.records.records import few
from chextools.results.results import AVERAGE
from chextools.results.rows import interval_row

log = logging.getLogger(__name__)

QUANTILES = 5


@dataclass(frozen=True)
class Shortcut:
    """What CXRs may be told apart by without a look at the lungs.

    name: of the record's key or of the file. values: a word (a view, a scanner) or a number (an age, a floor's score)
    of each CXR by id; numbers also by task. Numbers are cut at their quintiles.
    """

    name: str
    values: Mapping[str, str | float | Mapping[str, float]]

    @classmethod
    def of_words(cls, name: str, words: Mapping[str, str]) -> Shortcut:
        """Words by id, which are numbers where all of them are, and more than there are quintiles."""
        if len(set(words.values())) > QUANTILES:
            with contextlib.suppress(ValueError):
                numbers = {identifier: float(word) for identifier, word in words.items()}
                if all(map(math.isfinite, numbers.values())):
                    return cls(name, numbers)
        return cls(name, words)

    def of_task(self, ids: Sequence[str], task: str) -> tuple[np.ndarray, np.ndarray | None]:
        """(stratum of each CXR, -1 for none; the numbers, NaN for none, or None where they are words)."""
        given = [self.values.get(identifier) for identifier in ids]
        given = [value.get(task) if isinstance(value, Mapping) else value for value in given]
        if not any(isinstance(value, str) for value in given):
            numbers = np.array([np.nan if value is None else value for value in given], np.float64)
            known = ~np.isnan(numbers)
            shares = np.arange(1, QUANTILES) / QUANTILES
            edges = np.quantile(numbers[known], shares) if known.any() else np.empty(0)
            return np.where(known, np.searchsorted(edges, numbers, side="right"), -1), numbers
        words = sorted({value for value in given if isinstance(value, str)})
        return np.array([words.index(value) if isinstance(value, str) else -1 for value in given]), None


def rows_of(
    shortcut: Shortcut,
    ids: Sequence[str],
    tasks: Sequence[str],
    scored: np.ndarray,
    labels: np.ndarray,
    failed: np.ndarray,
    times: Iterable[np.ndarray],
) -> list[dict]:
    """A row per task: "mean", the AUROC within strata with its interval, and beside it the whole AUROC with its
    own, the share of its excess over 0.5 that the shortcut explains, and the shortcut's own AUROC and Spearman
    correlation with it; and one for the mean over the tasks of which all of that is known.

    scored, labels: float64 [n, K], NaN where there is none. failed: int [K]. times: blocks [r, n] of how often each CXR
    was drawn. Raises InputError if no CXR has a value.
    """
    given = [shortcut.of_task(ids, task) for task in tasks]
    if all((stratum < 0).all() for stratum, _ in given):
        raise InputError(f"{shortcut.name}: no CXR has a value of {', '.join(tasks[:3])}: a key or a file with scores")
    taken = []
    for k, (task, (stratum, _)) in enumerate(zip(tasks, given)):
        usable = ~np.isnan(scored[:, k]) & ~np.isnan(labels[:, k])
        if without := [identifier for identifier, lacks in zip(ids, usable & (stratum < 0)) if lacks]:
            log.warning("%s: %s: no value, left out: %s", shortcut.name, task, few(without))
        rows = np.flatnonzero(usable & (stratum >= 0))
        taken.append((rows, scored[rows, k], labels[rows, k] == 1, stratum[rows]))
    drawn: list[list] = [[] for _ in tasks]
    for block in times:  # once for all tasks: it may be large
        for one, (rows, score, positive, parts) in zip(drawn, taken):
            one.append(_areas(score, positive, parts, block[:, rows])[:2])
    replicates = [tuple(np.concatenate(part) for part in zip(*blocks)) for blocks in drawn]
    found = []
    for k, (task, (_, numbers)) in enumerate(zip(tasks, given)):
        rows, score, positive, parts = taken[k]
        whole, within, pairs = _areas(score, positive, parts, np.ones((1, len(rows))))
        wholes, withins = replicates[k]
        row = interval_row("shortcut", task, float(within[0]), withins, len(rows), int(failed[k]))
        row |= {"by": shortcut.name, "strata": len(np.unique(parts)), "positives": int(positive.sum())}
        row |= {"pairs": float(pairs[0])} | _about(float(whole[0]), float(within[0]), wholes, withins)
        if numbers is not None:
            row["floor"] = scores.value("auroc", numbers[rows], positive) if len(rows) else np.nan
            row["spearman"] = spearman(score, numbers[rows]) if len(rows) else np.nan
        if np.isnan(within[0]):
            known = "no stratum has both a positive and a negative CXR"
            row["reason"] = known if len(rows) else "no CXR has a score, a label and a value"
        found.append(row)
    if len(found) > 1:
        found.append(_average(shortcut, found, replicates))
    return found


def _average(shortcut: Shortcut, rows: Sequence[dict], replicates: Sequence[tuple[np.ndarray, ...]]) -> dict:
    """The row of the mean over tasks; what is explained is that of the means."""
    known = [k for k, row in enumerate(rows) if not np.isnan(row["mean"])]
    used = [rows[k] for k in known]
    wholes, withins = (
        bootstrap.nanmean(np.array([replicates[k][part] for k in known or [0]]), axis=0) for part in (0, 1)
    )

    def mean(key: str) -> float:
        return float(bootstrap.nanmean(np.array([row[key] for row in used], np.float64))) if used else np.nan

    failed = max(row["failed"] for row in rows)
    row = interval_row("shortcut", AVERAGE, mean("mean"), withins, sum(row["n"] for row in used), failed)
    row |= {"by": shortcut.name, "positives": sum(row["positives"] for row in used), "tasks": len(used)}
    row |= {"pairs": mean("pairs")} | _about(mean("auroc"), mean("mean"), wholes, withins)
    return row | {key: mean(key) for key in ("floor", "spearman") if any(key in row for row in rows)}


def _about(whole: float, within: float, wholes: np.ndarray, withins: np.ndarray) -> dict[str, float | None]:
    """An AUROC, and which part of it is explained."""
    least, most, _ = bootstrap.interval(wholes)
    lower, upper, _ = bootstrap.interval(_explained(wholes, withins))
    share = float(_explained(np.array(whole), np.array(within)))
    auroc: dict[str, float | None] = {"auroc": whole, "auroc_lower": least, "auroc_upper": most}
    return auroc | {"explained": share, "explained_lower": lower, "explained_upper": upper}


def _areas(score: np.ndarray, positive: np.ndarray, parts: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, ...]:
    """(AUROC, AUROC within parts, share of the pairs that are within), each [r], of CXRs drawn times [r, n]."""
    wins, pairs = scores.wins_and_pairs(score, positive, times)
    inner = [scores.wins_and_pairs(score[own], positive[own], times[:, own]) for own in _each(parts)]
    inner_wins, inner_pairs = (np.sum(part, axis=0) for part in zip(*inner)) if inner else (wins * 0, pairs * 0)
    return scores.ratio(wins, pairs), scores.ratio(inner_wins, inner_pairs), scores.ratio(inner_pairs, pairs)


def _each(parts: np.ndarray) -> list[np.ndarray]:
    return [parts == part for part in np.unique(parts)]


def _explained(whole: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Share of an AUROC's excess over 0.5 that is gone within strata; NaN where there is no excess."""
    return 1 - scores.ratio(within - 0.5, whole - 0.5)
