"""Work on several processes, in order, with bounded memory; and how many processes are ours to use."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

from chextools.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

LOGIN_NODE_JOBS = 4
_ALONE = 0.1  # seconds of light work before there are processes, which take a fifth of that to start
_LIGHT = 0.007  # seconds that light work takes at most
_UNTIL_MORE = 16  # times that processes are given as many items as before
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt


def default_jobs() -> int:
    """Processes to use: what Slurm granted, else the cores we may run on, at most four outside Slurm.

    torchrun's processes on a node share what one would use.
    """
    granted = _granted()
    cores = min(granted, _affinity()) if granted else min(_affinity(), _cgroup_quota(), LOGIN_NODE_JOBS)
    sharing = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, cores // max(1, int(sharing) if sharing.isdigit() else 1))


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], jobs: int, ahead: int = 2, most: int = 1
) -> Generator[R]:
    """`map(function, items)` on `jobs` processes: same results, same order, `ahead` times in flight what one takes.

    most: items that a process takes at once, one at first and more as there turn out to be many; results then wait for
    each other. Where it is more than one, those of the first tenth of a second are done here as long as they are light:
    processes would have hardly begun. With one job there is no process, and never are there more than items. Workers
    leave Ctrl-C to the parent, and end when it does, however it ends.
    """
    items = iter(items)
    if most > 1 and jobs > 1:
        spent = 0.0
        for number, item in enumerate(items):
            began = time.perf_counter()
            result = function(item)
            took = time.perf_counter() - began
            yield result
            spent += took
            if spent > _ALONE or (number and took > _LIGHT):  # the first imports what all need
                break
    first = list(itertools.islice(items, max(jobs, 1)))
    items, jobs = itertools.chain(first, items), min(jobs, len(first))
    if jobs <= 1:
        yield from map(function, items)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), initializer=_start_worker)
    waiting: deque = deque()
    finished = False
    try:
        for number in itertools.count():
            some = list(itertools.islice(items, min(most, 1 + number // _UNTIL_MORE)))
            if not some:
                break
            try:
                waiting.append(pool.submit(_results, function, some))
            except OSError as error:
                raise InputError(f"cannot start {jobs} processes ({error.strerror}); try fewer with --jobs") from None
            while waiting[0].done() and len(waiting) > 1:
                yield from waiting.popleft().result()
            if len(waiting) >= jobs * ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
        pool.shutdown()
        finished = True
    except BrokenProcessPool:
        raise InputError("a worker process was killed (out of memory?); try fewer with --jobs") from None
    finally:
        results: Any = getattr(pool, "_result_queue", None)
        workers = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        if not finished:  # stopped early: nobody wants what the workers still do
            for worker in workers:
                worker.kill()
            with contextlib.suppress(AttributeError, OSError):
                # One may have died halfway through a result. The thread that reads it would wait for the rest, and the
                # interpreter for the thread, as long as anybody can write.
                results._writer.close()  # noqa: SLF001 - nothing public closes it


def _results(function: Callable[[T], R], items: list[T]) -> list[R]:
    return [function(item) for item in items]


def keep_memory() -> None:
    """Have glibc keep what it is given back, and threads share it.

    By default each large tensor is new pages from the kernel: a third of a DenseNet's forward pass. What a process
    takes at most stays the same.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_ARENA_MAX, 1)


def _start_worker() -> None:
    import multiprocessing
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _granted() -> int:
    """Cores that Slurm granted this process, whether or not it holds it to them; 0 outside Slurm."""
    per_task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if per_task.isdigit() and int(per_task):
        return int(per_task)
    on_node = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if not on_node.isdigit():
        return 0
    tasks = re.findall(r"(\d+)(?:\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))  # such as 2(x3),1
    return max(1, int(on_node) // max(map(int, tasks), default=1))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cgroup_quota() -> int:
    """Cores that the control group's quota amounts to (versions 2 and 1), rounded up; no limit is a large number."""
    for quota_file, period_file in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            words = " ".join(Path(file).read_text() for file in (quota_file, period_file) if file).split()
            quota, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            return math.ceil(quota / period)
    return 1 << 20
