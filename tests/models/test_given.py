"""Checkpoints and sources of networks that a command was given: what can be known before, and which tasks count."""

from __future__ import annotations

import importlib.util

import pytest

from chextools.errors import InputError, MissingExtra
from chextools.models import checkpoints, extras, selection
from chextools.models.checkpoints import Checkpoint


@pytest.fixture
def path(monkeypatch) -> str:
    """A checkpoint of two tasks, in an order of its own."""
    monkeypatch.setattr(checkpoints, "load", lambda path: Checkpoint("tiny", ["Edema", "Cardiomegaly"], 32, None))
    return "a.pt"


@pytest.mark.parametrize(
    "wanted,found",
    [(None, ["Edema", "Cardiomegaly"]), (["Cardiomegaly", "Edema"], ["Edema", "Cardiomegaly"]), (["Edema"], ["Edema"])],
)
def test_tasks_of_a_checkpoint_stand_in_its_own_order(path, wanted, found):
    ((name, checkpoint, tasks),) = selection.loaded({path: wanted})
    assert (name, tasks, checkpoint.tasks) == (path, found, ["Edema", "Cardiomegaly"])


def test_a_task_that_an_ensemble_names_and_the_checkpoint_lacks(path):
    with pytest.raises(InputError, match="a.pt: has no task 'Fracture', of which an ensemble names it"):
        list(selection.loaded({path: ["Edema", "Fracture"]}))


def test_requested_tasks_stand_in_the_studys_order():
    assert selection.tasks(["Edema", "Cardiomegaly"], {"Edema", "Cardiomegaly", "x"}, "it") == ["Cardiomegaly", "Edema"]
    assert selection.tasks([], ["x", "Edema"], "it") == ["Edema", "x"]
    assert selection.tasks(["Lung Opacity"], ["Airspace Opacity"], "it") == ["Airspace Opacity"]


@pytest.mark.parametrize(
    "task,said", [("Fracture", "it: no task 'Fracture'; it has Edema"), ("Edemaa", "did you mean")]
)
def test_a_task_that_is_not_there(task, said):
    with pytest.raises(InputError, match=said):
        selection.tasks([task], ["Edema"], "it")


@pytest.mark.parametrize(
    "arch,extra", [("timm/resnet18", "timm"), ("xrv:densenet121-res224-all", "xrv"), ("hf:/", "hf")]
)
def test_a_library_that_is_missing_is_named_with_its_extra(arch, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    for given in ((arch, None), ("weights.pt", arch))[: 1 if extra == "hf" else 2]:
        with pytest.raises(MissingExtra, match=rf"{arch} needs \w+: pip install 'chextools\[{extra}\]'"):
            extras.check_source(*given, download=True)


@pytest.mark.parametrize(
    "source,arch,said",
    [
        ("timm/resnet18", None, "timm/resnet18 is an architecture: name the file of its weights"),
        ("hf:nowhere", None, "nowhere: no such folder"),
        ("net.py", None, "net.py: name what builds the network in it: net.py:FUNCTION"),
        ("weights.pt", "nowhere.py:build", "nowhere.py: no such file"),
        ("weights.pt", "hf:folder", "it is SOURCE itself, without --arch"),
    ],
)
def test_what_can_be_known_to_be_wrong_without_torch(source, arch, said, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)  # nor any other library
    with pytest.raises(InputError, match=said):
        extras.check_source(source, arch)


def test_what_needs_no_library_passes(tmp_path):
    (tmp_path / "net.py").touch()
    extras.check_source("weights.pt", None)
    extras.check_source("weights.pt", f"{tmp_path}/net.py:build")
