"""Completion: what may stand at the cursor, and the three shells that ask."""

from __future__ import annotations

import io
import json
import subprocess

import pytest
from conftest import COMMANDS, ROOT, need_tool

from chextools.cli import completion
from chextools.models import layer_names


def _asked(cli, monkeypatch, *words: str) -> list[str]:
    """What is offered, without what it means."""
    monkeypatch.setenv(completion.ASKED, "1")
    result = cli(*words)
    assert (result.code, result.err) == (0, "")
    return [line.partition("\t")[0] for line in result.out.splitlines()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A file as torch.save makes it, of strings only."""
    import torch

    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    names = ["conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.running_mean", "layer1.1.bn1.weight", "fc.bias"]
    torch.save({"arch": "resnet18", "state_dict": {name: torch.zeros(1) for name in names}}, path)
    return str(path)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["chex-eval", "--metric", "i"], ["iou"]),
        (["chex-eval", "--metric", "=", "i"], ["iou"]),
        (["chex-eval", "--metric", "="], None),
        (["chex-eval", "--task", "pleural e"], ["Pleural Effusion"]),
        (["chex-eval", "--for"], ["--format", "--force"]),
        (["chex-cam", "--method", "gradcam"], ["gradcam", "gradcampp"]),
        (["chex-cam", "--device", "c"], ["cpu", "cuda"]),
        (["chex-train", "--arch", "densenet12"], ["densenet121"]),
        (["chex-eval", "--truth", "gt"], []),
        (["chex-eval", "--no-such-option", ""], []),
    ],
)
def test_what_is_offered(cli, monkeypatch, words, offered):
    found = _asked(cli, monkeypatch, *words)
    assert "iou" in found if offered is None else found == offered


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_offers_its_options(cli, monkeypatch, command):
    assert {"--help", "--version", "--quiet"} <= set(_asked(cli, monkeypatch, command, "--"))


def test_layers_are_those_of_the_checkpoint_level_by_level(cli, monkeypatch, checkpoint):
    given = ["chex-cam", "--checkpoint", checkpoint, "--layer"]
    assert _asked(cli, monkeypatch, *given, "") == ["conv1", "layer1", "fc"]
    assert _asked(cli, monkeypatch, *given, "layer1.") == ["layer1.0", "layer1.1"]


def test_layers_of_an_ensemble_are_those_of_its_first(tmp_path, checkpoint):
    (tmp_path / "ensemble.json").write_text(json.dumps({"tasks": {"Edema": [checkpoint]}}))
    assert layer_names.named_in(tmp_path / "ensemble.json") == layer_names.named_in(checkpoint)


@pytest.mark.parametrize("content", [b"", b"no archive", b'{"tasks": {}}', b"\xff\xfe"])
@pytest.mark.parametrize("name", ["a.pt", "a.json"])
def test_what_is_no_checkpoint_has_no_layers(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert layer_names.named_in(tmp_path / name) == []


def test_a_line_break_in_a_name_is_not_two_offers(monkeypatch):
    import click

    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    command = click.Command("x", params=[click.Option(["--a"], type=click.Choice(["one\ntwo", "three"]))])
    completion.answer(command, ["--a", ""])
    assert out.getvalue() == "three\n"


def _script(shell: str) -> str:
    return f"{ROOT}/chextools/cli/completion.{shell}"


def test_bash(path):
    asks = f"""
    . {_script("bash")}
    complete -p {" ".join(COMMANDS)} >/dev/null || exit 1
    compopt() {{ :; }}
    asked() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _chextools_complete "$1"; printf '%s;' "${{COMPREPLY[@]}}"; }}
    asked chex-eval --task 'Pleural\\ E'; asked chex-eval --metric = i; asked chex-eval --truth x
    """
    found = subprocess.run(["bash", "-c", asks], env={"PATH": path}, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("Pleural Effusion;iou;;", "")


def test_scripts_can_be_sourced_before_the_commands_are_on_the_path(tmp_path):
    """As in a start-up file, which is read before a virtual environment is active."""
    found = subprocess.run(
        ["bash", "-c", f". {_script('bash')}; complete -p"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert sorted(line.split()[-1] for line in found.stdout.splitlines()) == sorted(COMMANDS)
    assert found.stderr == ""
    run = [need_tool("fish"), "--no-config", "-c", f"source {_script('fish')}; complete"]
    found = subprocess.run(run, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert {name for line in found.stdout.splitlines() for name in line.split() if name.startswith("chex-")} == set(
        COMMANDS
    )


def test_fish(path, tmp_path):
    asks = f'source {_script("fish")}; complete -C "chex-eval --task \\"Pleural E"; complete -C "chex-eval --metric i"'
    run = [need_tool("fish"), "--no-config", "-c", asks]
    found = subprocess.run(run, env={"PATH": path, "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert found.stdout.split("\n")[:2] == ["Pleural Effusion", "iou"]


def test_zsh(path):
    asks = f"""
    compadd() {{ print -rl -- $names }}; _files() {{ print files }}; compdef() {{ print $3 }}
    . {_script("zsh")}
    words=(chex-eval --task 'Pleural\\ E') CURRENT=3; _chextools; words=(chex-eval --truth x); _chextools
    """
    found = subprocess.run([need_tool("zsh"), "-f", "-c", asks], env={"PATH": path}, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("chex-*\nPleural Effusion\nfiles\n", "")
