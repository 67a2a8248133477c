"""For tests of what a GPU does, which are skipped where there is none, as in CI."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch


def need_gpu() -> None:
    """Skip where there is no GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")


@contextlib.contextmanager
def unwaited() -> Iterator[None]:
    """Raise RuntimeError where something waits for the GPU: kernels that it had to choose must be chosen before."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
