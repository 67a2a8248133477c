"""How far one result falls below another per task: the study's percentage decrease, and a paired test.

Of per-image results tests and intervals are those of `paired`, which hold where CXRs are few; of replicates, of which
no more is known, they are those of the bootstrap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from chextools import tasks
from chextools.comparison.settings import ComparisonSettings
from chextools.comparison.sides import Results, patients_of
from chextools.errors import InputError
from chextools.metrics import bootstrap, paired
from chextools.metrics.paired import Clusters, Difference
from chextools.records.tally import unseen
from chextools.results import study_csv
from chextools.results.results import AVERAGE, join

log = logging.getLogger(__name__)


@dataclass
class Side:
    """What is compared of one side: replicate means, float64 [R, K], and by task the CXRs averaged, None if unknown."""

    replicates: np.ndarray
    n: np.ndarray | None


def rows_of(
    pred: Results, ref: Results, settings: ComparisonSettings, progress: Callable[..., Iterable] = unseen
) -> tuple[list[dict], list[dict]]:
    """One row per task, the greatest decrease first as in the study, and one for the average; and the study's rows.

    In the study's all bounds are the bootstrap's. progress: as of `Tally`. Raises InputError where the two cannot
    be compared.
    """
    if (pred.ids is None) != (ref.ids is None):
        one, other = ("replicates" if side.ids is None else "per-image results" for side in (pred, ref))
        raise InputError(f"{pred.name} holds {one}, {ref.name} {other}: give two of a kind")
    if pred.metric and ref.metric and pred.metric != ref.metric:
        raise InputError(f"{pred.name} holds {pred.metric}, {ref.name} {ref.metric}")
    names = shared_tasks(pred.tasks, pred.name, ref.tasks, ref.name, settings.tasks)
    tables = [np.ascontiguousarray(s.values[:, [s.tasks.index(task) for task in names]]) for s in (pred, ref)]
    found: list[Difference] = []
    if pred.ids is None or ref.ids is None:
        if len(tables[0]) != len(tables[1]):
            raise InputError(f"{pred.name} has {len(tables[0])} replicates, {ref.name} {len(tables[1])}")
        if settings.margin is not None or settings.resample == "patient":
            what = "a margin needs" if settings.margin is not None else "patients are known of"
            raise InputError(f"{pred.name}: {what} per-image results, not replicates")
        sides, n = [Side(table, None) for table in tables], None
    else:
        both = join(pred.ids, pred.name, ref.ids, ref.name)
        tables = [t[np.searchsorted(side, both)] for side, t in zip((pred.ids, ref.ids), tables)]
        of_patients = settings.resample == "patient"
        groups = bootstrap.groups_of(patients_of(both, pred.patients, ref.patients)) if of_patients else None
        steps = iter(progress(range(2 * settings.replicates), "replicates"))
        means = [bootstrap.means(t, settings.replicates, settings.seed, groups, steps) for t in tables]
        sides = [Side(m, (~np.isnan(t)).sum(axis=0)) for m, t in zip(means, tables)]
        n = (~np.isnan(tables[0] - tables[1])).sum(axis=0)
        clusters = Clusters(*groups) if groups else Clusters.of_rows(len(both))
        steps = iter(progress(range(paired.DRAWS // 1000), "thousand draws"))
        found = paired.differences(tables[0], tables[1], clusters, settings.seed, steps)
        del steps  # what is done is no longer shown
    difference = sides[0].replicates - sides[1].replicates
    rows = [_row(task, *_column(sides, n, k), difference[:, k]) for k, task in enumerate(names)]
    order = list(_order(rows))
    rows.append(_average(sides, n, bootstrap.nanmean(difference, axis=1)))
    study = [dict(rows[k]) for k in [*order, -1]]
    for row, difference in zip(rows, found):
        _tell(row, difference, settings)
    for row, p in zip(rows, paired.holm([row["p"] for row in rows[:-1]])):
        row["p_holm"] = p
    tail = {"failed": len(pred.failures) + len(ref.failures)} | _told(settings, bool(found))
    rows = [{"metric": pred.metric or ref.metric} | with_tail(rows[k], tail) for k in [*order, -1]]
    for row in rows:
        for key in ("note", "reason"):
            if key in row:
                log.warning("%s: %s", row["task"], row[key])
    return rows, study


def _told(settings: ComparisonSettings, is_paired: bool) -> dict[str, object]:
    """How the sides were paired, and what was asked."""
    if not is_paired:
        return {"paired": "replicate"}
    return {"paired": settings.resample, "seed": settings.seed}


def with_tail(row: dict, tail: dict) -> dict:
    """The row with what all rows have, its words last."""
    words = {key: row.pop(key) for key in ("note", "reason") if key in row}
    return row | tail | words


def _tell(row: dict, found: Difference, settings: ComparisonSettings) -> None:
    """Put a paired difference into a row in place of what the bootstrap says."""
    decrease, lower, upper = found.decrease
    row |= {"lower": lower, "upper": upper}
    row |= difference_columns(found, settings) | {"test": found.test or None}
    if settings.resample == "patient":
        row["patients"] = found.clusters
    if row["ref"] > 0:
        row.pop("reason" if "replicates" in row.get("reason", "") else "", None)
    unit = "CXR" if settings.resample == "cxr" else "patient"
    if found.clusters < 2:
        count = found.clusters or "no"
        why = f"no task with two {unit}s: no interval" if row["task"] == AVERAGE else None
        row.setdefault("reason", why or f"{count} {unit} with a value on both sides: no interval")
    elif np.isnan(found.interval()[0]):
        row.setdefault("reason", f"{found.clusters} {unit}s that all differ alike: no interval")
    elif np.isnan(lower) and "reason" not in row:
        row["reason"] = f"the mean of PRED is {'0' if row['pred'] == 0 else 'negative'}: no interval of the percentage"


def difference_columns(found: Difference, settings: ComparisonSettings) -> dict[str, float | None]:
    """The difference, its interval and its tests."""
    if np.isnan(found.error):
        row = {"difference": found.value} | dict.fromkeys(("difference_lower", "difference_upper", "p"))
        return row | {"p_holm": None} | (_margins(None, settings))
    lower, upper = found.interval()
    row = {"difference": found.value, "difference_lower": lower, "difference_upper": upper, "p": found.p}
    return row | {"p_holm": None} | _margins(found, settings)


def _margins(found: Difference | None, settings: ComparisonSettings) -> dict[str, float | None]:
    if settings.margin is None:
        return {}
    row: dict[str, float | None] = {"margin": settings.margin, "p_noninferior": None, "p_equivalent": None}
    if found is not None:
        row["p_noninferior"] = found.noninferior(settings.margin)
        row["p_equivalent"] = found.equivalent(settings.margin)
    return row


def shared_tasks(
    pred: Sequence[str], pred_name: str, ref: Sequence[str], ref_name: str, wanted: Sequence[str]
) -> list[str]:
    """The tasks of both, in the study's order; says which are on one side only. Raises InputError if none is."""
    names = tasks.choose(wanted, {*pred, *ref}, f"{pred_name} or {ref_name}")
    shared = [task for task in names if task in pred and task in ref]
    if not shared:
        raise InputError(f"no task is on both sides: {pred_name} has {', '.join(pred)}; {ref_name} {', '.join(ref)}")
    for task in names:
        if task not in shared:
            where = [name for side, name in ((pred, pred_name), (ref, ref_name)) if task in side]
            log.warning("%s is %s: left out", task, f"in {where[0]} only" if where else "on neither side")
    return shared


