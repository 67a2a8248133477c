"""chex-train with the user's own network, augmentation, loss, optimiser and schedule."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chextools.models import checkpoints

ROOT = Path(__file__).parents[2]
ROLES = {"arch": "network", "augment": "noise", "loss": "focal", "optimizer": "optimizer", "schedule": "schedule"}
SHORT = ("--size", "16", "--batch-size", "4", "--steps", "6", "--checkpoint-every", "3", "--device", "cpu", "-j", "1")


def example() -> str:
    """The file that chex-train(1) shows."""
    page = (ROOT / "man/man1/chex-train.1").read_text()
    text = re.search(r"\.\\\" own\.py\n\.EX\n(.*?)\.EE", page, re.S)[1]
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\").replace("\\&", "")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = []
    for k in range(12):
        pixels = random.integers(0, 100, (20, 20))
        pixels[:, :10] += 100 * (k % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{k % 2}\n")
    (tmp_path / "t.csv").write_text("Path,Edema\n" + "".join(rows))
    (tmp_path / "own.py").write_text(example())
    return tmp_path


def train(cli, run: str, *more: str, **own: str):
    options = [part for role, name in own.items() for part in (f"--{role}", f"own.py:{name}")]
    return cli("chex-train", "t.csv", "--valid", "t.csv", "-o", run, *SHORT, *options, *more)


def weights(run: str) -> dict:
    return checkpoints.load(f"{run}/last.pt").model.state_dict()


def test_the_example_of_the_manual_page_trains_and_is_named(cli, place):
    result = train(cli, "RUN", **ROLES)
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    digest = hashlib.sha256((place / "own.py").read_bytes()).hexdigest()
    code = {role: f"own.py:{name} sha256:{digest}" for role, name in ROLES.items()}
    config = json.loads((place / "RUN/config.json").read_text())
    assert config["code"] == code and config["arch"] == "own.py:network"
    assert checkpoints.load("RUN/best.pt").source["code"] == code
    (place / "own.py").unlink()  # the checkpoint carries its network
    predicted = cli("chex-predict", "0.png", "--checkpoint", "RUN/best.pt", "--device", "cpu")
    assert predicted.code == 0, predicted.err
    assert 0 < json.loads(predicted.out)["scores"]["Edema"] < 1


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_weights(cli, place):
    assert train(cli, "whole", **ROLES).code == 0
    assert train(cli, "parts", "--max-time", "0", **ROLES).code == 75
    for _ in range(9):
        result = train(cli, "parts", "--resume", "--max-time", "0", **ROLES)
        if result.code == 0:
            break
    assert result.code == 0, result.err
    one, other = weights("whole"), weights("parts")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_file_that_has_changed_is_another_run(cli, place):
    assert train(cli, "RUN", "--max-time", "0", **ROLES).code == 75
    with open("own.py", "a") as stream:
        stream.write("# changed\n")
    result = train(cli, "RUN", "--resume", **ROLES)
    assert result.code == 1 and "own.py: is not as it was when RUN began" in result.err


BROKEN = """
import torch

def shape(outputs):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(outputs + 1))

def no_module(outputs):
    return 3

class Raises(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(4, outputs)

    def forward(self, images):
        return self.layer(images)

def loss_of_a_batch(logits, targets, weights):
    return (logits - targets) ** 2

def no_gradient(logits, targets, weights):
    return targets.sum()

def typo(logits, targets, weights):
    return logit.mean()

def crops(pixels, generator):
    return pixels[1:]

def negative(step, steps):
    return -1

def no_optimizer(parameters, lr):
    return list(parameters)
"""


@pytest.mark.parametrize(
    "role, name, said",
    [
        ("arch", "shape", "the network of shape gives [2, 2] of 2 images, not [2, 1]"),
        ("arch", "no_module", "no_module gives a int, not a torch.nn.Module"),
        ("arch", "Raises", "own.py:16: RuntimeError"),
        ("arch", "absent", "own.py: has no absent"),
        ("loss", "loss_of_a_batch", "loss_of_a_batch gives shape [2, 1], not a scalar tensor"),
        ("loss", "no_gradient", "no_gradient gives a value without a gradient"),
        ("loss", "typo", "own.py:25: NameError: name 'logit' is not defined"),
        ("augment", "crops", "crops gives uint8 [15, 16], not uint8 or float [16, 16]"),
        ("schedule", "negative", "negative gives -1 at step 0 of 6, not a factor >= 0"),
        ("optimizer", "no_optimizer", "no_optimizer gives a list, not a torch.optim.Optimizer"),
    ],
)
def test_what_is_wrong_is_one_line_before_the_first_step(cli, place, role, name, said):
    (place / "own.py").write_text(BROKEN)
    small = {"arch": "own.py:network"} if role != "arch" else {}
    if small:
        (place / "net.py").write_text(example())
    options = ["--arch", "net.py:network"] if small else []
    result = train(cli, "RUN", *options, **{role: name})
    lines = result.err.splitlines()
    assert result.code == 1 and result.out == ""
    assert said in lines[-1] and lines[-1].startswith("chex-train: error: ")
    assert not (place / "RUN").exists()


def test_options_that_do_not_go_together(cli, place):
    for options, said in (
        (["--class-weights", "balanced", "--loss", "own.py:focal"], "--class-weights is of the loss"),
        (["--arch", "own.py:network", "--weights", "imagenet"], "--weights imagenet has none for own.py:network"),
        (["--arch", "gone.py:network"], "gone.py: no such file"),
    ):
        result = train(cli, "RUN", *options)
        assert result.code == 1 and said in result.err
    assert train(cli, "RUN", "--loss", "focal").code == 2
