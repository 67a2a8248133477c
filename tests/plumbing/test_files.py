"""Output files appear whole or not at all, and worker processes keep order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chextools.errors import InputError
from chextools.plumbing import files, parallel
from chextools.plumbing.files import atomic, walk
from chextools.plumbing.parallel import ordered_map


def test_a_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "out"
    with atomic(target) as stream:
        stream.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target, force=True) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_a_file_made_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(InputError, match="exists"), atomic(target) as stream:
        stream.write(b"mine")
        target.write_text("theirs")
    assert target.read_text() == "theirs" and os.listdir(tmp_path) == ["out"]


def test_a_symbolic_link_keeps_pointing_where_it_did(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic(tmp_path / "link") as stream:
        stream.write(b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"x"


def test_stale_temporaries_go_and_live_ones_stay(tmp_path):
    dead, zombie = (subprocess.Popen([sys.executable, "-c", ""]) for _ in range(2))
    dead.wait()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked yet how
    host = os.uname().nodename
    owners = ((f"{host}-{dead.pid}", 0), (f"{host}-{zombie.pid}", 0), (f"{host}-1", 0), ("elsewhere-5", 0))
    for owner, age in (*owners, ("elsewhere-6", 100_000)):
        name = tmp_path / f".out{files._MARK}{owner}"
        name.write_text("")
        os.utime(name, (time.time() - age,) * 2)
    with atomic(tmp_path / "out"):
        pass
    left = sorted(name.rpartition("-")[2] for name in os.listdir(tmp_path) if name != "out")
    zombie.wait()
    assert left == ["1", "5"]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with atomic(tmp_path / "out") as stream:
        stream.write(b"x")
    assert (tmp_path / "out").read_bytes() == b"x" and os.listdir(tmp_path) == ["out"]


def slow_square(n: int) -> int:
    time.sleep(0.02 * (n % 3))
    return n * n


def test_ordered_map_keeps_order():
    assert list(parallel.ordered_map(slow_square, range(20), 3)) == [n * n for n in range(20)]


def own_number(n: int) -> tuple[int, int]:
    return n, os.getpid()


def test_ordered_map_starts_no_process_for_little_light_work():
    assert {process for _, process in parallel.ordered_map(own_number, range(50), 2, most=7)} == {os.getpid()}
    assert os.getpid() not in {process for _, process in parallel.ordered_map(own_number, range(50), 2)}


def test_ordered_map_hands_out_more_at_once_as_there_are_many(monkeypatch):
    monkeypatch.setattr(parallel, "_ALONE", 0)
    found = list(parallel.ordered_map(own_number, range(501), 2, most=7))
    assert [n for n, _ in found] == list(range(501))
    (_, here), *found = found
    assert here == os.getpid() and here not in {process for _, process in found}
    more = 16 * (1 + 2 + 3 + 4 + 5 + 6)  # from where on each process takes seven
    assert all(len({process for _, process in found[k : k + 7]}) == 1 for k in range(more, 493, 7))
    taken = []
    results = parallel.ordered_map(own_number, (taken.append(n) or n for n in range(10_000)), 2, most=7)
    for _ in range(1000):
        next(results)
    assert len(taken) <= 1000 + 4 * 7 + 7
    results.close()


def large(n: int) -> bytes:
    return bytes(1 << 24)  # far more than a pipe holds: whoever is killed is in the middle of it


def test_ordered_map_ends_though_a_worker_was_killed_halfway_through_a_result():
    for _ in range(5):
        before = set(threading.enumerate())
        results = parallel.ordered_map(large, range(20), 2)
        next(results)
        results.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            assert not thread.is_alive(), thread


def test_ordered_map_does_not_read_far_ahead():
    taken = []
    results = parallel.ordered_map(slow_square, (taken.append(n) or n for n in range(1000)), 2)
    next(results)
    results.close()
    assert len(taken) <= 6


def die(n: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line():
    with pytest.raises(InputError, match="worker process was killed"):
        list(parallel.ordered_map(die, range(4), 2))


def test_workers_end_with_their_parent(tmp_path):
    """kill -9 of the parent leaves no process behind."""
    script = f"""
import os, time
from chextools.plumbing.parallel import ordered_map
def work(n):
    open({str(tmp_path)!r} + f"/{{os.getpid()}}", "w").close()
    time.sleep(60)
list(ordered_map(work, range(4), 2))
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    while len(os.listdir(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(name) for name in os.listdir(tmp_path)]
    parent.kill()
    parent.wait()
    assert len(workers) == 2
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_jobs_are_what_slurm_granted_else_the_cores_at_most_four(monkeypatch):
    monkeypatch.setattr(parallel, "_affinity", lambda: 64)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    assert parallel.default_jobs() == 7
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "999999")
    assert parallel.default_jobs() == 64
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    monkeypatch.setattr(parallel, "_cgroup_quota", lambda: 1 << 20)
    assert parallel.default_jobs() == 4
    monkeypatch.setattr(parallel, "_cgroup_quota", lambda: 3)
    assert parallel.default_jobs() == 3
    monkeypatch.setattr(parallel, "_affinity", lambda: 1)
    assert parallel.default_jobs() == 1


def test_a_regular_file_under_dev_is_a_file_like_any_other():
    folder = Path("/dev/shm")
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        pytest.skip("no /dev/shm")
    path = folder / f"chextools-test-{os.getpid()}"
    path.write_bytes(b"old")
    try:
        with pytest.raises(InputError, match="exists; use --force"), atomic(path):
            pass
        with pytest.raises(RuntimeError), atomic(path, force=True) as stream:
            stream.write(b"half")
            raise RuntimeError
        assert path.read_bytes() == b"old"
    finally:
        path.unlink()


def test_what_a_shell_has_open_is_appended_to(tmp_path):
    (tmp_path / "log").write_bytes(b"before\n")
    with open(tmp_path / "log", "ab") as log, atomic(f"/proc/self/fd/{log.fileno()}") as stream:
        stream.write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


def test_a_missing_folder_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match=r"a/b does not exist; mkdir -p makes it$"), atomic(tmp_path / "a/b/c"):
        pass


def test_a_pipe_in_a_folder_is_no_file_of_it(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    (tmp_path / "y.jpg").touch()
    os.symlink("none", tmp_path / "z.jpg")
    assert [path.name for path in walk(tmp_path)] == ["y.jpg", "z.jpg"]


def test_a_map_that_is_closed_leaves_the_callers_own_children_alone():
    own = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    own.start()
    try:
        found = ordered_map(str, range(100), 2)
        next(found)
        found.close()
        own.join(0.3)
        assert own.is_alive()
    finally:
        own.kill()
        own.join()


@pytest.mark.parametrize("items, started", [(0, 0), (1, 0), (2, 2), (3, 3), (9, 4)])
def test_no_more_processes_than_items(items, started, monkeypatch):
    from concurrent import futures

    counts = []
    real = futures.ProcessPoolExecutor
    monkeypatch.setattr(
        futures, "ProcessPoolExecutor", lambda n, *more, **named: counts.append(n) or real(n, *more, **named)
    )
    assert list(parallel.ordered_map(slow_square, range(items), 4)) == [n * n for n in range(items)]
    assert counts == [started] * bool(started)
