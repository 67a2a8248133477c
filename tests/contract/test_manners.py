"""Every command on a shared machine: in a group's folder, on one core, where nobody can be reached; it leaves HOME
alone; and no more cores than were granted (DESIGN 6 and 10).
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest
from cases import CASES
from conftest import COMMANDS, launcher, need_tool
from test_contract import taking_file

from chextools.models import inference
from chextools.plumbing import parallel

GROUP = 4321


def watched(process: subprocess.Popen) -> tuple[int, int]:
    """The most processes of the command that it started, and threads that it ran, at once.

    A child counts that is seen twice: torch, as it is imported, asks ldconfig, which is a copy of us for a moment.
    """
    children = threads = 0
    before: set[str] = set()
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/task/{process.pid}/children") as stream:
                now = {child for child in stream.read().split() if is_chex(child)}
            children, before = max(children, len(now & before)), now
            threads = max(threads, len(os.listdir(f"/proc/{process.pid}/task")))
        except FileNotFoundError:
            pass
        time.sleep(0.01)
    return children, threads


def is_chex(process: str) -> bool:
    """Whether it runs one of the commands."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as stream:
            return b"/bin/chex-" in stream.read()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", COMMANDS)
def test_10_a_guest_on_a_shared_machine(tmp_path, name):
    case = CASES[name]
    shared, home = tmp_path / "shared", tmp_path / "home"
    shared.mkdir()
    home.mkdir()
    if os.getuid() == 0:
        os.chown(shared, -1, GROUP)
    group = shared.stat().st_gid
    shared.chmod(0o2770)
    words = [*launcher(name), *map(str, [*case.arguments, *case.options])]
    words += ["-o", "out"] if name in taking_file() else []
    alone = [need_tool("unshare"), "-n" if os.getuid() == 0 else "-rn"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []  # where namespaces are forbidden
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "SLURM_", "XDG_"))}
    core = min(os.sched_getaffinity(0))
    process = subprocess.Popen(
        [*alone, *words, "-q"],
        cwd=shared,
        env=environment | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        umask=0o027,
        preexec_fn=lambda: os.sched_setaffinity(0, [core]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    children, threads = watched(process)
    assert (process.returncode, process.stderr.read()) == (0, b"")
    process.stderr.close()
    assert children == 0 and threads <= (8 if case.uses_torch else 3)
    assert list(home.iterdir()) == []
    made = sorted(shared.rglob("*"))
    assert made or "-o" not in words
    for path in made:
        found = path.stat()
        assert found.st_gid == group, path
        assert stat.S_IMODE(found.st_mode) == (0o2750 if path.is_dir() else 0o640), path


@pytest.mark.parametrize(
    "granted, cores",
    [
        ({"SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "8"}, 2),
        ({"SLURM_CPUS_ON_NODE": "6"}, 6),  # a batch script
        ({"SLURM_CPUS_ON_NODE": "1", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, 1),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}, 4),
        ({"SLURM_CPUS_ON_NODE": "2", "SLURM_STEP_TASKS_PER_NODE": "4"}, 1),
        ({"LOCAL_WORLD_SIZE": "2"}, 2),  # torchrun
        ({"LOCAL_WORLD_SIZE": "8"}, 1),
        ({"LOCAL_WORLD_SIZE": "0"}, 4),
        ({"SLURM_CPUS_PER_TASK": "8", "LOCAL_WORLD_SIZE": "2"}, 4),  # torchrun under Slurm
        ({}, 4),
    ],
)
def test_10_no_more_cores_than_granted(monkeypatch, granted, cores):
    for variable in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_STEP_TASKS_PER_NODE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in granted.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(parallel, "_affinity", lambda: 64)
    monkeypatch.setattr(parallel, "_cgroup_quota", lambda: 64)
    assert parallel.default_jobs() == cores
    monkeypatch.setattr(parallel, "_affinity", lambda: 1)
    assert parallel.default_jobs() == 1


def test_10_auto_says_that_it_is_the_cpu_and_how_much_of_it(monkeypatch, caplog):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(parallel, "_affinity", lambda: 64)
    monkeypatch.setattr(parallel, "_cgroup_quota", lambda: 64)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    caplog.set_level("WARNING", "chextools")
    assert inference.device("auto").type == "cpu"
    assert caplog.messages == ["no GPU is available: running on the CPU with 3 threads"]
    with inference.threads():
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("before", "in_order"), [([], False), (["-m", "cProfile"], True)])
def test_a_command_ends_without_taking_itself_apart(tmp_path, before, in_order):
    """What was to be done at the end is; a profiler that runs a command comes to its own."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\n"
        "class Kept:\n"
        "    def __del__(self, write=os.write): write(2, b'apart\\n')\n"
        "kept = Kept()\n"
        "atexit.register(os.write, 2, b'at the end\\n')\n"
    )
    command = [sys.executable, *before, *launcher("chex-eval")[1:], "--version"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and "chex-eval" in result.stdout
    assert "at the end" in result.stderr
    assert ("apart" in result.stderr, "function calls" in result.stdout) == (in_order, in_order)


def test_what_a_users_file_holds_open_is_written(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        f"log = open({str(tmp_path / 'log.txt')!r}, 'w')\n"
        "log.write('kept')\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Conv2d(3, 2, 3)\n"
        "    def forward(self, x): return self.layer(x).mean((2, 3))\n"
    )
    options = ["own.py:Net", "-o", "net.pt", "--tasks", "Edema,Mass", "--size", "32"]
    result = subprocess.run([*launcher("chex-import"), *options], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and (tmp_path / "log.txt").read_text() == "kept", result.stderr
