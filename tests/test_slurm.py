"""The scripts of chextools-slurm(7), submitted as they stand to a real Slurm on this machine, against one machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, need_tool
from pycocotools import mask
from test_distributed import together, trained
from test_train import contents, without_times, xrays  # noqa: F401

from chextools.training.augment import Augmentation

SETTINGS = {
    "arch": "squeezenet1_1",
    "size": 32,
    "batch_size": 4,
    "steps": 400,
    "checkpoint_every": 20,
    "keep": 2,
    "ensemble": 1,
}
PAGE = (ROOT / "man/man7/chextools-slurm.7").read_text()


def script(name: str) -> str:
    """A script of the page, as a reader would copy it."""
    text = re.search(rf"^\.SS {re.escape(name)}\n.*?^\.EX\n(.*?)^\.EE$", PAGE, re.M | re.S)[1]
    for written, meant in ((r"\-", "-"), (r"\(dq", '"'), (r"\&", ""), (r"\e", "\\")):
        text = text.replace(written, meant)
    return text


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two nodes, up; its environment."""
    for tool in ("munged", "slurmctld", "slurmd", "sbatch"):
        need_tool(tool)
    if os.getuid():
        pytest.skip("the cluster's nodes get names of their own, which takes root")
    folder = tmp_path_factory.mktemp("cluster")
    up = ["bash", ROOT / "tests/slurm/up.sh", folder]
    if not socket.gethostbyname(socket.gethostname()).startswith("127."):
        up = ["unshare", "-u", "sh", "-c", 'hostname localhost; exec "$@"', "sh", *up]
    result = subprocess.run(up, env=os.environ | {"NODES": "2"}, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    yield {"SLURM_CONF": str(folder / "etc/slurm.conf")}
    subprocess.run(["bash", ROOT / "tests/slurm/down.sh", folder], timeout=60)


class Place:
    """A folder with the page's scripts and the X-rays, and the cluster's commands in it."""

    def __init__(self, folder: Path, environment: dict, path: str):
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMP_"))}
        self.environment = kept | environment | {"PATH": path}
        for name in re.findall(r"^\.SS (\S+)$", PAGE, re.M):
            if "." in name or name == "Makefile":
                (folder / name).write_text(script(name))

    def run(self, *words: object) -> str:
        result = subprocess.run(
            list(map(str, words)), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200
        )
        assert result.returncode == 0, (words, result.stderr)
        return result.stdout

    def state(self, job: str) -> str:
        return self.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", job).split("\n")[0]

    def wait(self, condition, seconds: float = 150) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, [p.read_text() for p in self.folder.glob("slurm-*.out")]
            time.sleep(0.1)

    def rows(self) -> list[dict]:
        """What chex-train has written so far."""
        log = self.folder / "log.jsonl"
        lines = log.read_text().splitlines(True) if log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def whole(self, pattern: str) -> str:
        """As cat does."""
        return "".join(path.read_text() for path in sorted(self.folder.glob(pattern)))


@pytest.fixture
def place(tmp_path, cluster, path) -> Place:
    return Place(tmp_path, cluster, path)


def truth(folder: Path) -> None:
    """gt.json: a square for each of the X-rays with Edema in test.csv."""
    square = np.zeros((32, 32), np.uint8)
    square[4:20, 2:14] = 1
    ids = [f"patient{k:03}_study1_view1_frontal" for k in range(16, 24)]
    counts = mask.encode(np.asfortranarray(square))["counts"].decode()
    rle = {"size": [32, 32], "counts": counts}
    (folder / "gt.json").write_text(json.dumps({i: {"Edema": rle, "Fracture": rle} for i in ids}))


def test_a_study(xrays, place):  # noqa: F811
    """submit.sh: training on two nodes is stopped by TERM and by requeue, goes on by itself, and ends with the weights
    of a run that was never disturbed; all that follows is what one machine makes.
    """
    folder = place.folder
    shutil.copytree(xrays, folder, dirs_exist_ok=True)
    shutil.copy(xrays / "valid.csv", folder / "test.csv")
    truth(folder)
    (folder / "train.json").write_text(json.dumps({"inputs": ["train.csv"], "valid": "valid.csv"} | SETTINGS))
    last = place.run("sh", "submit.sh").strip()
    train = place.run("squeue", "-h", "-n", "train.sbatch", "-o", "%A").strip()
    place.wait(lambda: len(place.rows()) > 1)
    place.run("scancel", "--signal=TERM", train)
    place.wait(lambda: place.state(train) == "PENDING")
    stopped = torch_state(folder)
    place.wait(lambda: place.rows() and place.rows()[-1]["step"] > stopped)
    place.run("scontrol", "requeue", train)
    place.wait(lambda: place.state(train) != "RUNNING")
    assert stopped < torch_state(folder) < 400
    place.wait(lambda: place.state(last) == "COMPLETED")
    assert [row["step"] for row in place.rows()] == list(range(20, 401, 20))

    settings = SETTINGS | {"lr": 1e-4, "augmentation": Augmentation(5, 0.03, 0.05)}
    (undisturbed, _), _ = together(2, folder, trained, folder, folder / "UNDISTURBED", settings, None)
    assert without_times(place.rows()) == without_times(undisturbed)
    theirs, ours = contents(folder / "RUN"), contents(folder / "UNDISTURBED")
    assert theirs.pop("config.json") != ours.pop("config.json") and theirs == ours

    one = folder / "one"
    one.mkdir()
    records = place.run("chex-cam", "test.csv", "--checkpoint", "RUN/best.pt", "-o", "one/maps", "-q")
    of_tasks = place.whole("cam.*.jsonl").splitlines()
    assert sorted(map(without_path, of_tasks)) == sorted(map(without_path, records.splitlines()))
    masks_of_one = place.run("chex-segment", "maps")
    assert ordered(place.whole("masks.*.jsonl")) == ordered(masks_of_one)
    (one / "masks.jsonl").write_text(masks_of_one)
    expected = place.run("chex-eval", "one/masks.jsonl", "--truth", "gt.json", "--slice", "full")
    assert (folder / "iou.jsonl").read_text() == expected and '"n": 8' in expected


def ordered(lines: str) -> list[str]:
    """As sort does."""
    return sorted(lines.splitlines())


def torch_state(folder: Path) -> int:
    """The step at which the run can go on."""
    import torch

    return torch.load(folder / "RUN/resume.pt", weights_only=True)["step"]


def without_path(line: str | bytes) -> str:
    """A record of chex-cam, with scores to 5 digits: batches were cut otherwise."""
    record = json.loads(line)
    record["scores"] = {task: round(score, 5) for task, score in record["scores"].items()}
    return json.dumps(record | {"heatmap": Path(record["heatmap"]).name})


def test_arrays_merged_by_cat(small, place):
    """Tasks 3 and 7 again leave the whole as it was; it is, sorted, what one machine writes."""
    folder = place.folder
    (folder / "maps").symlink_to(small / "maps")
    place.run("sbatch", "--wait", "segment.sbatch")
    whole = place.whole("masks.*.jsonl")
    assert ordered(whole) == ordered(place.run("chex-segment", "maps"))
    (folder / "masks.3.jsonl").unlink()
    (folder / "masks.7.jsonl").write_text("half a rec")
    place.run("sbatch", "--wait", "--array=3,7", "segment.sbatch")
    assert place.whole("masks.*.jsonl") == whole


def test_prep_as_an_array(xrays, place):  # noqa: F811
    shutil.copytree(xrays, place.folder, dirs_exist_ok=True)
    shutil.copy(xrays / "train.csv", place.folder / "images.csv")
    place.run("sbatch", "--wait", "prep.sbatch")
    of_one = place.run("chex-prep", "images.csv")
    assert ordered(place.whole("images.*.jsonl")) == ordered(of_one)


@pytest.mark.parametrize("how", [("make", "-s", "-j2"), ("sh", "parallel.sh")], ids=lambda words: words[-1])
def test_one_machine(small, tmp_path, path, how):
    need_tool("make" if how[0] == "make" else "parallel")
    place = Place(tmp_path, {"HOME": str(tmp_path)}, path)
    (tmp_path / "maps").symlink_to(small / "maps")
    shutil.copy(small / "expected/gt.json", tmp_path / "gt.json")
    place.run(*how)
    of_one = place.run("chex-segment", "maps")
    assert ordered(place.whole("masks.*.jsonl")) == ordered(of_one)
    (tmp_path / "one.jsonl").write_text(of_one)
    expected = place.run("chex-eval", "one.jsonl", "--truth", "gt.json", "--slice", "full")
    assert (tmp_path / "iou.jsonl").read_text() == expected
