"""The OPTIONS sections of the man pages, generated from the options so that they cannot drift apart.

python tests/manual.py          rewrite the sections in man/man1
(tests/test_manual.py compares them)
"""

from __future__ import annotations

import importlib
import keyword
import re
import sys
import textwrap
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from chextools.cli import helptext  # noqa: E402 - the checkout's, whatever is installed

START = '.\\" OPTIONS: generated from the options\n'
END = '.\\" END OPTIONS\n'


def command(name: str) -> click.Command:
    module = name.removeprefix("chex-")
    return importlib.import_module(f"chextools.cli.{module}{'ing' * keyword.iskeyword(module)}").command


def options(name: str) -> str:
    """One .TP paragraph per option, in the groups and order of --help."""
    target = command(name)
    context = click.Context(target, info_name=name, **target.context_settings)
    lines = []
    for heading, found in helptext.grouped(target, context):
        lines.append(f".SS {heading}")
        for option in found:
            names, help_text = option.get_help_record(context)
            names = re.sub(r"(--?[a-z0-9-]+)", lambda m: rf"\fB{_escaped(m[1])}\fR", names)
            lines += [".TP", names, *textwrap.wrap(_escaped(help_text), 78, break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def page(name: str) -> Path:
    return ROOT / "man/man1" / f"{name}.1"


def examples(page: Path) -> list[str]:
    """What stands between .EX and .EE in a page, as a reader would copy it."""
    found = re.findall(r"^\.EX\n(.*?)^\.EE$", page.read_text(), re.M | re.S)
    for written, meant in ((r"\-", "-"), (r"\(dq", '"'), (r"\&", ""), (r"\e", "\\")):
        found = [text.replace(written, meant) for text in found]
    return found


def filled(name: str) -> str:
    """The page's text with its OPTIONS section made anew."""
    text = page(name).read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return before + START + options(name) + END + after


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


if __name__ == "__main__":
    for path in sorted((ROOT / "bin").glob("chex-*")):
        if page(path.name).exists():
            page(path.name).write_text(filled(path.name))
