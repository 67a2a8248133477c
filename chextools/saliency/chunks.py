"""Work in chunks that fit in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def in_chunks(count: int, size: int, work: Callable[[slice], Tensor]) -> Iterator[Tensor]:
    """work(slice) of up to `size` of `count` things each, in order; fewer from where memory was not enough.

    Raises MemoryError where it is not enough for one.
    """
    start = 0
    while start < count:
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
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory was not enough, on a GPU or in a CPU's allocator."""
    said = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in said or "not enough memory" in said)
    )
