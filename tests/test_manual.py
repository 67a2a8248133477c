"""The manual: pages agree with the options, are well formed, and name what exists."""

from __future__ import annotations

import subprocess

import manual
import pytest
from conftest import COMMANDS, ROOT, cli_module, need_tool


@pytest.mark.parametrize("command", COMMANDS)
def test_options_in_the_page_are_those_of_the_command(command):
    assert manual.page(command).read_text() == manual.filled(command), "run: python tests/manual.py"


@pytest.mark.parametrize("page", sorted((ROOT / "man").rglob("*.[17]")), ids=lambda p: p.name)
def test_mandoc_finds_nothing(page):
    lint = [need_tool("mandoc"), "-T", "lint", "-W", "style"]
    result = subprocess.run([*lint, page], capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("", 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_rooms(command):
    name = cli_module(command)
    module = "evaluate" if name == "eval" else name
    rooms = [f"bin/{command}", f"chextools/cli/{name}.py", f"chextools/{module}.py", f"man/man1/{command}.1"]
    assert [room for room in rooms if not (ROOT / room).exists()] == []
    assert (ROOT / "bin" / command).read_bytes() == (ROOT / "bin/launch").read_bytes()  # a link, in an sdist a copy
