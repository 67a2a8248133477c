"""Opening what a stranger may have compressed, and its lines: one rule for gzip, byte order marks and line ends.

A stream from here is UTF-8, whatever mark the text began with (UTF-8, UTF-16 or UTF-32), and every fault in reading it
is an InputError that names it. A line ends with LF, CRLF or CR. No line, document or archive takes more memory than the
bounds below.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

from chextools.errors import InputError, LimitError

MAX_LINE = 2**26  # bytes; a record of a full-size X-ray with ten ragged masks has about 2**20
MAX_DOCUMENT = 2**30  # the study's masks of 668 CXRs are 2**26
MAX_RATIO = 100  # of gzip, past the first FREE bytes; masks, numbers and labels reach 30
FREE = 2**24

_BLOCK = 2**16
_MARKS = (  # the longer first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """A regular file opened for reading, as it is; whoever makes a pipe of that name cannot keep us waiting.

    Raises InputError that names it.
    """
    try:
        raw = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (OSError, ValueError) as error:
        raise _named(str(path), error) from None
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise InputError(f"{path}: no regular file")
    return raw


def open_input(path: str, named: bool = True) -> BinaryIO:
    """A file opened for reading: unpacked where it is gzip, UTF-8 without a mark. Raises InputError that names it.

    named: by the user, so that it may be a pipe, and is waited for.
    """
    if not named:
        return as_utf8(open_regular(path), path)
    try:
        raw = open(path, "rb")
    except (OSError, ValueError) as error:
        raise _named(path, error) from None
    return as_utf8(raw, path)


@contextlib.contextmanager
def open_source(source: str, stdin: BinaryIO) -> Iterator[BinaryIO]:
    """`open_input` of a path, or the same of `stdin` for `-`."""
    if source == "-":
        yield as_utf8(stdin, "stdin", closes=False)
    else:
        with open_input(source) as stream:
            yield stream


def as_utf8(raw: BinaryIO, name: str, closes: bool = True) -> BinaryIO:
    """A buffered stream of what `raw` holds: unpacked where it is gzip, UTF-8 without a byte order mark.

    closes: whether closing it closes `raw`.
    """
    stream = _buffered(_Plain(raw, name, closes))
    if peek(stream)[:2] == b"\x1f\x8b":
        stream = _buffered(_Unpacked(stream, name))
    start = peek(stream)[:4]
    if start.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return _buffered(_Recoded(stream, name, encoding))
    return stream


def peek(stream: BinaryIO) -> bytes:
    """What a stream from here goes on with, as far as it is there; nothing is read from it."""
    return cast(io.BufferedReader, stream).peek(1)


def is_json(stream: BinaryIO) -> bool:
    """Whether a stream from here goes on with JSON, or is empty; nothing is read from it."""
    return peek(stream).lstrip()[:1] in (b"{", b"[", b"")


def lines(stream: BinaryIO, name: str, most: int = MAX_LINE) -> Iterator[bytes]:
    """The lines of a stream, each with its end: LF, CRLF or CR. Raises InputError for one of more than `most` bytes."""
    rest = b""
    while block := stream.readline(most + 1):
        if b"\r" not in block and not rest and len(block) <= most:
            yield block
            continue
        *whole, rest = (rest + block).splitlines(keepends=True)
        yield from whole
        if rest.endswith(b"\n"):
            yield rest
            rest = b""
        elif len(rest.rstrip(b"\r")) > most:
            raise LimitError(f"{name}: a line of more than {most} bytes")
    if rest:
        yield rest


def read_rest(lines: Iterable[bytes], name: str) -> list[bytes]:
    """All lines that still come. Raises InputError for more than `MAX_DOCUMENT` bytes of them."""
    found, size = [], 0
    for line in lines:
        found.append(line)
        size += len(line)
        if size > MAX_DOCUMENT:
            raise LimitError(f"{name}: a document of more than {MAX_DOCUMENT} bytes")
    return found


def _named(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: {getattr(error, 'strerror', None) or error}")


def _buffered(raw: io.RawIOBase) -> BinaryIO:
    return io.BufferedReader(raw, _BLOCK)


class _Plain(io.RawIOBase):
    """A binary stream's bytes as they come in, never waiting for more than there are."""

    def __init__(self, raw: BinaryIO, name: str, closes: bool = True):
        self.raw: Any = raw
        self.name = name
        self.closes = closes
        self.count = 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.raw.fileno()

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._some(len(buffer))
        except (OSError, zlib.error, ValueError) as error:
            raise error if isinstance(error, InputError) else _named(self.name, error) from None
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)

    def _some(self, most: int) -> bytes:
        return self.raw.read1(most) if hasattr(self.raw, "read1") else self.raw.read(most)

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self.closes:
                self.raw.close()


class _Unpacked(_Plain):
    """What a gzip stream holds. Raises InputError where it holds far more than a file of text does."""

    def __init__(self, packed: BinaryIO, name: str):
        super().__init__(packed, name)
        self.unpacker = zlib.decompressobj(wbits=31)
        self.waiting = b""
        self.taken = 0
        self.begun = False

    def _some(self, most: int) -> bytes:
        data = b""
        while not data:
            if self.unpacker.eof:  # another member follows, or padding, or nothing
                self.waiting = self.unpacker.unused_data.lstrip(b"\0")
                self.unpacker, self.begun = zlib.decompressobj(wbits=31), False
            if not self.waiting:
                self.waiting = super()._some(_BLOCK)
                self.taken += len(self.waiting)
                if not self.begun:
                    self.waiting = self.waiting.lstrip(b"\0")
                if not self.waiting and not self.unpacker.eof:
                    if self.begun:
                        raise InputError(f"{self.name}: truncated gzip")
                    return b""
            self.begun = True
            data = self.unpacker.decompress(self.waiting, most)
            self.waiting = self.unpacker.unconsumed_tail
        if self.count + len(data) > FREE + MAX_RATIO * self.taken:
            raise LimitError(f"{self.name}: gzip that unpacks to more than {MAX_RATIO} times its size")
        return data


class _Recoded(_Plain):
    """What a stream in an encoding with a byte order mark holds, as UTF-8."""

    def __init__(self, stream: BinaryIO, name: str, encoding: str):
        super().__init__(stream, name)
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.encoding = encoding.upper()
        self.made = b""
        self.taken = 0

    def _some(self, most: int) -> bytes:
        while not self.made:
            data = super()._some(_BLOCK)
            try:
                self.made = self.decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                where = self.taken + error.start + 1
                raise InputError(f"{self.name}: not {self.encoding} near byte {where}") from None
            self.taken += len(data)
            if not data:
                break
        data, self.made = self.made[:most], self.made[most:]
        return data
