"""The bytes of files, and members of zip archives such as npz and torch.save write, without copying any."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from chextools.errors import InputError, LimitError

STORED, DEFLATED = 0, 8  # ways to compress a member
MAX_FILE = 2**29  # bytes; the study's pickles have 1.6 million

_CHANGED = "changed while it was read"


class Content:
    """The bytes of an open file, which are in `memory`, read-only, as far as somebody has asked for them."""

    def __init__(self, file: io.FileIO, size: int):
        self._file = file
        self._memory = np.empty(size, np.uint8).data  # whose pages do not exist before something is there
        self.memory = self._memory.toreadonly()

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes from `start` to `stop`, read-only. Raises InputError where the file has become shorter."""
        self._file.seek(start)
        done = start
        while done < stop:
            count = self._file.readinto(self._memory[done:stop])
            if not count:
                raise InputError(_CHANGED)
            done += count
        return self.memory[start:stop]


@contextlib.contextmanager
def opened(path: str | os.PathLike, limit: int = MAX_FILE) -> Iterator[Content]:
    """The content of a regular file of at most `limit` bytes, as it was at one time; errors do not name the path."""
    try:
        file = open(path, "rb", buffering=0, opener=_open_at_once)  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None
    except ValueError as error:  # a name that holds NUL
        raise InputError(str(error)) from None
    try:
        with file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError("not a regular file")
            if status.st_size > limit:
                raise LimitError(f"{status.st_size} bytes are more than the {limit} that are read")
            if not status.st_size:
                raise InputError("empty file")
            yield Content(file, status.st_size)
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
                raise InputError(_CHANGED)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None


def read_bytes(path: str | os.PathLike, limit: int = MAX_FILE) -> memoryview:
    """The whole of what `opened` gives."""
    with opened(path, limit) as content:
        return content.read(0, len(content.memory))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for a writer


class Member(NamedTuple):
    """One member of a zip archive: `data` as it lies there, `size` in bytes once unpacked by `method` (0: stored)."""

    method: int
    crc: int
    size: int
    data: memoryview


def zip_members(archive: memoryview) -> dict[str, Member]:
    """Members of a zip archive by name; InputError if it is damaged, encrypted, or of 4 GiB and more (zip64)."""
    end = bytes(archive[-22 - 65535 :]).rfind(b"PK\5\6")
    if end < 0:
        raise InputError("truncated: the zip archive has no directory")
    end += max(0, len(archive) - 22 - 65535)
    members = {}
    try:
        count, size, position, comment = struct.unpack_from("<10xHIIH", archive, end)
        stop = position + size
        if stop > end or end + 22 + comment > len(archive):
            raise InputError("truncated or damaged zip archive")
        for _ in range(count):
            head = struct.unpack_from("<4s4xHH4xIIIHHH8xI", archive, position)
            signature, flags, method, crc, packed, unpacked, *lengths, start = head
            name = bytes(archive[position + 46 : position + 46 + lengths[0]]).decode("utf-8", "replace")
            position += 46 + sum(lengths)
            local, skip, extra = struct.unpack_from("<4s22xHH", archive, start)
            start += 30 + skip + extra
            if signature != b"PK\1\2" or local != b"PK\3\4" or position > stop or start + packed > end:
                raise InputError("truncated or damaged zip archive")
            if flags & 1 or name in members:
                raise InputError(f"{in_ascii(name)} is " + ("encrypted" if flags & 1 else "twice in the zip archive"))
            members[name] = Member(method, crc, unpacked, archive[start : start + packed])
    except struct.error:
        raise InputError("truncated or damaged zip archive") from None
    return members


def in_ascii(name: str) -> str:
    """A name out of a file, fit for one line."""
    return ascii(name[:200])[1:-1]
