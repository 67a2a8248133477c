"""What an AUROC is worth: scores from what takes no look at the lungs: the size of the file, how the film was exposed,
or an 8 x 8 thumbnail.

Where positives and negatives come from different scanners, or were compressed differently, these alone tell them apart,
and a network may do no more. Each is a logistic regression fitted to another set's labels.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from chextools import tasks
from chextools.errors import InputError
from chextools.plumbing.parallel import ordered_map
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.xrays import images

log = logging.getLogger(__name__)

_SIDE = 8
_EXPOSED = 64  # pixels of the side at which grey levels are counted
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the pixels, quantiles of which are the exposure
_RIDGE = 1.0  # on standardised features: a thumbnail has 64


@dataclass(frozen=True)
class Floor:
    """Logistic regressions by task on standardised features: weights float64 [K, 1 + D], the first the intercept."""

    kind: str
    tasks: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def scores(self, features: np.ndarray) -> dict[str, float]:
        """The probability of each task, of one image's features [D]."""
        logits = self.weights[:, 0] + self.weights[:, 1:] @ ((features - self.mean) / self.scale)
        return {task: 1 / (1 + math.exp(-max(min(z, 500), -500))) for task, z in zip(self.tasks, logits)}


def features_of(path: str, kind: str) -> np.ndarray:
    """float64 [D]: the logarithm of the file's size; mean, standard deviation and quantiles of grey levels, which know
    nothing of where; 64 pixels of a thumbnail, in [0, 1]; or both size and thumbnail, with the thumbnail's mean and
    standard deviation. Raises InputError for what is no image.
    """
    if kind == "exposure":
        levels = images.load(path, _EXPOSED).ravel() / 255
        return np.array([levels.mean(), levels.std(), *np.quantile(levels, _SHARES)])
    thumbnail = images.load(path, _SIDE).ravel() / 255
    size = [math.log(os.path.getsize(path))]
    if kind == "filesize":
        return np.array(size)
    return thumbnail if kind == "thumbnail" else np.array([*size, thumbnail.mean(), thumbnail.std(), *thumbnail])


def fit(items: Iterable[Located | Failure], kind: str, requested: Sequence[str], where: str, jobs: int = 1) -> Floor:
    """A floor for each task with positive and negative labels. Raises InputError at the first record that fails."""
    found, labels = [], []
    for item in ordered_map(partial(_measured, kind=kind), items, jobs):
        if isinstance(item, Failure):
            raise InputError(f"{item.where}: {item.reason}")
        found.append(item.record["features"])
        labels.append(item.record.get("labels", {}))
    names = []
    for task in tasks.choose(requested, {task for label in labels for task in label}, where):
        if {0, 1} <= {label.get(task) for label in labels}:
            names.append(task)
        else:
            log.warning("%s: %s: left out, as a class is missing", where, task)
    if not names:
        raise InputError(f"{where}: no task has positive and negative labels to fit to")
    table = np.array(found)
    mean, scale = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-9)
    table = np.column_stack([np.ones(len(table)), (table - mean) / scale])
    weights = []
    for task in names:
        used = np.array([label.get(task) in (0, 1) for label in labels])
        weights.append(_logistic(table[used], np.array([label.get(task) == 1 for label in labels])[used]))
    return Floor(kind, tuple(names), mean, scale, np.array(weights))


def predict(items: Iterable[Located | Failure], floor: Floor, jobs: int = 1) -> Iterator[Located | Failure]:
    """Records with "scores", and a "model" that says what they are."""
    for item in ordered_map(partial(_measured, kind=floor.kind), items, jobs):
        if isinstance(item, Located):
            scores = floor.scores(item.record.pop("features"))
            record = item.record | {"scores": scores, "model": f"floor:{floor.kind}"}
            item = Located(item.where, records.ordered(record))
        yield item


def _measured(item: Located | Failure, kind: str) -> Located | Failure:
    if isinstance(item, Failure):
        return item
    try:
        if not isinstance(item.record.get("image"), str):
            raise InputError('no "image" key')
        return Located(item.where, item.record | {"features": features_of(item.record["image"], kind)})
    except InputError as error:
        return Failure(item.where, str(error))


def _logistic(table: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Ridge logistic regression by Newton's method; the intercept, column 0, is not penalised."""
    weights = np.zeros(table.shape[1])
    penalty = np.full(table.shape[1], _RIDGE)
    penalty[0] = 1e-6
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(table @ weights, -500, 500)))
        gradient = table.T @ (chance - positive) + penalty * weights
        curvature = (table * (chance * (1 - chance))[:, None]).T @ table + np.diag(penalty)
        change = np.linalg.solve(curvature, gradient)
        weights -= change
        if np.abs(change).max() < 1e-8:
            break
    return weights
