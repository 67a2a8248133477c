"""Killed at any moment, on a disk that is full or read-only: what exists is whole, and a run again ends as one alone.

KILLS in the environment sets how often the commands are killed in all.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from conftest import DATA, launcher
from PIL import Image

SMALL = DATA / "oracle-small"
KILLS = int(os.environ.get("KILLS", "12"))


@dataclass(frozen=True)
class Work:
    """A command that writes: its words, where OUT is what it makes; and with what it goes on after it was killed."""

    command: str
    words: tuple
    again: tuple = ()

    def start(self, out: Path, *more: str, **options) -> subprocess.Popen:
        words = [str(out) if word == "OUT" else str(word) for word in self.words]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([*launcher(self.command), *words, *more], start_new_session=True, **options)


class Masks:
    """A path of records of X-rays with a mask of the left half, made when it is first asked for."""

    def __str__(self) -> str:
        return _masks()


@cache
def _masks() -> str:
    path = Path(tempfile.mkdtemp(prefix="chextools-tests-")) / "masks.jsonl"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    with path.open("w") as stream:
        for file in sorted((DATA / "cxr").rglob("*.*g")):
            with Image.open(file) as image:
                width, height = image.size
            half = {"size": [height, width], "counts": [0, height * (width // 2), height * (width - width // 2)]}
            record = {"id": file.parts[-3], "image": str(file), "masks": {"Edema": half}}
            stream.write(json.dumps(record) + "\n")
    return str(path)


WORKS = [
    Work("chex-phantom", ("-o", "OUT", "--count", "12", "--size", "96", "96", "-j", "2"), ("--resume",)),
    Work("chex-prep", (DATA / "cxr/valid.csv", "--root", DATA / "cxr", "--pack", "OUT", "--size", "64"), ("--resume",)),
    Work("chex-view", (Masks(), "-o", "OUT", "-j", "2"), ("--resume",)),
    Work("chex-segment", (SMALL / "maps", "-o", "OUT", "-j", "2"), ("--force",)),
]


def tree(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(folder.name))
    return found


def assert_nobody_is_left(session: int) -> None:
    for _ in range(200):
        if not members(session):
            return
        time.sleep(0.05)
    pytest.fail(f"left behind: {members(session)}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a command makes when nobody kills it, and its seconds: a function."""
    found: dict[Work, tuple[dict, float, bytes]] = {}

    def run(work: Work) -> tuple[dict[str, bytes], float]:
        if work not in found:
            out = tmp_path_factory.mktemp("alone") / "out"
            start = time.monotonic()
            process = work.start(out)
            said = process.communicate(timeout=300)[1]
            found[work] = tree(out) if out.exists() else {}, time.monotonic() - start, said
        files, seconds, said = found[work]
        assert files, said
        return files, seconds

    return run


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.command)
def test_kill_9_at_any_moment(alone, tmp_path, work):
    whole, seconds = alone(work)
    rng = random.Random(work.command)
    out = tmp_path / "out"
    for _ in range(-(-KILLS // len(WORKS))):
        process = work.start(out, *work.again, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 1) * seconds)
        process.kill()
        process.wait()
        assert_nobody_is_left(process.pid)
    process = work.start(out, *work.again)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert tree(out) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("work", [w for w in WORKS if "-j" in w.words], ids=lambda work: work.command)
def test_a_signal_leaves_no_process(alone, tmp_path, work, number):
    _, seconds = alone(work)
    process = work.start(tmp_path / "out")
    time.sleep(0.7 * seconds)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    early = {75} if number == signal.SIGTERM and "--resume" in work.again else set()
    assert process.returncode in {0, -number} | early and b"Traceback" not in said, said
    assert_nobody_is_left(process.pid)


def test_a_reader_that_goes_away_leaves_no_process(tmp_path):
    work = Work("chex-segment", (SMALL / "maps", "-j", "2"))
    process = work.start(tmp_path, stdout=subprocess.PIPE)
    process.stdout.close()
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (0, -signal.SIGPIPE) and said == b"", said
    assert_nobody_is_left(process.pid)


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small file system."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(words, capture_output=True).returncode == 0
        except FileNotFoundError:
            done = False
        if not done:
            pytest.skip("no right to mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.command)
def test_a_disk_that_is_full_is_one_line_and_what_is_there_is_whole(alone, disk, work):
    whole, _ = alone(work)
    size = sum(map(len, whole.values()))
    folder = disk(f"size={max(4096, size // 2 // 4096 * 4096)}")
    process = work.start(folder / "out")
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 1 and "No space left on device" in said and "Traceback" not in said, said
    assert_nobody_is_left(process.pid)
    if (folder / "out").exists():
        found = {name: data for name, data in tree(folder / "out").items() if not is_unfinished(name)}
        assert found == {name: whole[name] for name in found}


def is_unfinished(name: str) -> bool:
    return ".chextmp-" in name or name.endswith(".part")


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.command)
def test_a_disk_that_is_read_only_is_one_line(disk, work):
    folder = disk("size=1m,ro")
    process = work.start(folder / "out")
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 1 and said.count("\n") == 1 and "Traceback" not in said, said
