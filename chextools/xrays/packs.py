"""Packs: X-rays decoded once, at one size, in a folder that is read at the speed of memory.

    images-1-of-1.u8       uint8 [N, size, size], nothing else, to be mapped into memory
    index-1-of-1.jsonl     a header; per row {"row", "at", "crc32", "record"}; a last line with the count and checksum

A shard is a pair of its own, and a folder is whole when it holds all shards. `at` is the record's place in the list it
came from, so that shards together read in the order of one pack. While a pair is being made both names end in `.part`;
what stands in it is whole up to the last complete line of the index, and a run that resumes goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import features

from chextools.errors import InputError
from chextools.plumbing import files, jsontext
from chextools.records import records
from chextools.xrays import images

VERSION = 1
MAX_SHARDS = 100_000
MAX_SIDE = 4096
_PART = ".part"
_INDEX = re.compile(r"index-(\d{1,9})-of-(\d{1,9})\.jsonl(\.part)?", re.ASCII)


def is_pack(folder: str | os.PathLike) -> bool:
    """Whether a folder is a pack, be it a part of one or unfinished."""
    return any(True for _ in _indexes(folder))


def pixels(record: Mapping, size: int) -> np.ndarray:
    """The image of a record: uint8 [size, size], from its "pack" where it came from one, else decoded from its file.

    Both give the same bytes. Raises InputError in one line.
    """
    if "pack" not in record:
        return images.load(record["image"], size)
    pack = _opened(record["pack"], os.path.abspath(record["pack"]))
    if pack.size != size:
        raise InputError(f"{record['pack']}: a pack of size {pack.size}, not {size}")
    return pack.read(pack.row(record["id"]))


def open_pack(folder: str | os.PathLike) -> Pack:
    """The whole pack. Raises InputError unless all of its shards are there, finished and of one kind."""
    folder = os.fspath(folder)
    found = list(_indexes(folder))
    if any(parts > MAX_SHARDS or not 1 <= part <= parts for part, parts, _ in found):
        raise InputError(f"{folder}: the name of an index claims a shard that cannot be (at most {MAX_SHARDS})")
    finished = {(part, parts) for part, parts, half in found if not half}
    if not found:
        raise InputError(f"{folder}: not a pack")
    if len({parts for _, parts in finished} or {parts for _, parts, _ in found}) > 1:
        raise InputError(f"{folder}: two packs in one folder, of {' and '.join(sorted({str(n) for _, n, _ in found}))}")
    parts = found[0][1]
    missing = [part for part in range(1, parts + 1) if (part, parts) not in finished]
    if missing:
        half = any(half and part in missing for part, _, half in found)
        few = ", ".join(map(str, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        of = f"shard {few} of {parts} is" if parts > 1 else "it is"
        raise InputError(f"{folder}: {of} {'unfinished; go on with chex-prep --resume' if half else 'missing'}")
    return Pack(folder, [_Part(folder, (part, parts)) for part in range(1, parts + 1)])


class Pack:
    """Images and their records, in the order of the list that they came from.

    size: side of the images in pixels.
    records: as chex-prep wrote them, with "pack", this folder.
    arrays: one uint8 [n, size, size] per shard, mapped read-only; `read` and `take` are the checked ways in.
    """

    def __init__(self, folder: str, parts: Sequence[_Part]):
        settings = [{k: v for k, v in part.header.items() if k != "shard"} for part in parts]
        if any(s != settings[0] for s in settings):
            raise InputError(f"{folder}: shards of different size, or made by different versions of Pillow")
        self.folder = folder
        self.size: int = settings[0]["size"]
        self.arrays = [part.array() for part in parts]
        places = sorted((e["at"], p, e["row"]) for p, part in enumerate(parts) for e in part.entries)
        self._place = np.array([place[1:] for place in places], np.int64).reshape(-1, 2)
        self._crc = [np.array([e["crc32"] for e in part.entries], np.uint32) for part in parts]
        self._unchecked = [np.ones(len(crc), bool) for crc in self._crc]
        self.records = [parts[p].entries[row]["record"] | {"pack": folder} for _, p, row in places]

    def __len__(self) -> int:
        return len(self.records)

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {record["id"]: row for row, record in enumerate(self.records)}

    def row(self, identifier: str) -> int:
        """Which image has this id. Raises InputError if none has."""
        try:
            return self._rows[identifier]
        except KeyError:
            raise InputError(f"{self.folder}: the pack does not hold {identifier!r}") from None

    def read(self, row: int) -> np.ndarray:
        """One image: uint8 [size, size], mapped. Raises InputError if it is damaged, which is checked once each."""
        part, at = self._place[row]
        image = self.arrays[part][at]
        if self._unchecked[part][at]:
            if zlib.crc32(image) != self._crc[part][at]:
                raise InputError(f"{self.folder}: the image of {self.records[row]['id']} is damaged (checksum)")
            self._unchecked[part][at] = False
        return image

    def take(self, rows: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Some images: uint8 [n, size, size], copied, into `out` where it is given."""
        if out is None:
            out = np.empty((len(rows), self.size, self.size), np.uint8)
        for k, row in enumerate(rows):
            out[k] = self.read(row)
        return out


