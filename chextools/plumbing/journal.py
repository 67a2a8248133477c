"""A file of finished lines beside an output file, so that a run that was killed can go on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from chextools.errors import InputError

SUFFIX = ".part"


class Journal:
    """Lines by key, appended to PATH.part as they are made; those of a former run, and of PATH, can be had again.

    A last line that was cut off does not count. Memory grows with the number of keys, not with their lines.
    """

    def __init__(self, path: str | os.PathLike, key_of: Callable[[bytes], str | None]):
        """key_of: a line's key, None for one that does not count. Raises InputError if the file cannot be written."""
        self.path = Path(f"{os.fspath(path)}{SUFFIX}")
        self._places: dict[str, tuple[Path, int]] = {}
        try:
            for source in (Path(path), self.path):
                self._index(source, key_of)
            self._stream = open(self.path, "ab")
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from None

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def line(self, key: str) -> bytes:
        """The line of a key, with its end."""
        path, start = self._places[key]
        with open(path, "rb") as stream:
            stream.seek(start)
            return stream.readline()

    def add(self, key: str, line: bytes) -> None:
        """Append a line with its end, unless it is there; it is in the file when this returns, whatever comes then."""
        if key in self and self.line(key) == line:
            return
        self._places[key] = (self.path, self._stream.tell())
        self._stream.write(line)
        self._stream.flush()

    @contextlib.contextmanager
    def kept_until_done(self) -> Iterator[None]:
        """Remove the file if the block ends without an error."""
        try:
            yield
        except BaseException:
            self._stream.close()
            raise
        self._stream.close()
        self.path.unlink(missing_ok=True)

    def _index(self, source: Path, key_of: Callable[[bytes], str | None]) -> None:
        if not source.is_file():
            return
        whole = start = 0
        with open(source, "rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    key = key_of(line)
                    if key is not None:
                        self._places[key] = (source, start)
                    whole = start + len(line)
                start += len(line)
        if source == self.path and whole < start:
            os.truncate(source, whole)
