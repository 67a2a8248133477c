"""chex-train on several processes: they learn what one would, agree on everything, and none waits for one that died."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import launcher
from test_train import SHORT, contents, one_thread, run_of, without_times, xrays  # noqa: F401
from torch import nn
from training.test_ranks import SRUN

from chextools.errors import InputError
from chextools.models import inference
from chextools.training import augment
from chextools.training.batchwide import Batchwide
from chextools.training.ranks import ALONE, Ranks


def together(count: int, folder: Path, function, *arguments) -> list:
    """`function(..., ranks)` in so many processes of one thread; what each returns.

    They are forked, to save their start-up, but not from this process: OpenMP does not survive a fork.
    """
    meeting = f"file://{folder}/meeting-{time.monotonic_ns()}"
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(count, forks) as pool:
        those = [Ranks(rank, count, rank, meeting) for rank in range(count)]
        return [future.result(120) for future in [pool.submit(_one, function, *arguments, r) for r in those]]


def _one(function, *arguments):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        with contextlib.suppress(AssertionError):
            torch.distributed.destroy_process_group()


# One batch


class Everything(nn.Module):
    """What looks at a whole batch, or draws random numbers for it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False, momentum=0.3)
        self.three = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x):
        from torchvision.ops import stochastic_depth

        x = self.two(torch.relu(self.one(x)).square()) + stochastic_depth(x, 0.4, "row")
        x = nn.functional.dropout(x.flatten(2), 0.3, self.training)
        return self.three(x)


def batchwide(batch, gradient, ours: Ranks) -> dict:
    """Outputs and gradients of our part of a batch."""
    ours.join(torch.device("cpu"))
    torch.manual_seed(0)
    mine = ours.share(len(batch))
    network, x = Everything().double(), batch[mine].clone().requires_grad_()
    with Batchwide(mine, len(batch)) if ours.count > 1 else contextlib.nullcontext():
        output = network(x)
        output.backward(gradient[mine])
    weights = {name: p.grad for name, p in network.named_parameters()}
    return {"output": output.detach(), "input": x.grad, "weights": weights, "state": dict(network.named_buffers())}


def test_a_batch_on_three_processes_is_one_batch(tmp_path):
    """In float64, where rounding is far below any mistake; five rows, so that shares differ."""
    generator = torch.Generator().manual_seed(1)
    batch, gradient = (torch.randn(5, 3, *shape, generator=generator, dtype=torch.float64) for shape in [(4, 2), (8,)])
    batch[2] += 3
    whole, parts = batchwide(batch, gradient, ALONE), together(3, tmp_path, batchwide, batch, gradient)
    for key in ("output", "input"):
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), whole[key])
    for name, expected in whole["weights"].items():
        torch.testing.assert_close(sum(part["weights"][name] for part in parts), expected)
    for part in parts:
        torch.testing.assert_close(part["state"], whole["state"])
    alone = batchwide(batch[:2], gradient[:2], ALONE)
    assert (alone["output"] - whole["output"][:2]).abs().max() > 0.1  # it does matter


# Training

NO_BATCH_NORM = {"arch": "squeezenet1_1", "steps": 4}  # with dropout
BATCH_NORM = {"arch": "mobilenet_v3_small", "batch_size": 3, "accumulate": 2, "optimizer": "sgd", "clip": 0.5}
AS_SHORT = {
    "arch": "shufflenet_v2_x0_5",
    "steps": 6,
    "keep": 2,
    "lr": 1e-4,
    "augmentation": augment.Augmentation(5, 0.03, 0.05),
}


def trained(xrays, folder, settings: dict, stop_at: tuple | None, ours: Ranks = ALONE) -> tuple[list, bool]:  # noqa: F811
    """Rows, and whether it came to its end. stop_at: (rank, step) at which one process wants to stop."""
    run = run_of(xrays, folder, ranks=ours, **settings)
    rows = [row for row in run.events(lambda: stop_at == (ours.rank, run.step)) if row]
    return rows, run.finished


