"""Images through a network in batches: read ahead by threads, in order, streaming; devices and threads with manners."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from chextools.errors import InputError
from chextools.plumbing.parallel import default_jobs, keep_memory
from chextools.records.records import Failure, Located
from chextools.xrays import packs
from chextools.xrays.squares import Square

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

B = TypeVar("B")
R = TypeVar("R")

READER = "chextools-reader"  # name of the thread that reads ahead: it may still wait for stdin when we end
_AHEAD = 2  # batches
_thread = threading.local()


def batches(
    items: Iterable[Any], size: int | Sequence[Square], batch_size: int, jobs: int = 1
) -> Generator[list[tuple[Any, Any]], None, None]:
    """Lists of up to `batch_size` (item, image), in the order of the items; images are uint8 [size, size].

    While a batch is worked on, a thread takes the next items and `jobs` others decode them, at most two batches ahead;
    decoding is C code that leaves the interpreter free. An image that cannot be read makes its item a Failure. A
    Failure, and whatever else is not Located, has None for an image. With squares there is a tuple of images, one for
    each.
    """
    ready: queue.Queue = queue.Queue(_AHEAD * batch_size)
    stopped = threading.Event()
    pool = ThreadPoolExecutor(jobs, "chextools-images")

    def read() -> None:
        try:
            for item in items:
                if stopped.is_set() or not _put(ready, pool.submit(_load, item, size), stopped):
                    return
            _put(ready, None, stopped)
        except BaseException as error:  # raised again where the batches are used
            _put(ready, error, stopped)

    thread = threading.Thread(target=read, name=READER, daemon=True)
    thread.start()
    try:
        results = iter(lambda: _next(ready), None)
        while batch := list(itertools.islice(results, batch_size)):
            yield batch
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        thread.join(1)  # unless it waits for input that may never come


def computed(batches: Generator[B], work: Callable[[B], R], workers: int = 1) -> Generator[R, None, None]:
    """`work(batch)` of each batch, in order, by threads of their own, at most one batch ahead of each.

    workers: how many at once. Where there are several, each computes with one core: no core waits for the others
    between operations, nor while one of them decodes images, and the numbers do not depend on how many there are.
    With one, it has as many cores as `threads` gives. The caller's signals are seen meanwhile.
    """
    import torch

    results: queue.Queue = queue.Queue(workers)
    stopped = threading.Event()

    def start() -> None:
        _thread.stopped = stopped
        if workers > 1:
            torch.set_num_threads(1)

    pool = ThreadPoolExecutor(workers, "chextools-network", start)

    def feed() -> None:
        try:
            with contextlib.closing(batches):
                for batch in batches:
                    if stopped.is_set() or not _put(results, pool.submit(work, batch), stopped):
                        return
            _put(results, None, stopped)
        except BaseException as error:  # raised again where the results are used
            _put(results, error, stopped)

    keep_memory()
    thread = threading.Thread(target=feed, name=READER, daemon=True)
    thread.start()
    try:
        while (result := _next(results)) is not None:
            yield result
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)  # when the batches in hand are done, or look at `leave_if_stopped`
        thread.join(1)  # unless it waits for input that may never come


def workers(device: torch.device) -> int:
    """Batches for `computed` to have in hand: one per core of a CPU. Beside a GPU two wait for Python's one lock."""
    import torch

    return torch.get_num_threads() if device.type == "cpu" else 1


class Unwanted(Exception):
    """Nobody wants the result any more."""


def leave_if_stopped() -> None:
    """Raise Unwanted in a thread of `computed` after that was closed; long work asks now and then."""
    stopped = getattr(_thread, "stopped", None)
    if stopped is not None and stopped.is_set():
        raise Unwanted


def _put(results: queue.Queue, entry: object, stopped: threading.Event) -> bool:
    """Whether there was room before all was stopped."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            results.put(entry, timeout=0.2)
            return True
    return False


def normalise(
    pixels: np.ndarray | torch.Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device | None = None
) -> torch.Tensor:
    """Grey levels [N, H, W] to float32 [N, C, H, W] on the device: gray in each channel, less its mean, over its std.

    mean and std are of pixels in [0, 1].
    """
    import torch

    pixels = torch.as_tensor(pixels)
    if device is not None:
        pixels = there(pixels, device)
    mean_there, std_there = _scale(tuple(mean), tuple(std), pixels.device)
    return (pixels.to(torch.float32)[:, None] / 255 - mean_there) / std_there


@functools.lru_cache(16)
def _scale(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """[2, C, 1, 1] on the device: made once, as making it waits for a GPU."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor([mean, std], dtype=torch.float32, device=device)[:, :, None, None]


def there(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device. A GPU fetches it by itself, from memory that stays in place: nobody waits."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def device(name: str) -> torch.device:
    """The device of `--device`: auto, cpu, cuda, cuda:N or mps. auto says when it falls back to the CPU.

    Raises InputError for one that is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        count = _threads()
        said = "no GPU is available: running on the CPU with %d thread%s"
        log.warning(said, count, "s" * (count != 1), extra={"once": True})
        return torch.device("cpu")
    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return found


def exactly() -> None:
    """Have GPUs compute convolutions in float32, and to the same bits each time.

    By default cuDNN cuts 13 bits off, so that maps do not sum any more, and may add gradients up in any order.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


def place(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model on the device, laid out for it: by pixel on a CPU, where a DenseNet is a fifth faster that way."""
    import torch

    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]  # both may be given


@contextlib.contextmanager
def threads() -> Iterator[None]:
    """Compute with as many threads as OMP_NUM_THREADS says, else as many as are ours to use."""
    import torch

    keep_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(_threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(said) if said.isdigit() and int(said) else default_jobs()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, for a little work before another thread does the rest.

    Were both to have helpers, there would be more threads than cores, and OpenMP lets helpers sleep then between
    operations: a fifth slower.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load(item: object, size: int | Sequence[Square]) -> tuple[object, object]:
    if not isinstance(item, Located):
        return item, None
    if not isinstance(item.record.get("image"), str):
        return Failure(item.where, 'no "image" key'), None
    try:
        if isinstance(size, int):
            return item, packs.pixels(item.record, size)
        return item, tuple(square.pixels(item.record) for square in size)
    except InputError as error:
        return Failure(item.where, str(error)), None


def _next(results: queue.Queue) -> Any:
    """The next result, None at the end; short waits, so that signals are seen."""
    while True:
        with contextlib.suppress(queue.Empty):
            entry = results.get(timeout=1)
            break
    if isinstance(entry, BaseException):
        raise entry
    if not isinstance(entry, Future):
        return entry
    while not entry.done():
        wait([entry], timeout=1)
    return entry.result()
