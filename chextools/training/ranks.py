"""The processes of one run: which of them this is, as Slurm or torchrun tells it, and what they tell each other.

Each works on its share of every batch. All hold the same weights, draw the same random numbers and come to the same
decisions; the first, of rank 0, writes.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chextools.errors import InputError

if TYPE_CHECKING:
    import torch

# A process that ends is noticed at once, by its connections. This is for one that hangs or cannot be reached; it must
# cover the time in which the first writes a checkpoint, and by which some start before others.
TIMEOUT = datetime.timedelta(minutes=5)
_PATIENCE = datetime.timedelta(minutes=1)
_PORTS = range(12_000, 20_000)  # below those that systems hand out by themselves


@dataclass(frozen=True)
class Ranks:
    """This process, of rank `rank`, among `count`, and number `local` of its node. meeting: where, as torch's URL."""

    rank: int = 0
    count: int = 1
    local: int = 0
    meeting: str = "env://"

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Which of the n rows of a batch are ours: as many as others have, give or take one."""
        return slice(n * self.rank // self.count, n * (self.rank + 1) // self.count)

    def device(self, device: torch.device) -> torch.device:
        """The device; of several GPUs the one that is ours by our number on the node."""
        import torch

        if self.count == 1 or device.type != "cuda":
            return device
        if device.index is None:
            device = torch.device("cuda", self.local % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device

    def join(self, device: torch.device) -> None:
        """Meet the others. Raises InputError if one of them has failed before, `found` if they do not come."""
        if self.count == 1:
            return
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"several processes compute on CPUs or CUDA GPUs, not on {device.type}")
        self._meet("cpu:gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl", None, TIMEOUT)

    def tell(self, error: InputError) -> None:
        """Have the others, who wait in `join`, end as well; after a minute it is left to them."""
        if self.count > 1 and not is_connected():
            with contextlib.suppress(RuntimeError, InputError):
                self._meet("cpu:gloo", f"{_where(self) or 'the first process: '}{error}", _PATIENCE)

    def _meet(self, backend: str, error: str | None, patience: datetime.timedelta) -> None:
        from torch import distributed

        global _met
        _met = True
        distributed.init_process_group(
            backend, init_method=self.meeting, rank=self.rank, world_size=self.count, timeout=patience
        )
        errors: list[str | None] = [None] * self.count
        distributed.all_gather_object(errors, error)
        if first := next(filter(None, errors), None):
            with contextlib.suppress(RuntimeError):
                distributed.barrier()  # nobody leaves before all have heard
            raise InputError(first)

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, in which now stands the sum over all processes."""
        if self.count > 1:
            from torch import distributed

            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any process says so; on the CPU, where it keeps no GPU from working on."""
        if self.count == 1:
            return flag
        import torch

        return bool(self.total(torch.tensor(int(flag))))

    def agree(self, value: object, otherwise: str) -> None:
        """Wait for the others. Raises InputError(otherwise) in all of them unless all hold the same value."""
        if self.count > 1:
            from torch import distributed

            values: list[object] = [None] * self.count
            distributed.all_gather_object(values, value)
            if any(other != value for other in values):
                raise InputError(otherwise)


ALONE = Ranks()
_met = False


def has_met() -> bool:
    """Whether this process has ever begun to connect with others: threads of that may be there to its end."""
    return _met


def is_connected() -> bool:
    """Whether this process still holds connections with others."""
    if "torch.distributed" not in sys.modules:
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


@contextlib.contextmanager
def found(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """This process among those of its run, to the end of the block.

    An error of another than the first says whose it is, and the loss of another process is an InputError.
    """
    ranks = read(environment)
    if ranks.count > 1:  # libraries' own lines about a lost connection; ours says what it means
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    try:
        yield ranks
    except InputError as error:
        ranks.tell(error)
        raise InputError(f"{_where(ranks)}{error}") from None
    except RuntimeError as error:
        if ranks.count == 1 or not _of_network(error):
            raise
        said = str(error).splitlines()[0]
        raise InputError(
            f"{_where(ranks)}another process ended or cannot be reached; see what it said, then go on "
            f"with --resume ({said})"
        ) from None
    if is_connected():
        from torch import distributed

        distributed.destroy_process_group()


def read(environment: Mapping[str, str]) -> Ranks:
    """Ranks from torchrun's variables, else from those of a step of srun; a batch script is one process.

    Raises InputError for numbers that make no sense.
    """
    meeting = "env://"
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        names: tuple[str, ...] = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        meeting = f"tcp://{_host(environment)}:{_port(environment)}"
    else:
        return ALONE
    try:
        rank, count, local = [int(environment[name]) for name in names][:3]
        if not 0 <= rank < count:
            raise ValueError
    except (KeyError, ValueError):
        raise InputError(
            f"cannot tell which process this is: {', '.join(names)} must be numbers, the first below the second"
        ) from None
    ranks = Ranks(rank, count, local, meeting)
    return ranks if ranks.count > 1 else ALONE


def first_host(nodes: str) -> str:
    """The first name in Slurm's short form of a list of nodes: `gpu07` of `gpu[07-09,12],big1`."""
    found = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    first = found[0] if found else ""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def _host(environment: Mapping[str, str]) -> str:
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    return environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", ""))


def _port(environment: Mapping[str, str]) -> int:
    """A port that all processes of a step know, and other jobs on the node hardly have."""
    if environment.get("MASTER_PORT", "").isdigit():
        return int(environment["MASTER_PORT"])
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return _PORTS[(job * 31 + step) % len(_PORTS)]


def _where(ranks: Ranks) -> str:
    return "" if ranks.leads else f"rank {ranks.rank} on {os.uname().nodename}: "


def _of_network(error: RuntimeError) -> bool:
    from torch import distributed

    words = ("gloo", "connection", "timed out", "nccl")
    return isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in words)
