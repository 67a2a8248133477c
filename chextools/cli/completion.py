"""Completion in a shell: what may stand where the cursor is. completion.bash, .zsh and .fish ask, see `answer`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import click

ASKED = "CHEXTOOLS_COMPLETE"  # set to anything where a shell asks; the words before the cursor are the arguments

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def answer(command: click.Command, words: Sequence[str]) -> None:
    """Print what may stand in place of the last of the words, a line each, after a tab what it means.

    Nothing is printed where the name of a file may stand: the shell knows files best.
    """
    from click.shell_completion import ShellComplete

    words = list(words) or [""]
    if len(words) > 1 and words[-1] == "=":  # bash cuts --metric=io in three
        words[-1] = ""
    words = [word for word in words if word != "="]
    found = ShellComplete(command, {}, command.name or "", ASKED).get_completions(words[:-1], words[-1])
    lines = [f"{item.value}\t{_brief(item.help)}".rstrip() for item in found if item.type == "plain"]
    sys.stdout.write("".join(line + "\n" for line in lines if "\n" not in line))


def _brief(text: str | None) -> str:
    """The first sentence of an option's help, on one line."""
    return " ".join((text or "").split()).partition(". ")[0].removesuffix(".")[:80]


def starting(names: Sequence[str], incomplete: str) -> list[str]:
    """The names that start so, in whatever case."""
    return [name for name in names if name.lower().startswith(incomplete.lower())]


def words(*names: str) -> Completer:
    """Completes to one of these."""
    return lambda _context, _parameter, incomplete: starting(names, incomplete)


def task(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """CheXpert's tasks; others may be typed."""
    from chextools import tasks

    return starting(tasks.CHEXPERT, incomplete)


def arch(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from chextools.models import names

    return starting(names.TORCHVISION, incomplete)


def layer(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The layers of the checkpoints on the line, down to one level below what has been typed."""
    from chextools.models import layer_names

    for path in context.params.get("checkpoints") or ():
        if os.path.isfile(path):
            depth = incomplete.count(".")
            return [
                name for name in layer_names.named_in(path) if name.startswith(incomplete) and name.count(".") <= depth
            ]
    return []
