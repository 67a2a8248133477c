"""chex-compare: how far one result falls below another per task: the study's percentage decrease, and a paired test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from chextools import tasks
from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.metrics import bootstrap
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.results import study_csv
from chextools.results.results import AVERAGE, METRICS, join

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How to compare. tasks: those wanted; none for all that both sides have."""

    tasks: tuple[str, ...] = ()
    replicates: int = 1000
    seed: int = 0


@dataclass
class Results:
    """One side of the comparison.

    metric: None where neither the file nor the user says.
    ids: of the CXRs, where these are per-image results; None where they are the means of bootstrap replicates.
    values: float64 [n, K] by CXR or replicate and task, NaN where undefined.
    failures: lines that could not be used.
    """

    name: str
    metric: str | None
    ids: list[str] | None
    tasks: list[str]
    values: np.ndarray
    failures: list[Failure]


@dataclass
class Side:
    """What is compared of one side: replicate means, float64 [R, K], and by task the CXRs averaged, None if unknown."""

    replicates: np.ndarray
    n: np.ndarray | None


# Reading


def read(source: str, stdin: BinaryIO, metric: str | None = None) -> Results:
    """Per-image results or replicates, of chex-eval (JSON Lines) or the study (CSV; with a column img_id: per image).

    Raises InputError if there are none, or if they are of several metrics and `metric` does not choose.
    """
    name = "stdin" if source == "-" else source
    said = None
    with inputs.open_source(source, stdin) as stream:
        if inputs.is_json(stream, name):
            items = list(inputs.objects(stream, name))
        else:
            said = study_csv.metric_of(name)
            items = list(study_csv.read_by_cxr(stream, name, need_id=False))
    first, _ = records.peek(items, name)
    of_images = "id" in first
    if not of_images and not {"means", "values"} & first.keys():
        raise InputError(f"{name}: neither per-image results nor replicates (chex-eval --per-image, --replicate-table)")
    parsed = [_parsed(item, said or metric, number) for number, item in enumerate(items)]
    metric = _metric(parsed, metric, name)
    found: dict[str | int, dict[str, float]] = {}
    failures, places = [], {}
    for item in parsed:
        if isinstance(item, Failure):
            failures.append(item)
        elif metric in item.record["values"]:
            key = item.record["key"]
            if key in found:
                what = f"id {key!r}" if of_images else f"replicate {key}"
                failures.append(Failure(item.where, f"duplicate {what}, first at {places[key]}"))
            elif of_images != isinstance(key, str):
                failures.append(Failure(item.where, f"not {'per-image results' if of_images else 'a replicate'}"))
            else:
                found[key], places[key] = item.record["values"][metric], item.where
    keys = sorted(found)
    names = tasks.study_order(task for values in found.values() for task in values)
    table = np.array([[found[key].get(task, np.nan) for task in names] for key in keys]).reshape(len(keys), len(names))
    return Results(name, metric, keys if of_images else None, names, table, failures)


def _parsed(item: Located | Failure, metric: str | None, number: int) -> Located | Failure:
    """A line as {"key": id or number of the replicate, "values": metric -> task -> value}."""
    if isinstance(item, Failure):
        return item
    record = item.record
    try:
        key = records.check_id(record["id"]) if "id" in record else record.get("replicate", number)
        if "values" in record:  # the study's CSV
            return Located(item.where, {"key": key, "values": {metric: record["values"]}})
        if "means" in record:
            if not isinstance(key, int):
                raise InputError(f"replicate {str(key)[:40]!r} is not a whole number")
            given = {str(record.get("metric")): record["means"]}
        else:
            given = {name: record[name] for name in METRICS if name in record}
        values = {name: records.by_task(by_task, name) for name, by_task in given.items()}
        numbers = {name: {t: records.number(v, name) for t, v in values[name].items()} for name in values}
    except InputError as error:
        return Failure(item.where, str(error))
    return Located(item.where, {"key": key, "values": numbers})


def _metric(items: Sequence[Located | Failure], wanted: str | None, name: str) -> str | None:
    """The metric to compare: the one that is wanted, else the only one there."""
    found = list(dict.fromkeys(m for item in items if isinstance(item, Located) for m in item.record["values"]))
    if not found:
        reason = next((f" ({item.where}: {item.reason})" for item in items if isinstance(item, Failure)), "")
        raise InputError(f"{name}: no results of {' or '.join(METRICS)}{reason}")
    if wanted and wanted not in found:
        raise InputError(f"{name}: holds {' and '.join(map(str, found))}, not {wanted}")
    if not wanted and len(found) > 1:
        raise InputError(f"{name}: holds {' and '.join(map(str, found))}; choose one with --metric")
    return wanted or found[0]