def _column(sides: Sequence[Side], n: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray, dict | None]:
    """One task's replicates of both sides, and numbers of CXRs."""
    one, other = sides
    numbers = None
    if n is not None and one.n is not None and other.n is not None:
        numbers = {"n": int(n[k]), "n_pred": int(one.n[k]), "n_ref": int(other.n[k])}
    return one.replicates[:, k], other.replicates[:, k], numbers


def _row(task: str, pred: np.ndarray, ref: np.ndarray, numbers: dict | None, difference: np.ndarray) -> dict:
    """The comparison of replicates [R] of one task."""
    row = _compared(task, float(bootstrap.nanmean(pred)), float(bootstrap.nanmean(ref)), pred, ref, difference)
    row |= numbers or {}
    if numbers and not numbers["n_pred"] == numbers["n_ref"] == numbers["n"]:
        row["note"] = (
            f"PRED averages {numbers['n_pred']} CXRs, REF {numbers['n_ref']}; "
            f"the difference is over the {numbers['n']} that both have"
        )
    elif not numbers and (np.isnan(pred) != np.isnan(ref)).any():
        undefined = (int(np.isnan(values).sum()) for values in (pred, ref))
        row["note"] = "undefined in {} replicates of PRED, {} of REF: they average different CXRs".format(*undefined)
    if numbers and min(numbers["n_pred"], numbers["n_ref"]) < 2:
        row |= {"lower": None, "upper": None}
    return row


