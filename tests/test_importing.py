"""chex-import: what it takes, what it says, and what it refuses in one line."""

from __future__ import annotations

import argparse
import json
import pickle

import pytest
import torch
from conftest import DATA
from small_networks import Own, lively
from torch import nn

from chextools import importing
from chextools.errors import InputError
from chextools.models import checkpoints, inert
from chextools.models.sources import Source

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.more, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, outputs)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        x += self.more(x)
        return self.head(x.mean((2, 3)))

def build(outputs):
    return Net(outputs)

def whole():
    return Net()

def broken():
    return 1 / 0

def number():
    return 3

def parallel():
    return nn.DataParallel(Net())

class Scaled(Net):
    def forward(self, x):
        from torchvision.transforms import Normalize
        return super().forward(Normalize([.5], [.25])(x))

class Shares(Net):
    def forward(self, x):
        print("so many images:", len(x))
        return [logits.softmax(1) for logits in super().forward(x).split(2, 1)]

def shares():
    print("made")
    return Shares(4)

class Corner(nn.Module):
    def forward(self, x):
        return x[:, 0, :3, 0]
"""
INPUT = ["--size", "32", "--channels", "1", "--range=-1,1"]


@pytest.fixture
def net(tmp_path, monkeypatch):
    """(the folder, the network of net.py in it)."""
    from chextools.plumbing import usercode

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    torch.manual_seed(0)
    return lively(usercode.load("net.py:whole").call())


def of_module(module: nn.Module, tasks: list[str], **settings) -> None:
    asked = importing.ImportSettings(source="it", size=32, channels=1, value_range=(-1, 1), **settings)
    importing._imported(asked, Source("it", module, channels=1), tasks, lambda _: None)


def imported(cli, *words) -> dict:
    result = cli("chex-import", *words, "-o", "c.pt", "-f")
    assert result.code == 0, result.err
    return json.loads(result.out)


@pytest.mark.parametrize("wrap", ["plain", "prefixed", "lightning", "whole", "legacy", "safetensors"])
def test_weights_in_any_file_of_the_field(cli, net, wrap):
    state = net.state_dict()
    if wrap == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, "w.pth")
    else:
        value = {
            "plain": state,
            "prefixed": {f"module.model.{key}": value for key, value in state.items()},
            "lightning": {
                "state_dict": {f"net.{key}": value for key, value in state.items()},
                "hyper_parameters": argparse.Namespace(rate=0.1),
                "callbacks": {argparse.ArgumentParser: 3},
            },
            "whole": net,
            "legacy": net,
        }[wrap]
        torch.save(value, "w.pth", _use_new_zipfile_serialization=wrap != "legacy")
    row = imported(cli, "w.pth", "--arch", "net.py:build", "--tasks", "Edema,,Effusion", *INPUT)
    assert row["tasks"] == ["Edema", "Pleural Effusion"] and max(row["difference"].values()) == 0
    assert row["layer"] == "add" and row["maps"] == [15, 15] and {"gradcam", "deeplift", "lrp"} <= set(row["methods"])
    found = checkpoints.load("c.pt")
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(found.scores(found.model(images)), net(images)[:, [0, 2]].sigmoid().detach())
    assert found.source["arch"] == "net.py:build" and len(found.source["sha256"]) == 64


def test_own_code_and_a_program(cli, net):
    imported(cli, "net.py:whole", "--tasks", "A,B,C", *INPUT)
    dynamic = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(net, (torch.rand(2, 1, 32, 32),), dynamic_shapes=dynamic), "p.pt2")
    row = imported(cli, "p.pt2", "--tasks", "A,B,C", "--mean", ".5", "--std", ".25")
    assert (row["size"], row["channels"], row["mean"], row["std"]) == (32, 1, [0.5], [0.25])
    torch.export.save(torch.export.export(net, (torch.rand(2, 1, 32, 32),)), "fixed.pt2")
    net.train()
    torch.export.save(torch.export.export(net, (torch.rand(2, 1, 32, 32),), dynamic_shapes=dynamic), "train.pt2")
    for program, said in (("fixed", "not for any number of images"), ("train", "normalises by the batch")):
        result = cli("chex-import", f"{program}.pt2", "--tasks", "A,B,C", "--range=-1,1", "-o", "d.pt")
        assert result.code == 1 and said in result.err and result.err.count("\n") == 1


def test_what_wraps_a_network_and_what_normalises_in_it(cli, net):
    """DataParallel is taken off, and torchvision's Normalize looks at numbers of its own, as no graph can."""
    imported(cli, "net.py:parallel", "--tasks", "A,B,C", *INPUT)
    torch.save(net.state_dict(), "w.pth")
    imported(cli, "w.pth", "--arch", "net.py:Scaled", "--tasks", "A,B,C", *INPUT)
    found, images = checkpoints.load("c.pt"), torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(found.model(images), net((images - 0.5) / 0.25), rtol=0, atol=1e-6)