class Writer:
    """One shard of a pack being made; `with` closes it. What was added stays, and `finish` makes it a pack.

    done: by id, where in the index the entries of images are that need not be decoded again; `entry` reads one.

    Raises InputError where the folder holds this shard already, unless `force` replaces or `resume` continues it, and
    where it holds a pack of another kind.
    """

    def __init__(
        self, folder: str, size: int, shard: tuple[int, int] = (1, 1), force: bool = False, resume: bool = False
    ):
        self.part = _Part(files.make_folder(folder), shard, read=False)
        self.size = size
        self.header: dict = {"pack": VERSION, "size": size, "shard": list(shard), "decoder": _decoder()}
        self._refuse_strangers(folder, shard)
        self.finished = self.part.index.exists()
        if not (force or resume):
            if self.finished:
                raise InputError(f"{folder}: holds a pack; --resume continues it, --force replaces it")
            if self.part.half_index.exists():
                raise InputError(f"{folder}: holds an unfinished pack; --resume continues it, --force replaces it")
        self._streams: tuple[BinaryIO, BinaryIO] | None = None  # index and data
        self._crc = self._end = 0
        self.done: dict[str, tuple[int, int]] = {}
        if resume and self.finished:
            self._open_finished()
        else:
            self.finished = False
            self._start(resume)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams or ():
            stream.close()

    @property
    def _index(self) -> BinaryIO:
        assert self._streams is not None
        return self._streams[0]

    @property
    def _data(self) -> BinaryIO:
        assert self._streams is not None
        return self._streams[1]

    def entry(self, identifier: str) -> dict | None:
        """What the index says of an image, None for one that is not in it."""
        if identifier not in self.done:
            return None
        offset, length = self.done[identifier]
        return json.loads(os.pread(self._index.fileno(), length, offset))

    def add(self, at: int, record: dict, image: np.ndarray) -> None:
        """Append an image, uint8 [size, size], of the record that stands at `at` in its list."""
        if self.finished:
            self._reopen()
        start = self._end
        try:
            data = np.ascontiguousarray(image).data
            self._data.write(data)
            self._data.flush()  # before the index says so
            self._write({"row": len(self.done), "at": at, "crc32": zlib.crc32(data), "record": record})
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.part.data)) from None
        self.done[record["id"]] = start, self._end - start

    def finish(self) -> None:
        """Make it a pack: both files on the disk, then their names, the index last."""
        if self.finished:
            return
        self._write({"images": len(self.done), "crc32": self._crc})
        for stream in (self._data, self._index):
            os.fsync(stream.fileno())
        self.part.index.unlink(missing_ok=True)
        os.replace(self.part.half_data, self.part.data)
        os.replace(self.part.half_index, self.part.index)
        self.finished = True

    def _write(self, value: dict) -> None:
        line = jsontext.dumps(value).encode("ascii") + b"\n"
        self._index.write(line)
        self._index.flush()
        self._crc = zlib.crc32(line, self._crc)
        self._end += len(line)

    def _refuse_strangers(self, folder: str, shard: tuple[int, int]) -> None:
        others = sorted({parts for _, parts, _ in _indexes(folder)} - {shard[1]})
        if others:
            raise InputError(f"{folder}: holds a pack in {others[0]} shards; this one would be in {shard[1]}")

    def _check_header(self, found: dict) -> None:
        for key, what in (("size", "size"), ("decoder", "decoder"), ("pack", "version")):
            if found.get(key) != self.header[key]:
                raise InputError(
                    f"{self.part.folder}: was packed with {what} {found.get(key)}, not {self.header[key]}; "
                    "--force replaces it"
                )

    def _start(self, resume: bool) -> None:
        """Open both halves, cut back to what is whole in them; a new pack is whole up to nothing."""
        part = self.part
        with contextlib.suppress(FileNotFoundError):
            if resume and part.half_index.exists() and not part.half_data.exists():
                os.replace(part.data, part.half_data)  # killed between the two renames
        self._streams = _appending(part.half_index), _appending(part.half_data)
        _lock(self._index, part.folder)
        self._crc = self._end = 0
        self.done = {}
        if resume:
            self._keep_whole()
        self._index.truncate(self._end)
        self._data.truncate(len(self.done) * self.header["size"] ** 2)
        for stream in (self._index, self._data):
            stream.seek(0, os.SEEK_END)
        if not self._end:
            self._write(self.header)

    def _keep_whole(self) -> None:
        """Take over the rows that are complete and whose images are."""
        area = self.header["size"] ** 2
        self._index.seek(0)
        self._data.seek(0)
        for line in self._index:
            try:
                entry = jsontext.loads(line)
                if not line.endswith(b"\n") or not isinstance(entry, dict) or "images" in entry:
                    break
                if self._end:
                    entry = _checked_entry(entry)
            except InputError:
                break
            if not self._end:
                self._check_header(entry)
            else:
                image = self._data.read(area)
                if len(image) < area or zlib.crc32(image) != entry["crc32"]:
                    break
                self.done[entry["record"]["id"]] = self._end, len(line)
            self._end += len(line)
            self._crc = zlib.crc32(line, self._crc)

    def _open_finished(self) -> None:
        self.part.repair()
        self.part.load()
        self._check_header(self.part.header)
        self._streams = open(self.part.index, "rb"), open(self.part.data, "rb")
        offset = len(self._index.readline())
        for entry, line in zip(self.part.entries, self._index):
            self.done[entry["record"]["id"]] = offset, len(line)
            offset += len(line)
        self.part.entries = []

    def _reopen(self) -> None:
        """A finished pack to which images are added is unfinished again."""
        for stream in self._streams or ():
            stream.close()
        os.replace(self.part.data, self.part.half_data)
        os.replace(self.part.index, self.part.half_index)
        self.finished = False
        self._start(resume=True)