# Comparing


def compare(pred: Results, ref: Results, settings: Settings) -> list[dict]:
    """One row per task, the greatest decrease first as in the study, and one for the average over tasks.

    Raises InputError where the two cannot be compared.
    """
    if (pred.ids is None) != (ref.ids is None):
        one, other = ("replicates" if side.ids is None else "per-image results" for side in (pred, ref))
        raise InputError(f"{pred.name} holds {one}, {ref.name} {other}: give two of a kind")
    if pred.metric and ref.metric and pred.metric != ref.metric:
        raise InputError(f"{pred.name} holds {pred.metric}, {ref.name} {ref.metric}")
    names = _shared_tasks(pred, ref, settings.tasks)
    tables = [np.ascontiguousarray(s.values[:, [s.tasks.index(task) for task in names]]) for s in (pred, ref)]
    if pred.ids is None:
        if len(tables[0]) != len(tables[1]):
            raise InputError(f"{pred.name} has {len(tables[0])} replicates, {ref.name} {len(tables[1])}")
        sides = [Side(table, None) for table in tables]
        difference = tables[0] - tables[1]
        n = pairs = None
    else:
        both = join(pred.ids, pred.name, ref.ids, ref.name)
        tables = [t[np.searchsorted(side.ids, both)] for side, t in zip((pred, ref), tables)]
        means = [bootstrap.means(t, settings.replicates, settings.seed) for t in (*tables, tables[0] - tables[1])]
        difference = means.pop()
        n = (~np.isnan(tables[0] - tables[1])).sum(axis=0)
        pairs = int((~np.isnan(tables[0] - tables[1])).any(axis=1).sum())
        sides = [Side(m, (~np.isnan(t)).sum(axis=0)) for m, t in zip(means, tables)]
    rows = [_row(task, *_column(sides, difference, n, k)) for k, task in enumerate(names)]
    for row, p in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = p
    rows = [rows[k] for k in _order(rows)] + [_average(sides, difference, n, pairs)]
    failed = len(pred.failures) + len(ref.failures)
    paired = {"paired": "replicate"} if n is None else {"paired": "cxr", "seed": settings.seed}
    for row in rows:
        for key in ("note", "reason"):
            if key in row:
                log.warning("%s: %s", row["task"], row[key])
    tail = {"failed": failed} | paired
    return [{"metric": pred.metric or ref.metric} | _with_tail(row, tail) for row in rows]


def _with_tail(row: dict, tail: dict) -> dict:
    words = {key: row.pop(key) for key in ("note", "reason") if key in row}
    return row | tail | words


def _shared_tasks(pred: Results, ref: Results, wanted: Sequence[str]) -> list[str]:
    """The tasks of both, in the study's order; says which are on one side only."""
    names = tasks.choose(wanted, {*pred.tasks, *ref.tasks}, f"{pred.name} or {ref.name}")
    shared = [task for task in names if task in pred.tasks and task in ref.tasks]
    if not shared:
        raise InputError(
            f"no task is on both sides: {pred.name} has {', '.join(pred.tasks)}; {ref.name} {', '.join(ref.tasks)}"
        )
    for task in names:
        if task not in shared:
            where = [side.name for side in (pred, ref) if task in side.tasks]
            log.warning("%s is %s: left out", task, f"in {where[0]} only" if where else "on neither side")
    return shared


def _column(sides: Sequence[Side], difference: np.ndarray, n: np.ndarray | None, k: int) -> tuple:
    """One task's part of the sides, differences and numbers of CXRs."""
    numbers = None if n is None else {"n": int(n[k]), "n_pred": int(sides[0].n[k]), "n_ref": int(sides[1].n[k])}
    return sides[0].replicates[:, k], sides[1].replicates[:, k], difference[:, k], numbers


def _row(task: str, pred: np.ndarray, ref: np.ndarray, difference: np.ndarray, numbers: dict | None) -> dict:
    """The comparison of replicates [R] of one task."""
    row = _compared(task, float(bootstrap.nanmean(pred)), float(bootstrap.nanmean(ref)), pred, ref, difference)
    row |= numbers or {}
    row["p"] = _at_least_possible(row["p"], numbers and numbers["n"])
    if numbers and not numbers["n_pred"] == numbers["n_ref"] == numbers["n"]:
        row["note"] = (
            f"PRED averages {numbers['n_pred']} CXRs, REF {numbers['n_ref']}; "
            f"the difference is over the {numbers['n']} that both have"
        )
    elif not numbers and (np.isnan(pred) != np.isnan(ref)).any():
        undefined = (int(np.isnan(values).sum()) for values in (pred, ref))
        row["note"] = "undefined in {} replicates of PRED, {} of REF: they average different CXRs".format(*undefined)
    if numbers and numbers["n"] < 2:
        row |= dict.fromkeys(("difference_lower", "difference_upper", "p"))
        if min(numbers["n_pred"], numbers["n_ref"]) < 2:
            row |= {"lower": None, "upper": None}
        row.setdefault("reason", f"{numbers['n'] or 'no'} CXR with a value on both sides: no interval")
    return row