def test_of_several_networks_in_a_file_it_is_said_which_is_taken(cli, net):
    moved = {key: value + 1 for key, value in net.state_dict().items()}
    torch.save({"state_dict_ema": moved, "state_dict": net.state_dict(), "optimizer": {"state": {}}}, "w.pth")
    words = ["--arch", "net.py:build", "--tasks", "A,B,C", *INPUT, "-f", "-o", "c.pt"]
    result = cli("chex-import", "w.pth", *words)
    assert "state_dict is taken, not state_dict_ema" in result.err and result.err.count("\n") == 1
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(checkpoints.load("c.pt").model(images), net(images))
    torch.save({"state_dict_ema": net.state_dict()}, "w.pth")
    assert cli("chex-import", "w.pth", *words).err == ""


def test_heads_of_two_and_three_outputs(cli, net):
    torch.save(net.state_dict(), "w.pth")
    imported(cli, "w.pth", "--arch", "net.py:build", "--tasks", "A", "--head", "softmax3", *INPUT)
    found, images = checkpoints.load("c.pt"), torch.randn(2, 1, 32, 32)
    wanted = net(images)[:, :2].softmax(1)[:, 1:].detach()
    torch.testing.assert_close(found.scores(found.model(images)), wanted)


def test_a_softmax_over_the_outputs_of_each_task_and_what_own_code_prints(cli, net):
    result = cli("chex-import", "net.py:shares", "--tasks", "A,B", "--head", "softmax2", *INPUT, "-o", "c.pt")
    assert "made\n" in result.err and "so many images: 3\n" in result.err
    row = json.loads(result.out)
    assert row["removed"] == "softmax" and max(row["difference"].values()) < 1e-6
    heads = nn.Sequential(net, nn.Unflatten(1, (-1, 2)), nn.Softmax(1), nn.Flatten())
    heads[0].head = nn.Linear(8, 4)
    with pytest.raises(InputError, match="over the 2 outputs of each task"):
        of_module(heads.eval(), ["A", "B"], head="softmax2")


def test_a_network_without_weights(cli, net):
    assert imported(cli, "net.py:Corner", "--tasks", "A,B,C", *INPUT)["difference"] == {"1": 0, "3": 0}


