"""Training images: decoded once where memory allows, and read ahead of the network."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from chextools.errors import InputError
from chextools.xrays import images, packs

CACHE_BYTES = 2**30
_SHOWN = 10
_AT_ONCE = 256  # images that a thread looks at before it asks for more


class Source(Protocol):
    """What gives images by rows."""

    def take(self, rows: np.ndarray) -> np.ndarray: ...


class Images:
    """Images of records at one size. Decoded ones are kept while all of them fit into `CACHE_BYTES`."""

    def __init__(self, records: Sequence[dict], size: int):
        self.records, self.size = records, size
        fits = len(records) * size**2 <= CACHE_BYTES and not any("pack" in record for record in records)
        self._cache = np.empty((len(records), size, size), np.uint8) if fits else None
        self._cached = np.zeros(len(records), bool)

    def __len__(self) -> int:
        return len(self.records)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows), size, size]. Raises InputError, which names the file, for one that cannot be read."""
        out = np.empty((len(rows), self.size, self.size), np.uint8)
        for k, row in enumerate(rows):
            if self._cache is None:
                out[k] = packs.pixels(self.records[row], self.size)
                continue
            if not self._cached[row]:
                self._cache[row] = packs.pixels(self.records[row], self.size)
                self._cached[row] = True
            out[k] = self._cache[row]
        return out


def check_images(records: Sequence[dict], where: str, jobs: int) -> None:
    """Raise InputError that lists the first ten images that are not there or, by header and end, not whole.

    Nothing is decoded, so that all can be looked at before training; what stands in a pack was checked as it was made.
    """
    paths = [record["image"] for record in records if "pack" not in record]
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    pool = ThreadPoolExecutor(jobs, "chextools-images")
    missing, broken = [], []
    try:
        for part in pool.map(_problems, parts):
            missing += part[0]
            broken += part[1]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    for found, are, hint in ((missing, "are missing", " (--root says where they are)"), (broken, "cannot be read", "")):
        if found:
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise InputError(
                f"{where}: {len(found)} of {len(records)} images {are}: {', '.join(found[:_SHOWN])}{more}{hint}"
            )


def _problems(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of images, those that are not there, and what is wrong with others."""
    missing, broken = [], []
    for path in paths:
        try:
            images.check(path, quick=True)
        except InputError as error:
            if os.path.isfile(path):
                broken.append(str(error))
            else:
                missing.append(path)
    return missing, broken


class Order:
    """Which images each step takes: every epoch all of them, in an order of its own; a function of the seed alone.

    A step that reaches the end of an epoch goes on with the next, so that all have the same number of images.
    number: of the set, whose order then differs from that of others of its size.
    """

    def __init__(self, n: int, per_step: int, seed: int, number: int = 0):
        self.n, self.per_step, self.seed, self.number = n, per_step, seed, number
        self._epoch = (-1, np.zeros(0, np.int64))

    def rows(self, step: int) -> np.ndarray:
        """int64 [per_step] of the step, counted from 0."""
        position, taken = step * self.per_step, []
        left = self.per_step
        while left:
            epoch, start = divmod(position, self.n)
            part = self._permutation(epoch)[start : start + left]
            taken.append(part)
            position, left = position + len(part), left - len(part)
        return np.concatenate(taken)

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._epoch[0] != epoch:
            key = [self.seed, epoch, self.number] if self.number else [self.seed, epoch]
            self._epoch = (epoch, np.random.default_rng(key).permutation(self.n))
        return self._epoch[1]


class Ahead:
    """Batches of images in order, decoded by threads before they are asked for; `waited` counts the seconds lost.

    share: of a batch's rows those whose images are wanted.
    """

    def __init__(
        self, images: Source, rows: Iterable[np.ndarray], jobs: int, share: Callable[[np.ndarray], np.ndarray]
    ):
        self.images, self.rows, self.jobs, self.share = images, rows, jobs, share
        self.waited = 0.0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, uint8 [n, size, size] of the share of them)."""
        pool = ThreadPoolExecutor(self.jobs, "chextools-images")
        waiting: deque = deque()
        try:
            for rows in self.rows:
                waiting.append((rows, pool.submit(self.images.take, self.share(rows))))
                if len(waiting) > self.jobs + 1:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _next(self, waiting: deque) -> tuple[np.ndarray, np.ndarray]:
        rows, future = waiting.popleft()
        start = time.perf_counter()
        pixels = future.result()
        self.waited += time.perf_counter() - start
        return rows, pixels