def _average(sides: Sequence[Side], difference: np.ndarray, n: np.ndarray | None, pairs: int | None) -> dict:
    """The row of the mean over tasks: of the tasks' means, and in each replicate over the tasks defined there.

    pairs: CXRs with a value on both sides, of any task.
    """
    pred, ref = (bootstrap.nanmean(side.replicates, axis=1) for side in sides)
    means = [[bootstrap.nanmean(column) for column in side.replicates.T] for side in sides]
    average = [float(bootstrap.nanmean(np.array(values))) for values in means]
    row = _compared(AVERAGE, *average, pred, ref, bootstrap.nanmean(difference, axis=1))
    row["p"] = _at_least_possible(row["p"], pairs)
    if n is not None:
        row |= {"n": int(n.sum()), "n_pred": int(sides[0].n.sum()), "n_ref": int(sides[1].n.sum())}
        if n.max() < 2:
            row |= dict.fromkeys(("lower", "upper", "difference_lower", "difference_upper", "p"))
            row.setdefault("reason", "no task with two CXRs: no interval")
    defined = [int((~np.isnan(values)).sum()) for values in means]
    if (np.isnan(means[0]) != np.isnan(means[1])).any():
        row["note"] = f"PRED averages {defined[0]} tasks, REF {defined[1]}, not the same"
    return row


def _compared(
    task: str, pred_mean: float, ref_mean: float, pred: np.ndarray, ref: np.ndarray, difference: np.ndarray
) -> dict:
    """Percentage decrease (REF - PRED) / REF of the means, and PRED - REF with its two-sided p-value.

    Both intervals are over replicates. Where the mean of REF is 0 in a replicate, its decrease is minus infinity, or
    undefined if PRED is 0, too.
    """
    decrease = percentage_decrease(pred, ref)
    lower, upper, count = bootstrap.interval(decrease)
    lower_difference, upper_difference, _ = bootstrap.interval(difference)
    row = {"task": task, "pred": pred_mean, "ref": ref_mean}
    row |= {"pct_decrease": float(percentage_decrease(pred_mean, ref_mean)), "lower": lower, "upper": upper}
    row |= {"replicates": count, "difference": float(bootstrap.nanmean(difference))}
    row |= {"difference_lower": lower_difference, "difference_upper": upper_difference, "p": p_value(difference)}
    row["p_holm"] = None
    undefined = [name for name, mean in (("PRED", pred_mean), ("REF", ref_mean)) if np.isnan(mean)]
    if undefined:
        row["reason"] = f"{' and '.join(undefined)} {'are' if len(undefined) > 1 else 'is'} undefined"
    elif ref_mean == 0:
        row["reason"] = "the mean of REF is 0: no percentage of it"
    elif np.isneginf(lower):
        row["reason"] = f"the mean of REF is 0 in {int(np.isneginf(decrease).sum())} replicates: no lower bound"
    return row


def percentage_decrease(pred: np.ndarray | float, ref: np.ndarray | float) -> np.ndarray:
    """100 (REF - PRED) / REF; NaN or minus infinity, without a warning, where REF is 0."""
    pred, ref = np.asarray(pred, np.float64), np.asarray(ref, np.float64)
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


def _at_least_possible(p: float | None, n: int | None) -> float | None:
    """A p-value, but not below 2^(1 - n), the least that a test of n paired differences by their signs can give.

    Replicates of a few CXRs that all differ one way never reach 0, so that two CXRs would seem to prove a difference.
    """
    return p if p is None or n is None else min(1.0, max(p, 2.0 ** (1 - n)))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (Holm 1979) of the p-values that are not None."""
    known = sorted((p, k) for k, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    greatest = 0.0
    for rank, (p, k) in enumerate(known):
        greatest = max(greatest, min(1.0, (len(known) - rank) * p))
        adjusted[k] = greatest
    return adjusted


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
            decrease = percentage_decrease(pred, ref)
        bounds = [rounded(row[bound], decimals) for bound in ("lower", "upper")]
        table.append([row["task"], ref, pred, rounded(decrease, 3), *bounds])
    return study_csv.text(["", "hb", "pred", "pct_diff", "pct_diff_lower", "pct_diff_upper"], table)
