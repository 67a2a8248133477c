"""Joint batches: images of further sets beside those of TRAIN, a steady share of each batch.

Every set is gone through in an order of its own, again and again; an epoch is a pass over TRAIN. Rows are numbered
through all sets, TRAIN's first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chextools.errors import InputError
from chextools.training.pixels import Images, Order

if TYPE_CHECKING:
    import torch


def parse_mix(text: str) -> tuple[str, float | None]:
    """(set, share of each batch or None) of SET[:SHARE]. Raises InputError for a share that is none."""
    source, colon, said = text.rpartition(":")
    if not colon or os.path.exists(text):
        return text, None
    try:
        share = float(said)
    except ValueError:
        return text, None
    if not 0 < share < 1:
        raise InputError(f"--mix {text}: the share of a batch must be above 0 and below 1")
    return source, share


def counts(mix: Sequence[str], batch_size: int) -> list[int]:
    """Images of each batch, of TRAIN and of each SET[:SHARE]; sets without a share and TRAIN share the rest equally.

    Raises InputError where TRAIN would have none.
    """
    said = [parse_mix(text)[1] for text in mix]
    rest = 1 - sum(share for share in said if share)
    equal = rest / (said.count(None) + 1)
    found = [max(1, int(batch_size * (share or equal) + 0.5)) for share in said]
    own = batch_size - sum(found)
    if rest <= 0 or own < 1:
        what = f"{batch_size} images a batch" if rest > 0 else f"shares of {1 - rest:g} in all"
        raise InputError(f"--mix {' '.join(mix)}: {what} leave none for TRAIN")
    return [own, *found]


class Mixture:
    """Which images each step takes, of sets of `sizes` images: of each batch `counts`, those of the first set first.

    per_step: images of all `batches` of a step together. A function of the seed alone.
    """

    def __init__(self, sizes: Sequence[int], counts: Sequence[int], batches: int, seed: int):
        self.batches = batches
        self.per_step = sum(counts) * batches
        self.orders = [Order(n, count * batches, seed, k) for k, (n, count) in enumerate(zip(sizes, counts))]
        self.starts = np.cumsum([0, *sizes[:-1]])

    def rows(self, step: int) -> np.ndarray:
        """int64 [per_step] of the step, counted from 0, batch by batch."""
        parts = [o.rows(step).reshape(self.batches, -1) + start for o, start in zip(self.orders, self.starts)]
        return np.concatenate(parts, axis=1).ravel()

    def set_of(self, rows: np.ndarray) -> np.ndarray:
        """int64, the number of the set of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def epochs(self, step: int) -> float:
        """Passes over TRAIN before a step."""
        return step * self.orders[0].per_step / self.orders[0].n


class ImagesOfSets:
    """Images of several sets, by rows that are numbered through all; each set is cached for itself."""

    def __init__(self, sets: Sequence[Images]):
        self.sets = sets
        self.starts = np.cumsum([0, *map(len, sets)])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows), size, size]. Raises InputError, which names the file, for one that cannot be read."""
        out = np.empty((len(rows), self.sets[0].size, self.sets[0].size), np.uint8)
        for images, start, stop in zip(self.sets, self.starts, self.starts[1:]):
            of = (rows >= start) & (rows < stop)
            out[of] = images.take(rows[of] - start)
        return out


def by_set(weight: torch.Tensor, sets: np.ndarray, counts: Sequence[int]) -> torch.Tensor:
    """Weights of labels [n, K], made such that each set counts as its share of the batch, however many labels it has.

    sets: of each row. counts: images of a batch by set. The sum stays: sets that have no label here leave the others
    theirs.
    """
    found = weight.clone()
    sums = [float(weight[sets == k].sum()) for k in range(len(counts))]
    shares = [count if of > 0 else 0 for count, of in zip(counts, sums)]
    for k, (share, of) in enumerate(zip(shares, sums)):
        if share:
            found[sets == k] *= share / sum(shares) * sum(sums) / of
    return found
