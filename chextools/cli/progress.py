"""What a command shows of its progress on stderr: a bar on a terminal, else a line a minute; one in a pipeline.

In a pipeline the first of our commands that still runs shows it: it knows how much there is to do, and what reads from
it holds it back.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

from chextools.cli import pipeline

SHOWN_AFTER = 2.0  # seconds
LINE_EVERY = 60.0
_ASKED_EVERY = 1.0

_sources: list[str] = []  # the inputs, whose records tell how much there is to do
_program = ""
_bar: Any = None  # the tqdm, or the step, that is on the screen


def begin(program: str, sources: Sequence[str]) -> None:
    """Say what the command is called and what its inputs are."""
    global _program
    _program = program
    _sources[:] = sources


def shown(
    items: Iterable, unit: str, total: int | None = None, about: Callable[[object], str] = lambda _: ""
) -> Iterator:
    """Pass items on and show how many there were, at what rate and, where it can be known, the time left.

    total: how many there will be; None for the items' length, or to count those in the inputs.
    about: what else to say, from the last item.
    """
    import logging

    if total is None and isinstance(items, Sized):
        total = len(items)
    if not logging.getLogger(__name__).isEnabledFor(logging.WARNING):
        yield from items
    elif sys.stderr is not None and sys.stderr.isatty():
        yield from _with_bar(items, unit, total, about)
    else:
        yield from _with_lines(items, unit)


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Show on a terminal which of a few long steps is at hand: each that the function is told takes the last one's
    place, and the end of the block takes it away."""
    global _bar
    import logging

    if sys.stderr is None or not sys.stderr.isatty() or not logging.getLogger(__name__).isEnabledFor(logging.WARNING):
        yield lambda _: None
        return
    _bar = step = _Step()
    try:
        yield step.begin
    finally:
        step.clear()
        _bar = None


class _Step:
    """A line on the terminal, as a bar is one."""

    def __init__(self) -> None:
        self._text = ""

    def begin(self, text: str) -> None:
        self.clear()
        self._text = text
        self.refresh()

    def clear(self) -> None:
        self._write("\r\x1b[K")

    def refresh(self) -> None:
        self._write(f"{_program}: {self._text}"[: (_columns() or 80) - 1])

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """No bar is on the screen in the block, which writes to it."""
    if _bar is not None:
        _bar.clear()
    yield
    if _bar is not None:
        _bar.refresh()


def _with_bar(items: Iterable, unit: str, total: int | None, about: Callable[[object], str]) -> Iterator:
    global _bar
    from tqdm import tqdm

    start = first = asked = time.monotonic()
    count, bar, said = 0, None, ""
    try:
        for item in items:
            yield item
            count += 1
            said = about(item) or said
            now = time.monotonic()
            if bar is None:
                if now - first < SHOWN_AFTER or now - asked < _ASKED_EVERY:
                    continue
                asked = now
                if pipeline.upstream():
                    first = now
                    continue
                whole = expected(_sources) if total is None else total
                bar = _bar = _shape_of(tqdm)(
                    total=None if whole is None or whole < count else whole,
                    desc=_program or None,
                    unit=f" {unit}",
                    file=sys.stderr,
                    leave=False,
                    **_size(),
                    initial=count,
                    delay=1e-9,  # drawn not yet, but
                )
                bar.initial, bar.start_t = 0, bar.start_t - (now - start)  # with the rate of all
                bar.refresh()
            else:
                bar.update(count - bar.n)
            if said != bar.postfix:
                bar.set_postfix_str(said, refresh=False)
            if bar.total is not None and bar.n > bar.total:
                bar.total = None
    finally:
        _bar = None
        if bar is not None:
            bar.close()


def _shape_of(tqdm: type) -> type:
    """tqdm, whose unit after a space would make a slow rate 1.5s/ images."""

    class Bar(tqdm):
        @staticmethod
        def format_meter(*values: Any, **named: Any) -> str:
            return tqdm.format_meter(*values, **named).replace("s/ ", "s/", 1)  # type: ignore[attr-defined]

    return Bar


def _size() -> dict[str, Any]:
    """What tqdm is told of the terminal: to ask it, but of one that does not know its size, on which it would draw
    nothing, that it has the usual one."""
    return {"ncols": 80, "nrows": 24} if _columns() == 0 else {"dynamic_ncols": True}


def _columns() -> int | None:
    """How wide the terminal says it is; None where it cannot be asked."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns
    return None


def _with_lines(items: Iterable, unit: str) -> Iterator:
    import logging

    log = logging.getLogger(__name__)
    start = said = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) - said >= LINE_EVERY:
            said = now
            if not pipeline.upstream():
                log.warning("%d %s so far, %.1f a second", number, unit, number / (now - start))


def expected(sources: Sequence[str]) -> int | None:
    """About how many records the inputs hold, where that is known from a look: lines of JSON Lines, rows of CSV, a
    folder's heatmaps."""
    counts = [_count("/dev/stdin" if source == "-" else source) for source in sources]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _count(source: str) -> int | None:
    try:
        if os.path.isdir(source):
            with os.scandir(source) as entries:
                return sum(entry.name.endswith(".npz") for entry in entries) or None
        if not os.path.isfile(source):
            return None
        with open(source, "rb") as stream:
            first = stream.readline(1 << 20)
            rest = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    except OSError:
        return None
    if first.startswith(b'{"') and first.endswith(b"}\n"):
        return rest + 1
    return rest or None if b"," in first and first.isascii() and first[:1] not in b'{["' and rest else None
