"""Labels to targets: which tasks can be learned, and what uncertain and blank labels count as.

CheXpert's labels are 1, 0, -1 (uncertain) and blank. Policies for uncertain ones (Irvin et al. 2019; Pham et al. 2019):

    ignore      no part of the loss
    zeros       negative
    ones        positive
    smooth      0.7, the mean of Pham's U(0.55, 0.85)
    multiclass  a class of its own
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chextools.errors import InputError
from chextools.metrics.catalogue import MISSING
from chextools.tasks import CHEXPERT, blank_means, canonical, choose, study_order

log = logging.getLogger(__name__)

POLICIES = ("ignore", "zeros", "ones", "multiclass", "smooth")
SMOOTH = 0.7
_BLANK, _ABSENT = -2, -3  # absent: of a task of which the whole set has no label
_UNCERTAIN = {"zeros": 0.0, "ones": 1.0, "smooth": SMOOTH, "multiclass": 2.0}


@dataclass(frozen=True)
class Labelling:
    """tasks: to learn, in the order of the logits. policy, missing: by task, of `POLICIES` and `MISSING`."""

    tasks: tuple[str, ...]
    policy: Mapping[str, str]
    missing: Mapping[str, str]

    @property
    def multiclass(self) -> np.ndarray:
        """Which tasks have three outputs: bool [K]."""
        return np.array([self.policy[task] == "multiclass" for task in self.tasks])


def parse_policy(values: Sequence[str], what: str, known: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """(policy for all, by task) of option values such as "ones" and "Edema=zeros". Raises InputError."""
    everywhere, by_task = None, {}
    for value in values:
        task, equals, policy = value.rpartition("=")
        if policy not in known or (equals and not task):
            raise InputError(f"{what} {value!r}: expected {', '.join(known)}, or TASK= and one of these")
        if equals:
            by_task[canonical(task)] = policy
        else:
            everywhere = policy
    return everywhere, by_task


def choose_labelling(
    records: Sequence[dict],
    requested: Sequence[str],
    uncertain: Sequence[str],
    missing: Sequence[str],
    where: str,
    mixed: Sequence[Sequence[dict]] = (),
) -> Labelling:
    """The tasks that can be learned of these records, and of those that are mixed in, with a warning for every other.

    Raises InputError for a task of `requested` that cannot, or if none is left.
    """
    sets = [records, *mixed]
    available = study_order({task for those in sets for record in those for task in record.get("labels", ())})
    names = choose(requested, available, where)
    policy, policies = parse_policy(uncertain, "--uncertain", POLICIES)
    blank, blanks = parse_policy(missing, "--missing", MISSING)
    for task in {**policies, **blanks}:
        choose([task], available, where)
    labelling = Labelling(
        tuple(names),
        {task: policies.get(task, policy or "ignore") for task in names},
        {task: blanks.get(task, blank or blank_means(task)) for task in names},
    )
    codes = table_of_sets(sets, labelling.tasks)
    left: dict[str, list[str]] = {}
    kept = []
    for k, task in enumerate(names):
        reason = _unlearnable(codes[:, k], labelling, task)
        if reason and requested:
            raise InputError(f"{where}: {task} cannot be learned: {reason}")
        if reason:
            left.setdefault(reason, []).append(task)
        else:
            kept.append(task)
    if not requested:
        if absent := [task for task in CHEXPERT if task not in available]:
            left.setdefault("no label at all", []).extend(absent)
    for reason, those in left.items():
        log.warning("left out: %s: %s", ", ".join(those), reason)
    if not kept:
        raise InputError(f"{where}: no task can be learned: none has positive and negative labels")
    return Labelling(tuple(kept), {t: labelling.policy[t] for t in kept}, {t: labelling.missing[t] for t in kept})


def table(records: Sequence[dict], tasks: Sequence[str]) -> np.ndarray:
    """int8 [n, K]: 1, 0, -1 uncertain, -2 blank."""
    rows = [[record.get("labels", {}).get(task, _BLANK) for task in tasks] for record in records]
    return np.array(rows, np.int8).reshape(len(records), len(tasks))


def table_of_sets(sets: Sequence[Sequence[dict]], tasks: Sequence[str]) -> np.ndarray:
    """The `table` of all sets, one below the other.

    Of several each has -3 for a task of which it has no label at all: nobody looked for it, and blanks mean nothing.
    """
    tables = [table(records, tasks) for records in sets]
    return np.concatenate([without_absent(codes) for codes in tables]) if len(tables) > 1 else tables[0]


def without_absent(codes: np.ndarray) -> np.ndarray:
    """A set's `table`, with -3 for the tasks of which it has no label at all."""
    return np.where((codes == _BLANK).all(axis=0), np.int8(_ABSENT), codes)


