"""Which of a run's processes this is, and which part of a batch is its own."""

from __future__ import annotations

import pytest
import torch

from chextools.errors import InputError
from chextools.training import ranks
from chextools.training.data import read_data
from chextools.training.ranks import ALONE, Ranks

SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, ALONE),
        (SRUN, Ranks(3, 4, 1, "tcp://n1:12217")),
        (SRUN | {"SLURM_STEP_NUM_NODES": "1"}, Ranks(3, 4, 1, "tcp://127.0.0.1:12217")),
        (SRUN | {"MASTER_ADDR": "ib1", "MASTER_PORT": "99"}, Ranks(3, 4, 1, "tcp://ib1:99")),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, ALONE),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, ALONE),  # a batch script, outside srun
        (TORCHRUN, Ranks(1, 2, 1)),
        (SRUN | TORCHRUN, Ranks(1, 2, 1)),  # torchrun under srun
    ],
)
def test_ranks_of_an_environment(environment, expected):
    assert ranks.read(environment) == expected


def test_ranks_that_make_no_sense():
    for changed in ({"RANK": "first"}, {"RANK": "2"}, {"MASTER_PORT": "any"}):
        with pytest.raises(InputError, match="^cannot tell which process this is: RANK, WORLD_SIZE, "):
            ranks.read(TORCHRUN | changed)


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[07-09,12],big1", "gpu07"),
        ("r[1-2]n[03,05].x", "r1n03.x"),
        ("a-b[2]", "a-b2"),
        ("", ""),
    ],
)
def test_the_first_host_of_slurms_short_form(nodes, first):
    assert ranks.first_host(nodes) == first


def test_shares_of_a_batch_make_up_the_whole():
    for n in (1, 5, 16):
        shares = [list(range(n))[Ranks(rank, 4).share(n)] for rank in range(4)]
        assert sum(shares, []) == list(range(n)) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_steps_of_one_job_meet_at_ports_of_their_own():
    ports = {ranks.read(SRUN | {"SLURM_STEP_ID": str(step)}).meeting for step in range(20)}
    assert len(ports) == 20 and all(12_000 <= int(port.rpartition(":")[2]) < 20_000 for port in ports)


def test_one_process_agrees_with_itself():
    tensor = torch.ones(3)
    assert ALONE.leads and ALONE.total(tensor) is tensor and ALONE.any(True) and not ALONE.any(False)
    ALONE.agree({"lr": 1}, "never")
    ALONE.join(torch.device("cpu"))
    assert not ranks.is_connected()


def test_several_processes_compute_on_cpus_or_cuda():
    assert Ranks(1, 2, 1).device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InputError, match="CPUs or CUDA GPUs, not on mps"):
        Ranks(1, 2).join(torch.device("mps"))


def test_the_first_process_reports_for_all(monkeypatch):
    """An error of another says whose it is."""
    monkeypatch.setattr(Ranks, "tell", lambda ranks, error: None)  # there are no others here
    with pytest.raises(InputError, match="^rank 1 on .*: x: no records$"), ranks.found(TORCHRUN):
        read_data([], "x")
    with pytest.raises(InputError, match="^x: no records$"), ranks.found(TORCHRUN | {"RANK": "0"}):
        read_data([], "x")
