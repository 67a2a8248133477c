"""Which part of an AUROC a shortcut explains: what is left of it among CXRs that are alike in the shortcut.

The AUROC within strata compares a positive only with the negatives of its own stratum (the pooled concordance of
Mantel-Haenszel's kind; Janes and Pepe 2008, "adjusting for covariates", weigh strata by their pairs as here). What
tells the classes apart by the shortcut alone is at 0.5 there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError
from chextools.evaluation.rows import interval_row
from chextools.metrics import bootstrap, scores
from chextools.metrics.similarity import spearman
from chextools.records.records import few

log = logging.getLogger(__name__)

QUANTILES = 5


@dataclass(frozen=True)
class Shortcut:
    """What CXRs may be told apart by without a look at the lungs.

    name: of the record's key or of the file. values: a word (a view, a scanner) or a number (a floor's score) of each
    CXR by id; numbers also by task. Numbers are cut at their quintiles.
    """

    name: str
    values: Mapping[str, str | Mapping[str, float]]

    def of_task(self, ids: Sequence[str], task: str) -> tuple[np.ndarray, np.ndarray | None]:
        """(stratum of each CXR, -1 for none; the numbers, NaN for none, or None where they are words)."""
        given = [self.values.get(identifier) for identifier in ids]
        if any(isinstance(value, Mapping) for value in given):
            numbers = np.array([value.get(task, np.nan) if isinstance(value, Mapping) else np.nan for value in given])
            known = ~np.isnan(numbers)
            edges = np.quantile(numbers[known], np.arange(1, QUANTILES) / QUANTILES) if known.any() else []
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
    times: Sequence[np.ndarray],
) -> list[dict]:
    """A row per task: "mean", the AUROC within strata with its interval, and beside it the whole AUROC, the share of
    its excess over 0.5 that the shortcut explains, and the shortcut's own AUROC and Spearman correlation with it.

    scored, labels: float64 [n, K], NaN where there is none. failed: int [K]. times: blocks [r, n] of how often each CXR
    was drawn. Raises InputError if no CXR has a value.
    """
    found = []
    for k, task in enumerate(tasks):
        stratum, numbers = shortcut.of_task(ids, task)
        if (stratum < 0).all():
            raise InputError(
                f"{shortcut.name}: no CXR has a value of {task}; a key of the records, or a file with scores"
            )
        usable = ~np.isnan(scored[:, k]) & ~np.isnan(labels[:, k])
        if without := [identifier for identifier, lacks in zip(ids, usable & (stratum < 0)) if lacks]:
            log.warning("%s: no value, left out: %s", shortcut.name, few(without))
        rows = np.flatnonzero(usable & (stratum >= 0))
        score, positive, parts = scored[rows, k], labels[rows, k] == 1, stratum[rows]
        once = np.ones((1, len(rows)))
        whole, within, pairs = _areas(score, positive, parts, once)
        drawn = [_areas(score, positive, parts, block[:, rows])[:2] for block in times]
        wholes, withins = (np.concatenate(part) for part in zip(*drawn))
        row = interval_row("shortcut", task, float(within[0]), withins, len(rows), int(failed[k]))
        lower, upper, _ = bootstrap.interval(_explained(wholes, withins))
        row |= {
            "by": shortcut.name,
            "strata": len(np.unique(parts)),
            "positives": int(positive.sum()),
            "pairs": float(pairs[0]),
            "auroc": float(whole[0]),
            "explained": float(_explained(whole, within)[0]),
            "explained_lower": lower,
            "explained_upper": upper,
        }
        if numbers is not None:
            row["floor"] = scores.value("auroc", numbers[rows], positive)
            row["spearman"] = spearman(score, numbers[rows])
        if np.isnan(within[0]):
            row["reason"] = "no stratum has both a positive and a negative CXR"
        found.append(row)
    return found


def _areas(score: np.ndarray, positive: np.ndarray, parts: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, ...]:
    """(AUROC, AUROC within parts, share of the pairs that are within), each [r], of CXRs drawn times [r, n]."""
    wins, pairs = scores.wins_and_pairs(score, positive, times)
    inner = [scores.wins_and_pairs(score[own], positive[own], times[:, own]) for own in _each(parts)]
    inner_wins, inner_pairs = (np.sum(part, axis=0) for part in zip(*inner))
    return scores.ratio(wins, pairs), scores.ratio(inner_wins, inner_pairs), scores.ratio(inner_pairs, pairs)


def _each(parts: np.ndarray) -> list[np.ndarray]:
    return [parts == part for part in np.unique(parts)]


def _explained(whole: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Share of an AUROC's excess over 0.5 that is gone within strata; NaN where there is no excess."""
    return 1 - scores.ratio(within - 0.5, whole - 0.5)
