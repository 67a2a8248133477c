"""What others do to the files meanwhile: the output folder goes, an input changes, a second run writes there too."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, run
from contract.cases import small_checkpoint
from test_kills import KILLS, Masks, Work, assert_nobody_is_left, tree

from chextools.errors import InputError
from chextools.heatmaps.study_pickles import write_study_pickle
from chextools.plumbing import zips

SMALL = DATA / "oracle-small"


def many_masks(path: Path) -> Path:
    """Records of the eight X-rays with a mask, ten times over."""
    records = [json.loads(line) for line in Path(str(Masks())).read_text().splitlines()]
    lines = [json.dumps(record | {"id": f"{record['id']}.{copy}"}) for copy in range(10) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def wait_for(process, ready) -> None:
    while not ready() and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None


@pytest.mark.parametrize("command", ["chex-phantom", "chex-view"])
def test_an_output_folder_that_goes_is_one_line(tmp_path, command):
    out = tmp_path / "out"
    if command == "chex-phantom":
        work = Work(command, ("-o", "OUT", "--count", "60", "--size", "96", "96", "-j", "2"))
    else:
        work = Work(command, (many_masks(tmp_path / "masks.jsonl"), "-o", "OUT", "-j", "2"))
    process = work.start(out)
    wait_for(process, lambda: any(out.rglob("[!.]*.*g")))
    os.killpg(process.pid, signal.SIGSTOP)
    shutil.rmtree(out)
    os.killpg(process.pid, signal.SIGCONT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1 and str(out) in said, said
    assert said.count("\n") == 1 and "Traceback" not in said, said
    assert_nobody_is_left(process.pid)


@contextmanager
def meanwhile(change):
    """Call a function again and again while the block runs."""
    over = threading.Event()

    def go_on():
        while not over.is_set():
            change()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_file_that_changes_while_it_is_read_is_said_so(tmp_path, monkeypatch):
    path = tmp_path / "map"
    path.write_bytes(b"a" * 1000)
    os.utime(path, (0, 0))
    seen = []

    def fstat(number, real=os.fstat):
        if seen:
            path.write_bytes(b"b" * 1000)
        seen.append(number)
        return real(number)

    with monkeypatch.context() as patch:
        patch.setattr(zips.os, "fstat", fstat)
        with pytest.raises(InputError, match="changed while it was read"):
            zips.read_bytes(path)
    assert len(seen) == 2 and zips.read_bytes(path) == b"b" * 1000


@pytest.mark.parametrize("at", [3, 100, 2**14, 2**14 + 1])
def test_a_file_that_gets_shorter_while_it_is_read_is_said_so(tmp_path, at):
    path = tmp_path / "map"
    path.write_bytes(b"a" * 2**15)
    with pytest.raises(InputError, match="changed while it was read"), zips.opened(path) as content:
        assert content.read(0, 2) == b"aa"
        os.truncate(path, at)
        assert content.read(1, 3) == b"aa"
        content.read(0, 2**15)


def test_heatmaps_that_change_while_they_are_read_are_one_or_the_other(tmp_path):
    ids = [f"patient{number:05d}" for number in range(20)]
    image = np.zeros((3, 128, 128), np.float32)
    contents, expected = [], []
    for name, left in (("one", 1.0), ("other", 0.0)):
        heatmap = np.full((128, 128), 1 - left, np.float32)
        heatmap[:, :40] = left
        folder = tmp_path / name
        folder.mkdir()
        for identifier in ids[:1]:
            with (folder / f"{identifier}_Edema_map.pkl").open("wb") as stream:
                write_study_pickle(stream, heatmap, "Edema", 0.5, 1, image, (128, 128))
        contents.append((folder / f"{ids[0]}_Edema_map.pkl").read_bytes())
        expected.append(json.loads(run("chex-segment", folder).stdout)["masks"])
    assert expected[0] != expected[1]
    maps = tmp_path / "maps"
    maps.mkdir()
    paths = [maps / f"{identifier}_Edema_map.pkl" for identifier in ids]
    for path in paths:
        path.write_bytes(contents[0])
    rng = random.Random(0)

    def change():
        path, content = rng.choice(paths), rng.choice(contents)
        with path.open("wb", buffering=0) as stream:
            cut = rng.randrange(len(content))
            stream.write(content[:cut])
            time.sleep(0.001)
            stream.write(content[cut:])

    for _ in range(2):
        with meanwhile(change):
            done = run("chex-segment", maps, "-j", "1")
        found = [json.loads(line)["masks"] for line in done.stdout.splitlines()]
        said = done.stderr.decode()
        assert done.returncode in (0, 1) and "Traceback" not in said, said
        assert all(masks in expected for masks in found)
        assert len(found) + said.count("; skipped") == len(ids), said


@pytest.mark.parametrize("change", ["appended to", "truncated", "other bytes"])
def test_records_that_change_while_they_are_read_are_whole_or_named(tmp_path, change):
    counts = [1, 2] * 150 + [64 * 64 - 450]
    masks = {"Edema": {"size": [64, 64], "counts": counts}}
    lines = [json.dumps({"id": f"p{number}", "masks": masks}).encode() + b"\n" for number in range(1500)]
    whole = b"".join(lines)
    path = tmp_path / "masks.jsonl"
    middle = len(whole) - len(lines[0]) * 10 - 100
    path.write_bytes(whole[:middle] if change == "appended to" else whole)
    process = Work("chex-segment", (path, "-j", "1")).start(tmp_path, stdout=subprocess.PIPE, bufsize=0)
    first = process.stdout.readline()  # then it waits, as the pipe is full: most of the file is still to be read
    if change == "appended to":
        with path.open("ab") as stream:
            stream.write(whole[middle : middle + 150])
    elif change == "truncated":
        os.truncate(path, len(whole) // 2 + 100)
    else:
        with path.open("r+b") as stream:
            stream.seek(len(whole) // 2 + 100)
            stream.write(bytes(range(128, 256)) * 20)
    rest, said = process.communicate(timeout=60)
    found = [json.loads(line) for line in (first + rest).splitlines()]
    assert b"Traceback" not in said and process.returncode == 1, said
    assert len(found) > 500 and all(record["masks"]["Edema"]["counts"] == counts for record in found)
    assert len({record["id"] for record in found}) == len(found)
    assert f"{path}:" in said.decode() and said.count(b"\n") <= 4, said


def at_once(work: Work, out: Path, *more: str) -> list[tuple[int, list[str]]]:
    """How two runs of the same that write into one place end, and what they say but for warnings."""
    both = [work.start(out, *more) for _ in range(2)]
    ends = [(process.communicate(timeout=60)[1].decode(), process.returncode) for process in both]
    for process in both:
        assert_nobody_is_left(process.pid)
    kept = [[line for line in said.splitlines() if "warning" not in line] for said, _ in ends]
    return [(code, lines) for lines, (_, code) in zip(kept, ends)]


@pytest.mark.parametrize("more", ["--resume", "--force"])
def test_two_data_sets_in_one_folder_at_once(tmp_path, more):
    work = Work("chex-phantom", ("-o", "OUT", "--count", "16", "--size", "96", "96", "-j", "2"))
    alone, out = tmp_path / "alone", tmp_path / "out"
    assert work.start(alone).wait(60) == 0
    assert at_once(work, out, more) == [(0, []), (0, [])]
    assert tree(out) == tree(alone)


@pytest.mark.parametrize("more", [(), ("--force",)])
def test_two_files_of_masks_in_one_place_at_once(tmp_path, more):
    work = Work("chex-segment", (SMALL / "maps", "-o", "OUT", "-j", "2"))
    alone, out = tmp_path / "alone", tmp_path / "out"
    assert work.start(alone).wait(60) == 0
    ends = sorted(at_once(work, out, *more))
    assert ends[0] == (0, [])
    if more:
        assert ends[1] == (0, [])
    else:
        assert ends[1] == (1, [f"chex-segment: error: {out}: exists; use --force to replace it"])
    assert out.read_bytes() == alone.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "out"]


def test_kill_9_of_heatmaps(tmp_path):
    cxr = DATA / "cxr"
    words = (cxr / "valid.csv", "--root", cxr, "--checkpoint", small_checkpoint(), "--device", "cpu")
    work = Work("chex-cam", (*words, "--batch-size", "1", "-o", "OUT"), ("--resume",))
    alone, out = tmp_path / "alone", tmp_path / "out"
    assert work.start(alone, stderr=subprocess.DEVNULL).wait(120) == 0
    whole, rng = tree(alone), random.Random(0)
    for number in range(max(2, KILLS // 6)):
        process = work.start(out, *work.again, stderr=subprocess.DEVNULL)
        wait_for(process, lambda more=number: len(list(out.glob("*.npz"))) > more)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.wait()
        assert_nobody_is_left(process.pid)
    process = work.start(out, *work.again)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert tree(out) == whole and len(whole) > 2