def test_points_and_an_example(cli, net):
    torch.save(net.state_dict(), "w.pth")
    (image,) = list((DATA / "cxr").rglob("*.jpg"))[:1]
    with open("points.json", "w") as stream:
        json.dump({"A": 0.2}, stream)
    words = ["w.pth", "--arch", "net.py:build", "--tasks", "A,B,C", *INPUT, "--example", image]
    plain = imported(cli, *words)["example"]["scores"]
    bent = imported(cli, *words, "--points", "points.json")["example"]["scores"]
    p = plain["A"]
    assert bent["A"] == pytest.approx(p / 0.4 if p < 0.2 else 1 - (1 - p) / 1.6) and bent["B"] == plain["B"]
    said = json.loads(cli("chex-predict", image, "--checkpoint", "c.pt", "-q").out)["scores"]
    assert said == pytest.approx(bent, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["w.pth"], "a state dict does not say what computes: name its architecture"),
        (["w.pth", "--arch", "resnet18", "--tasks", "A,B,C"], "its weights are not those of resnet18"),
        (["w.pth", "--arch", "net.py:build", "--tasks", "A,B"], "head.weight is [3, 8], not [2, 8]"),
        (["w.pth", "--arch", "net.py:broken", "--tasks", "A,B,C"], "net.py:22: ZeroDivisionError: division by zero"),
        (["w.pth", "--arch", "net.py:number", "--tasks", "A,B,C"], "gives a int, not a torch.nn.Module"),
        (["w.pth", "--arch", "net.py:nothing", "--tasks", "A,B,C"], "has no nothing; it has"),
        (["w.pth", "--arch", "nosuch.py:build", "--tasks", "A,B,C"], "nosuch.py: no such file"),
        (["w.pth", "--arch", "net.py:build", "--tasks", "A,B"], "it has 3 outputs: name the task of each"),
        (["w.pth", "--arch", "hf:.", "--tasks", "A,B"], "it is SOURCE itself, without --arch"),
        (["headless.pth", "--arch", "net.py:build", "--tasks", "A,B,C"], "a backbone without its head?"),
        (["other.pth", "--arch", "net.py:build", "--tasks", "A,B,C"], "of no use in it: fc.weight [3, 8], fc.bias [3]"),
        (["arrays.pth", "--arch", "net.py:build", "--tasks", "A,B,C"], "holds arrays of numpy"),
        (["net.py"], "name what builds the network in it: net.py:FUNCTION"),
        (["w.pth", "--arch", "net.py:build", "--tasks", "nosuch.txt"], "nosuch.txt: No such file"),
        (["net.py:whole", "--tasks", "A,B"], "has 3 outputs, but 2 tasks were named"),
        (["net.py:whole"], "say what its 3 outputs are"),
        (["net.py:whole", "--tasks", "A,A,B"], "A is named twice"),
        (["net.py:whole", "--tasks", ",,"], "no task is named"),
        (["net.py:whole", "--tasks", "A,B,C", "--layer", "convv"], "has no layer 'convv' (did you mean 'conv'?)"),
        (["net.py:whole", "--tasks", "A,B,C", "--points", "w.pth"], "not JSON of a probability by task"),
        (["timm/resnet18"], "is an architecture: name the file of its weights"),
        (["hf:nosuch"], "nosuch: no such folder"),
        (["nosuch.pth", "--arch", "resnet18"], "nosuch.pth: No such file"),
        (["text.pth", "--arch", "resnet18"], "not a file of torch.save"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_writes_nothing(cli, net, tmp_path, words, said):
    state = net.state_dict()
    headless = {key: value for key, value in state.items() if not key.startswith("head.")}
    torch.save(state, "w.pth")
    torch.save(headless, "headless.pth")
    torch.save(headless | {"fc.weight": state["head.weight"], "fc.bias": state["head.bias"]}, "other.pth")
    torch.save({key: value.numpy() for key, value in state.items()}, "arrays.pth")
    (tmp_path / "text.pth").write_text("hello")
    result = cli("chex-import", *words, *INPUT, "-o", "c.pt")
    assert result.code == 1 and said in result.err and result.err.count("\n") == 1 and result.out == ""
    assert not (tmp_path / "c.pt").exists()


def test_a_file_of_weights_runs_nothing(cli, net, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": net.state_dict(), "more": Evil()}, "w.pth")
    imported(cli, "w.pth", "--arch", "net.py:build", "--tasks", "A,B,C", *INPUT)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04r\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\x00\x00\x00\x00.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",
        pickle.dumps({"a": 1}),
        b"PK\3\4",
        b"",
        b"\xff\xff\xff\xff\0\0\0\0{}",
    ],
    ids=range(7),
)
def test_bytes_that_are_no_weights(tmp_path, data):
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(InputError) as caught:
        inert.state_dict(str(tmp_path / "w.pth"))
    assert "\n" not in str(caught.value)


def test_names_of_tasks(tmp_path):
    (tmp_path / "tasks.txt").write_text("Edema\n\nLung Opacity\n")
    assert importing.task_names(str(tmp_path / "tasks.txt")) == ["Edema", "", "Airspace Opacity"]
    assert importing.task_names("NIH14")[2] == "Pleural Effusion" and len(importing.task_names("XRV18")) == 18
    assert importing.task_names("CHEXPERT14")[3] == "Airspace Opacity"


def test_a_network_that_draws_at_random_is_not_what_was_imported(net):
    """Noise that comes from outside torch cannot be seen in a graph: the proof finds it."""
    import random

    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Own()

        def forward(self, x):
            return self.net(x) + random.random()

    with pytest.raises(InputError, match="differs from the original by"):
        of_module(Drifting().eval(), ["A", "B", "C"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x + statistics.mean([])", "own.py:5: StatisticsError"),
        ("x.mean((2, 3)) @ torch.ones(5, 2)", "own.py:5: RuntimeError"),
    ],
)
def test_an_error_within_a_library_names_the_users_line(cli, tmp_path, monkeypatch, line, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        f"import statistics, torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return {line}\n"
    )
    result = cli("chex-import", "own.py:Net", "-o", "net.pt", "--tasks", "Edema,Mass", "--size", "32")
    assert result.code == 1 and f"cannot be traced: {said}" in result.err
