"""`--help` at any width: options in groups, lines that fit, examples that a shell still understands."""

from __future__ import annotations

import shlex

import click
import pytest
from conftest import COMMANDS

from chextools.cli import helptext


def _help(cli, monkeypatch, command: str, columns: int) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    return cli(command, "--help").out


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_wider_than_the_terminal(cli, monkeypatch, command, columns):
    lines = _help(cli, monkeypatch, command, columns).splitlines()
    assert [line for line in lines if len(line) > columns and len(line.rstrip(" \\").split()) > 1] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_groups_come_in_one_order(cli, monkeypatch, command):
    text = _help(cli, monkeypatch, command, 80)
    at = [text.find(f"\n{group}:\n") for group in helptext.GROUPS]
    assert at[-1] > 0 and [x for x in at if x > 0] == sorted(x for x in at if x > 0)


def test_an_example_that_is_broken_is_the_same_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    example = "chex-eval a --select 'worst of all' | chex-view - -o pictures --layout grid --truth gt.json"
    formatter = helptext.Formatter()
    formatter.write_example(example)
    written = formatter.getvalue()
    assert written.count("\\\n") >= 2
    assert shlex.split(written.replace("\\\n", "")) == shlex.split(example)


def test_an_option_that_no_group_names_says_what_to_do():
    command = click.Command(
        "x", params=[click.Option(["--new"]), click.Option(["--jobs", "-j"])], add_help_option=False
    )
    found = helptext.grouped(command, click.Context(command))
    assert [(group, [o.name for o in options]) for group, options in found] == [
        ("What to do", ["new"]),
        ("Running", ["jobs"]),
    ]
