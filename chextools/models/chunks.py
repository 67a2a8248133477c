"""Work in chunks that fit in memory, between which it can be stopped. Imports torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from chextools.models.inference import leave_if_stopped

log = logging.getLogger(__name__)

K = TypeVar("K")


def in_chunks(count: int, size: int, work: Callable[[slice], Tensor]) -> Iterator[Tensor]:
    """work(slice) of up to `size` of `count` things each, in order; fewer from where memory was not enough.

    Raises MemoryError where it is not enough for one.
    """
    start = 0
    while start < count:
        leave_if_stopped()
        part = slice(start, min(start + size, count))
        try:
            found = work(part)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            found = None  # what the failed attempt held is free once this block is left
        if found is not None:
            yield found
            start = part.stop
        elif part.stop - part.start == 1:
            raise MemoryError
        else:
            size = (part.stop - part.start) // 2
            log.info("out of memory with %d at once: halved", part.stop - part.start)
            _give_back()


def of_images(
    images: Mapping[K, np.ndarray], work: Callable[[Mapping[K, np.ndarray]], tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    """work(images) of arrays [N, size, size] by what they are for; in halves, laid together, where memory is short.

    Raises MemoryError where it is not enough for one image.
    """
    try:
        return work(images)
    except (RuntimeError, MemoryError) as error:
        count = len(next(iter(images.values())))
        if not out_of_memory(error):
            raise
        if count < 2:
            raise MemoryError from None
    _give_back()
    log.info("out of memory with %d images at once: halved", count)
    halves = [
        of_images({key: pixels[part] for key, pixels in images.items()}, work)
        for part in (slice(0, count // 2), slice(count // 2, count))
    ]
    return tuple(np.concatenate(part) for part in zip(*halves))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory was not enough, on a GPU or in a CPU's allocator."""
    said = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in said or "not enough memory" in said)
    )


def _give_back() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