def _average(sides: Sequence[Side], n: np.ndarray | None, difference: np.ndarray) -> dict:
    """The row of the mean over tasks: of the tasks' means, and in each replicate over the tasks defined there."""
    pred, ref = (bootstrap.nanmean(side.replicates, axis=1) for side in sides)
    means = [[bootstrap.nanmean(column) for column in side.replicates.T] for side in sides]
    of_pred, of_ref = (float(bootstrap.nanmean(np.array(values))) for values in means)
    row = _compared(AVERAGE, of_pred, of_ref, pred, ref, difference)
    if n is not None:
        totals = (int(side.n.sum()) for side in sides if side.n is not None)
        row |= dict(zip(("n", "n_pred", "n_ref"), (int(n.sum()), *totals)))
        if n.max() < 2:
            row |= {"lower": None, "upper": None}
    defined = [int((~np.isnan(values)).sum()) for values in means]
    if (np.isnan(means[0]) != np.isnan(means[1])).any():
        row["note"] = f"PRED averages {defined[0]} tasks, REF {defined[1]}, not the same"
    return row


def _compared(
    task: str, pred_mean: float, ref_mean: float, pred: np.ndarray, ref: np.ndarray, difference: np.ndarray
) -> dict:
    """Percentage decrease (REF - PRED) / REF of the means, and PRED - REF with the bootstrap's p-value.

    Both intervals are over replicates. Where the mean of REF is 0 in a replicate, its decrease is minus infinity, or
    undefined if PRED is 0, too; and undefined where it is negative, as some probes are.
    """
    decrease = percentage_decrease(pred, ref)
    lower, upper, count = bootstrap.interval(decrease)
    lower_difference, upper_difference, _ = bootstrap.interval(difference)
    row: dict = {"task": task, "pred": pred_mean, "ref": ref_mean}
    row |= {"pct_decrease": float(percentage_decrease(pred_mean, ref_mean)), "lower": lower, "upper": upper}
    row |= {"replicates": count, "difference": float(bootstrap.nanmean(difference))}
    row |= {"difference_lower": lower_difference, "difference_upper": upper_difference, "p": p_value(difference)}
    row["p_holm"] = None
    undefined = [name for name, mean in (("PRED", pred_mean), ("REF", ref_mean)) if np.isnan(mean)]
    if undefined:
        row["reason"] = f"{' and '.join(undefined)} {'are' if len(undefined) > 1 else 'is'} undefined"
    elif ref_mean <= 0:
        row["reason"] = f"the mean of REF is {'negative' if ref_mean else '0'}: no percentage of it"
    elif np.isneginf(lower):
        row["reason"] = f"the mean of REF is 0 in {int(np.isneginf(decrease).sum())} replicates: no lower bound"
    return row


def percentage_decrease(pred: np.ndarray | float, ref: np.ndarray | float) -> np.ndarray:
    """100 (REF - PRED) / REF; NaN where REF is negative, NaN or minus infinity, without a warning, where it is 0."""
    pred, ref = np.asarray(pred, np.float64), np.asarray(ref, np.float64)
    ref = np.where(ref < 0, np.nan, ref)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ref - pred) / ref * 100


def p_value(differences: np.ndarray) -> float | None:
    """Two-sided p-value of bootstrap replicates of a difference: twice the share of those at or beyond 0, plus one.

    It is the least level at which the percentile interval leaves out 0 (Efron and Tibshirani 1993, chapter 15; one is
    added as in Davison and Hinkley 1997, section 4.2.3, so that it is never 0). None where nothing is defined.
    """
    known = differences[~np.isnan(differences)]
    if not known.size:
        return None
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (known.size + 1))


def _order(rows: Sequence[dict]) -> Iterator[int]:
    """Rows by descending decrease, undefined ones last.

    The study's sort leaves the order of equals to chance; numpy's heapsort, on rows in the study's order of tasks,
    gives the order that its scripts gave.
    """
    decrease = np.round([row["pct_decrease"] for row in rows], 3)
    defined = np.flatnonzero(~np.isnan(decrease))[::-1]
    yield from defined[np.argsort(decrease[defined], kind="heapsort")][::-1].tolist()
    yield from np.flatnonzero(np.isnan(decrease)).tolist()


def study_text(rows: Sequence[dict]) -> str:
    """The study's miou_pct_decrease.csv or hitrate_pct_decrease.csv.

    Its bounds are rounded to a tenth of a percent; the average's means are rounded before its decrease is taken.
    """

    def rounded(value: float | None, decimals: int) -> float:
        return float(np.round(np.nan if value is None else value, decimals))

    table = []
    for row in rows:
        pred, ref, decimals, decrease = row["pred"], row["ref"], 1, row["pct_decrease"]
        if row["task"] == AVERAGE:
            pred, ref, decimals = rounded(pred, 3), rounded(ref, 3), 3
            decrease = float(percentage_decrease(pred, ref))
        bounds = [rounded(row[bound], decimals) for bound in ("lower", "upper")]
        table.append([row["task"], ref, pred, rounded(decrease, 3), *bounds])
    return study_csv.text(["", "hb", "pred", "pct_diff", "pct_diff_lower", "pct_diff_upper"], table)
