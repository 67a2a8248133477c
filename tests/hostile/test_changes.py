"""What others do to the files meanwhile: the output folder goes, an input changes, a second run writes there too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from test_kills import Masks, Work, assert_nobody_is_left


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
