"""What `--help` looks like: options in groups, at any width from 40 to 100 columns; man pages have the same groups."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

NARROWEST, WIDEST = 40, 100
_COLUMN = 30  # of the options' names, at most
_STACKED = 60  # columns below which an option's help stands under its name

# An option means the same in every command, so its name says where it belongs; the others say what to do.
DO = "What to do"
GROUPS = {
    "Input": (
        "mix outlines truth truth-size truth-images consensus images checkpoint root null map config valid weights fit "
        "features scores minus human human-run floor-run floor shortcut lungs"
    ).split(),
    DO: [],
    "Output": (
        "output format like force csv calibration per-image replicate-table pack plots title gallery card "
        "theme tensorboard curve logits summary"
    ).split(),
    "Running": "device jobs batch seed shard resume fail-fast max-time quiet verbose version help".split(),
}
_GROUP_OF = {f"--{name}": group for group, names in GROUPS.items() for name in names}


def grouped(command: click.Command, context: click.Context) -> list[tuple[str, list[click.Option]]]:
    """The command's options under the headings of `GROUPS`, each in its own order; what is empty is left out."""
    found: dict[str, list[click.Option]] = {group: [] for group in GROUPS}
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            found[_group_of(parameter)].append(parameter)
    return [(group, options) for group, options in found.items() if options]


def _group_of(option: click.Option) -> str:
    return next((_GROUP_OF[name] for name in option.opts if name in _GROUP_OF), DO)


class Formatter(click.HelpFormatter):
    """Click's, but it keeps to the terminal's width also where that is small, and breaks long lists of choices."""

    def __init__(self, **_: object):
        import shutil  # here, as it costs start-up

        columns = shutil.get_terminal_size((80, 24)).columns
        super().__init__(width=min(max(columns, NARROWEST), WIDEST))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = _COLUMN, col_spacing: int = 2) -> None:
        """Names and what they mean, side by side or, where there is no room, one below the other."""
        rows = list(rows)
        stacked = self.width < _STACKED
        indent = self.current_indent
        column = indent + 4 if stacked else indent + min(col_max, max(len(name) for name, _ in rows)) + col_spacing
        for name, text in rows:
            lines = list(_filled(name, self.width - indent, "    "))
            text = re.sub(r"\s+", " ", text)
            texts = click.formatting.wrap_text(text, self.width - column).splitlines() if text else []
            if texts and not stacked and len(lines) == 1 and len(name) <= column - indent - col_spacing:
                lines = [f"{name:<{column - indent}}{texts.pop(0)}"]
            for line in lines:
                self.write(f"{'':{indent}}{line}\n")
            for line in texts:
                self.write(f"{'':{column}}{line}\n")

    def write_example(self, text: str) -> None:
        """Lines of shell, broken where they are too long as a shell would have it."""
        for line in text.strip().splitlines():
            pieces = list(_filled(line, self.width - 4, "    ", r"""(?:'[^']*'|"[^"]*"|[^\s'"])+\s*"""))
            for piece in pieces[:-1]:
                self.write(f"  {piece} \\\n")
            self.write(f"  {pieces[-1]}\n")


class Context(click.Context):
    formatter_class = Formatter


def _filled(text: str, width: int, indent: str, piece: str = r"[^\s|]*\|?\s*") -> Iterable[str]:
    """The text in lines of at most `width`, cut between pieces; all but the first are indented."""
    line = ""
    for part in filter(None, re.findall(piece, text)):
        if line.strip() and len((line + part).rstrip()) > width:
            yield line.rstrip()
            line = indent
        line += part
    yield line.rstrip()