def targets(codes: np.ndarray, labelling: Labelling) -> tuple[np.ndarray, np.ndarray]:
    """(target, weight), float32 [n, K], of a `table`. A multiclass target is a class: 0, 1, 2 for uncertain."""
    target = np.where(codes > 0, 1, 0).astype(np.float32)
    weight = (codes >= 0).astype(np.float32)
    for k, task in enumerate(labelling.tasks):
        uncertain, blank = codes[:, k] == -1, codes[:, k] == _BLANK
        if labelling.policy[task] != "ignore":
            target[uncertain, k] = _UNCERTAIN[labelling.policy[task]]
            weight[uncertain, k] = 1
        if labelling.missing[task] == "negative":
            weight[blank, k] = 1
    return target, weight


def certain(codes: np.ndarray, labelling: Labelling) -> tuple[np.ndarray, np.ndarray]:
    """(positive, usable), bool [n, K], for metrics: uncertain labels are left out, blank ones are as in training."""
    usable = codes >= 0
    for k, task in enumerate(labelling.tasks):
        if labelling.missing[task] == "negative":
            usable[codes[:, k] == _BLANK, k] = True
    return codes == 1, usable


def class_weights(codes: np.ndarray, labelling: Labelling, often: np.ndarray | None = None) -> np.ndarray:
    """float32 [K, 3]: what a negative, positive and uncertain label weighs, so that each class weighs the same.

    often: [n], how often each image is looked at, beside others; None where all are alike.
    """
    target, weight = targets(codes, labelling)
    result = np.ones((len(labelling.tasks), 3), np.float32)
    for k, multiclass in enumerate(labelling.multiclass):
        used = weight[:, k] > 0
        of = target[used, k]
        seen = np.ones(len(of)) if often is None else often[used]
        if multiclass:
            counts = np.array([seen[of == c].sum() for c in range(3)])
            known = counts > 0
            result[k] = np.where(known, seen.sum() / (known.sum() * np.where(known, counts, 1)), 0)
        else:
            share = of.mean() if often is None else np.average(of, weights=seen)
            result[k] = [1, (1 - share) / share, 1]
    return result


def say(codes: np.ndarray, labelling: Labelling, where: str) -> None:
    """What was made of the labels, with counts: one line a task, and the default for blanks in one line."""
    absent = (codes == _ABSENT).all(axis=0)
    if absent.any():
        names = ", ".join(np.array(labelling.tasks)[absent])
        log.warning("%s: no label at all of %s: its images count for the other tasks only", where, names)
    for k, task in enumerate(labelling.tasks):
        if absent[k]:
            continue
        positive, negative, uncertain, blank = ((codes[:, k] == code).sum() for code in (1, 0, -1, _BLANK))
        log.info(
            "%s: %s: %d positive, %d negative, %d uncertain (%s), %d blank (%s)",
            where,
            task,
            positive,
            negative,
            uncertain,
            labelling.policy[task],
            blank,
            labelling.missing[task],
        )
    for what, code, chosen in (("uncertain", -1, labelling.policy), ("blank", _BLANK, labelling.missing)):
        for name in dict.fromkeys(chosen.values()):
            counts = {t: int((codes[:, k] == code).sum()) for k, t in enumerate(labelling.tasks) if chosen[t] == name}
            told = [f"{task} {count}" for task, count in counts.items() if count]
            if told:
                taken = {"ignore": "ignored", "negative": "taken for negative"}.get(name, f"taken as {name!r}")
                log.warning("%s: %s labels %s: %s", where, what, taken, ", ".join(told))


def _unlearnable(codes: np.ndarray, labelling: Labelling, task: str) -> str:
    if (codes <= _BLANK).all():
        return "no label at all"
    one = Labelling((task,), labelling.policy, labelling.missing)
    target, weight = targets(codes[:, None], one)
    used = target[weight > 0]
    if not (used == 0).any():
        return "no negative label"
    if not ((used > 0) & (used < 2)).any():
        return "no positive label"
    return ""