class _Part:
    """The two files of a shard, under their final and their unfinished names."""

    def __init__(self, folder: str | os.PathLike, shard: tuple[int, int], read: bool = True):
        self.folder = Path(folder)
        name = "{}-of-{}".format(*shard)
        self.data, self.index = self.folder / f"images-{name}.u8", self.folder / f"index-{name}.jsonl"
        self.half_data, self.half_index = (path.with_name(path.name + _PART) for path in (self.data, self.index))
        self.shard = shard
        self.header: dict = {}
        self.entries: list[dict] = []
        if read:
            self.load()

    def repair(self) -> None:
        """Undo the first half of reopening: a finished index whose data are named as unfinished."""
        if self.index.exists() and not self.data.exists() and self.half_data.exists():
            os.replace(self.half_data, self.data)

    def load(self) -> None:
        """Read the index. Raises InputError unless it is whole and the data have the size it says."""
        try:
            for path in (self.index, self.data):
                if not stat.S_ISREG(path.stat().st_mode):
                    raise InputError(f"{path}: not a regular file")
            text = self.index.read_bytes()
            size = self.data.stat().st_size
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}") from None
        body, last = text[: text.rfind(b"\n", 0, -1) + 1], text[text.rfind(b"\n", 0, -1) + 1 :]
        try:
            footer = jsontext.loads(last)
            if not isinstance(footer, dict) or footer.get("crc32") != zlib.crc32(body):
                raise InputError("checksum")
            head, *entries = map(jsontext.loads, body.splitlines())
            self.header = _checked_header(head)
            if self.header["shard"] != list(self.shard):
                raise InputError("another shard")
            self.entries = [_checked_entry(entry) for entry in entries]
            if sorted(entry["row"] for entry in self.entries) != list(range(len(self.entries))):
                raise InputError("rows that are not those of its images")
        except (InputError, ValueError) as error:
            said = error if isinstance(error, InputError) else "not an index"
            raise InputError(f"{self.index}: damaged ({said})") from None
        side = self.header["size"]
        if len(self.entries) != footer.get("images") or size != len(self.entries) * side**2:
            raise InputError(f"{self.data}: {size} bytes, but the index says {len(self.entries)} x {side} x {side}")

    def array(self) -> np.ndarray:
        shape = (len(self.entries), self.header["size"], self.header["size"])
        return np.memmap(self.data, np.uint8, "r", shape=shape) if self.entries else np.empty(shape, np.uint8)


def _checked_header(value: object) -> dict:
    """The first line of an index. Raises InputError unless it can be one."""
    if not isinstance(value, dict) or value.get("pack") != VERSION:
        raise InputError("another version")
    if not _is_whole(value.get("size"), 1, MAX_SIDE):
        raise InputError('no usable "size"')
    if not isinstance(value.get("shard"), list):
        raise InputError('no usable "shard"')
    return value


def _checked_entry(value: object) -> dict:
    """The line of an image, its record checked as any other. Raises InputError."""
    if not isinstance(value, dict):
        raise InputError("an entry is not an object")
    for key, most in (("row", 2**40), ("at", 2**60), ("crc32", 2**32 - 1)):
        if not _is_whole(value.get(key), 0, most):
            raise InputError(f'an entry without a usable "{key}"')
    value["record"] = records.checked(value.get("record"))
    return value


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


@functools.lru_cache(maxsize=8)
def _opened(folder: str, _absolute: str) -> Pack:
    return open_pack(folder)


def _indexes(folder: str | os.PathLike) -> Iterator[tuple[int, int, bool]]:
    """(part, parts, whether it is unfinished) of the indexes in a folder."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    for name in sorted(names):
        if found := _INDEX.fullmatch(name):
            yield int(found[1]), int(found[2]), found[3] is not None


def _appending(path: Path) -> BinaryIO:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _lock(stream: BinaryIO, folder: Path) -> None:
    """Keep a second run out; where the file system has no locks, users must."""
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder}: another chex-prep is packing here") from None
    except OSError:
        pass


def _decoder() -> str:
    """What decided the bytes: another one may round otherwise."""
    return f"pillow {PIL.__version__}, jpeg {features.version('jpg')}"
