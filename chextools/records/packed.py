"""Many records in little memory: each is kept as bytes, on disk where there are many, and made again when asked for."""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from chextools.errors import InputError

IN_MEMORY = 2**22  # bytes of records that stay there; the study's truth of 500 CXRs has 2**20
_WRITTEN = 2**20  # bytes written at once
_LENGTH = 32  # bits of a place that are the record's length, under its offset


class PackedRecords(Mapping[str, dict]):
    """Records by id, read-only. Who changes a record that it gives changes a copy.

    Beyond `in_memory` bytes they go to a file without a name in TMPDIR, so that only ids and places stay. What holds
    more than JSON does, such as a drawing, is kept as it is.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._places: dict[str, int] = {}  # -1 of what is kept as it is
        self._kept: dict[str, dict] = {}
        self._file: BinaryIO | None = None
        self._end = 0  # of what is in the file; the rest follows in
        self._rest = bytearray()

    def add(self, record: dict) -> None:
        """Keep a record under its id, in place of one that had it before."""
        identifier = record["id"]
        self._kept.pop(identifier, None)
        try:
            packed = marshal.dumps(record)  # our own bytes, which nobody else can reach
        except ValueError:
            self._places[identifier], self._kept[identifier] = -1, record
            return
        self._places[identifier] = (self._end + len(self._rest)) << _LENGTH | len(packed)
        self._rest += packed
        if len(self._rest) > (self._in_memory if self._file is None else _WRITTEN):
            self._write()

    def _write(self) -> None:
        import tempfile  # here, as it costs start-up

        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)
            left = memoryview(self._rest)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise InputError(f"{tempfile.gettempdir()} (TMPDIR): {error.strerror}") from None
        self._end += len(self._rest)
        self._rest = bytearray()

    def __getitem__(self, identifier: str) -> dict:
        place = self._places[identifier]
        if place < 0:
            return self._kept[identifier]
        offset, length = place >> _LENGTH, place & ((1 << _LENGTH) - 1)
        if offset >= self._end:
            return marshal.loads(memoryview(self._rest)[offset - self._end :][:length])
        assert self._file is not None
        return marshal.loads(os.pread(self._file.fileno(), length, offset))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._places