def weights(folder) -> dict:
    return torch.load(folder / "last.pt", weights_only=True)["state_dict"]


def trained_in_double(*arguments) -> tuple[list, bool]:
    """`trained`, where batch normalisation over a few tiny images blows rounding up."""
    normalise = inference.normalise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "normalise", lambda *arguments: normalise(*arguments).double())
        torch.set_default_dtype(torch.float64)
        try:
            return trained(*arguments)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("settings", "function"), [(NO_BATCH_NORM, trained), (BATCH_NORM, trained_in_double)], ids=["plain", "batch norm"]
)
def test_two_processes_follow_one(xrays, tmp_path, settings, function):  # noqa: F811
    """At the same batch, to rounding."""
    expected, _ = function(xrays, tmp_path / "ONE", settings, None)
    (rows, _), (others, _) = together(2, tmp_path, function, xrays, tmp_path / "TWO", settings, None)
    assert others == [] and len(rows) == len(expected) > 0
    for row, of_one in zip(without_times(rows), without_times(expected)):
        assert row.keys() == of_one.keys()
        for name, value in row.items():
            assert value == pytest.approx(of_one[name], rel=1e-5), name
    one, two = weights(tmp_path / "ONE"), weights(tmp_path / "TWO")
    assert one.keys() == two.keys() and max((one[name] - two[name]).abs().max() for name in one) < 1e-6


def test_one_that_stops_stops_all_and_they_go_on_to_the_same_files(xrays, tmp_path):  # noqa: F811
    """The second process alone is told to stop; three, as their sums could come in another order."""
    settings = {"batch_size": 6, "steps": 4}
    whole = together(3, tmp_path, trained, xrays, tmp_path / "A", settings, None)
    for stop_at in ((1, 1), (2, 3)):
        parts = together(3, tmp_path, trained, xrays, tmp_path / "B", settings, stop_at)
        assert [finished for _, finished in parts] == [False] * 3
    parts = together(3, tmp_path, trained, xrays, tmp_path / "B", settings, None)
    assert without_times(parts[0][0]) == without_times(whole[0][0])
    assert contents(tmp_path / "A") == contents(tmp_path / "B")


def differing(xrays, folder, ours: Ranks) -> str:  # noqa: F811
    """As on nodes that do not share a file system: each process has a folder of its own."""
    if ours.leads:
        trained(xrays, folder, NO_BATCH_NORM, (0, 2))
    with pytest.raises(InputError) as error:
        trained(xrays, folder.parent / "node" / folder.name if ours.rank else folder, NO_BATCH_NORM, None, ours)
    return str(error.value)


def test_folders_that_differ_are_an_error(xrays, tmp_path):  # noqa: F811
    said = together(2, tmp_path, differing, xrays, tmp_path / "RUN")
    assert "not the same to all processes" in said[0] and said[0].startswith(f"{tmp_path}/RUN")


def with_options(xrays, folder, ours: Ranks) -> str:  # noqa: F811
    """As where a shell variable makes them differ; the run of another."""
    with pytest.raises(InputError) as error:
        trained(xrays, folder, NO_BATCH_NORM | {"seed": ours.rank}, None, ours)
    return str(error.value)


def test_options_that_differ_are_an_error(xrays, tmp_path):  # noqa: F811
    said = together(2, tmp_path, with_options, xrays, tmp_path / "RUN")
    assert said[0] == said[1] and said[0].startswith("the processes of one run must have the same options")


def damaged(folder, copy, settings: dict, ours: Ranks) -> str:
    """What a process says of an image that only decoding finds damaged."""
    try:
        trained(copy, folder, settings, None, ours)
        return ""
    except InputError as error:
        return str(error)


