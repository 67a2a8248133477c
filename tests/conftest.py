"""What tests share: the two oracles, tools that may be missing, and commands run in process or for real."""

from __future__ import annotations

import importlib
import io
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from forks import Forks, cli_module

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
SHARED = ROOT.parent / "shared"  # larger real and made-up data that users do not have
COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("chex-*"))


def need_tool(name: str) -> str:
    """The path of a program that a test needs. Without it the test is skipped, but fails in CI."""
    found = shutil.which(name)
    if not found:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name} is not installed")
    return found


def need_module(name: str) -> ModuleType:
    """A module of the extra `parity` that a test compares with. Without it the test is skipped, but fails in CI."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name} is not installed")


def need_shared(name: str) -> Path:
    """A path of the shared data; the test is skipped where it is not there."""
    if not (SHARED / name).exists():
        pytest.skip(f"no shared data ({name})")
    return SHARED / name


@pytest.fixture(scope="session", params=["oracle-small", "oracle"])
def oracle(request) -> Path:
    """A data set in the study's formats, with what the study's own scripts make of it under expected/."""
    return DATA / "oracle-small" if request.param == "oracle-small" else need_shared("oracle")


@pytest.fixture(scope="session")
def small() -> Path:
    return DATA / "oracle-small"


def launcher(command: str) -> list[str]:
    """How to start a command as a process of its own, with this Python."""
    return [sys.executable, str(ROOT / "bin" / command)]


def run(command: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """Run a command as a process; stdin is empty unless given. Output is bytes."""
    options.setdefault("input", b"")
    if "stdin" in options:
        del options["input"]
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([*launcher(command), *map(str, arguments)], timeout=120, **options)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Where commands are forked from that do not import torch."""
    names = ("compare", "evaluate", "features", "phantom", "prep", "regress", "report", "segment", "tune", "view")
    started = Forks(*(f"chextools.{name}" for name in names), "pycocotools.mask", "scipy.stats")
    yield started
    started.close()


@pytest.fixture(scope="session")
def torch_forks() -> Iterator[Forks]:
    """Where the others are forked from."""
    names = ("cam", "importing", "predict", "probe", "saliency.gradcam", "train", "training.run")
    started = Forks(*(f"chextools.{name}" for name in names), "torchvision.models")
    yield started
    started.close()


@pytest.fixture(scope="session")
def path(tmp_path_factory) -> str:
    """A PATH on which the commands are this checkout's, with this Python."""
    folder = tmp_path_factory.mktemp("bin")
    for command in COMMANDS:
        script = folder / command
        script.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in launcher(command)) + ' "$@"\n')
        script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _messages_as_before() -> Iterator[None]:
    """A command that ran in this process has set up its messages for good: the next test finds them as they were."""
    log, show = logging.getLogger("chextools"), warnings.showwarning
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])
    warnings.showwarning = show


@pytest.fixture
def cli(monkeypatch):
    """Run a command in this process, which saves its start-up: `cli("chex-segment", "maps", stdin=...)`."""

    def call(command: str, *arguments: object, stdin: bytes = b"") -> Result:
        module = importlib.import_module(f"chextools.cli.{cli_module(command)}")
        out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [command, *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as stop:
                module.main()
        return Result(stop.value.code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode())

    return call