def test_an_image_that_one_process_cannot_read_loses_nothing(xrays, tmp_path):  # noqa: F811
    """All save before they end."""
    settings = {"batch_size": 4, "steps": 4, "checkpoint_every": 1000}
    whole = together(2, tmp_path, trained, xrays, tmp_path / "A", settings, None)
    copy = tmp_path / "xrays"
    shutil.copytree(xrays, copy)
    path = copy / "patient004/study1/view1_frontal.png"
    good = path.read_bytes()
    path.write_bytes(good[:60] + b"damage" + good[66:])
    said = together(2, tmp_path, damaged, tmp_path / "B", copy, settings)
    assert "" in said and f"{path}: " in "".join(said)
    assert 0 < torch.load(tmp_path / "B/resume.pt", weights_only=True)["step"] < 4
    path.write_bytes(good)
    parts = together(2, tmp_path, trained, copy, tmp_path / "B", settings, None)
    assert without_times(parts[0][0]) == without_times(whole[0][0])


def test_more_processes_than_images_in_a_batch(xrays, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="--batch-size 4 leaves nothing to do for some of 5 processes"):
        run_of(xrays, tmp_path / "RUN", ranks=Ranks(0, 5))


# As processes


def of_step(rank: int, port: int) -> dict:
    """The environment of one of two tasks that srun started."""
    return (
        os.environ
        | SRUN
        | {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NUM_NODES": "1",
            "MASTER_PORT": str(port),
            "SLURM_CPUS_PER_TASK": "1",
        }
    )


@pytest.fixture
def port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_process_that_dies_ends_the_other_in_seconds(xrays, tmp_path, port):  # noqa: F811
    words = [
        *launcher("chex-train"),
        xrays / "train.csv",
        "--valid",
        xrays / "valid.csv",
        "-o",
        tmp_path / "RUN",
        *SHORT,
        "--steps",
        "100000",
        "-q",
    ]
    processes = [
        subprocess.Popen(list(map(str, words)), env=of_step(rank, port), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    assert json.loads(processes[0].stdout.readline())["step"] == 2
    processes[1].kill()
    begun = time.monotonic()
    for process in processes:
        process.stdout.read()
    assert processes[0].wait(30) == 1 and time.monotonic() - begun < 20
    error = processes[0].stderr.read().decode()
    assert error.startswith("chex-train: error: another process ended or cannot be reached") and error.count("\n") == 1
    assert processes[1].wait(30) == -signal.SIGKILL


def test_a_process_that_fails_before_they_meet_tells_the_other(xrays, tmp_path, port):  # noqa: F811
    """An image that is missing from one's share; neither waits for the other."""
    shutil.copytree(xrays, tmp_path / "xrays")
    lost = tmp_path / "xrays/patient001/study1/view1_frontal.png"  # of the second's share
    lost.unlink()
    words = [
        *launcher("chex-train"),
        tmp_path / "xrays/train.csv",
        "--valid",
        xrays / "valid.csv",
        "-o",
        tmp_path / "RUN",
        *SHORT,
        "-q",
    ]
    begun = time.monotonic()
    processes = [
        subprocess.Popen(list(map(str, words)), env=of_step(rank, port), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [1, 1] and time.monotonic() - begun < 40
    for text in said:
        assert text.startswith("chex-train: error: rank 1 on ") and str(lost) in text and text.count("\n") == 1
    assert not (tmp_path / "RUN").exists()


def test_torchrun(xrays, tmp_path):  # noqa: F811
    """Stopped early, the exit status is torchrun's; the same line goes on, and ends as if it never had been."""
    whole = together(2, tmp_path, trained, xrays, tmp_path / "A", AS_SHORT, None)
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [
        torchrun,
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
        *launcher("chex-train"),
        xrays / "train.csv",
        "--valid",
        xrays / "valid.csv",
        *SHORT,
        "-q",
        "--resume",
        "-o",
        tmp_path / "B",
    ]
    command = list(map(str, command))
    stopped = subprocess.run([*command, "--max-time", "0"], capture_output=True, text=True, timeout=120)
    assert stopped.returncode != 0 and "exitcode  : 75" in stopped.stderr and stopped.stdout == ""
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert without_times(map(json.loads, resumed.stdout.splitlines())) == without_times(whole[0][0])
    ours, theirs = contents(tmp_path / "A"), contents(tmp_path / "B")
    assert ours.pop("config.json") != theirs.pop("config.json") and ours == theirs
