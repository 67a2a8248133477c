"""Output files that are complete as soon as they exist."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from chextools.errors import InputError

_MARK = ".chextmp-"
_DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd|/dev/fd")
_MOST_LINKS = 40  # as the kernel follows
_OF_ALL_FILES = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_STALE_SECONDS = 24 * 3600  # another host's temporary may still be in use; after a day it is not


@contextlib.contextmanager
def atomic(path: str | os.PathLike, force: bool = False, sync: bool = False, clean: bool = True) -> Iterator[BinaryIO]:
    """Open `path` for writing; it comes into being, whole, when the block ends without an error.

    Bytes go to a temporary file in the same folder, which is then renamed: this holds after kill -9 and on NFS.
    A target that is no regular file (a FIFO), or open already (/dev/stdout), is written through. Modes follow the
    umask; a symbolic link keeps pointing where it did. What killed runs left of this file is removed first, unless
    `clean` is False, for many files in one folder: `remove_stale` does it once for all of them.

    Raises InputError if the file exists and `force` is not given, or if it cannot be written there; OSError where no
    other of many files can be either, as their folder has gone or the disk is full.
    """
    target, special = Path(os.path.realpath(path)), _is_special(path)
    if clean or target.parent.is_dir():
        _check(path, target, special, force)
    if special:
        try:
            with open(path, "ab") as stream:  # what a shell has open, say for `>>`, is not cut
                yield stream
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        return
    if clean:
        remove_stale(target.parent, target.name)
    temporary = target.with_name(f".{target.name[:100]}{_MARK}{os.uname().nodename}-{os.getpid()}")
    try:
        try:
            with open(temporary, "xb") as stream:
                yield stream
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
            if force or not _linked(temporary, target):
                os.replace(temporary, target)
        except FileExistsError:
            raise InputError(f"{path}: exists; use --force to replace it") from None
        except OSError as error:
            if error.filename not in (None, str(temporary), str(target)):
                raise  # not about this file
            if not clean and error.errno in _OF_ALL_FILES:
                raise OSError(error.errno, error.strerror, str(target.parent)) from None
            raise InputError(f"{path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: str | os.PathLike, force: bool = False) -> None:
    """Raise InputError unless a file can be made at `path`: what can be known before hours of work."""
    _check(path, Path(os.path.realpath(path)), _is_special(path), force)


def _check(path: str | os.PathLike, target: Path, special: bool, force: bool) -> None:
    """target: what the path leads to."""
    if special:
        return
    if target.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist; mkdir -p makes it")
    if target.exists() and not force:
        raise InputError(f"{path}: exists; use --force to replace it")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write in {target.parent}")


def check_targets(paths: Iterable[str | None], force: bool = False) -> None:
    """`check_target` of each path that is given. Raises InputError, too, if two name one file."""
    seen = set()
    for path in filter(None, paths):
        check_target(path, force)
        target = os.path.realpath(path)
        if target in seen and not _is_special(path):
            raise InputError(f"{path}: named for two outputs")
        seen.add(target)


def make_folder(path: str | os.PathLike) -> Path:
    """The output folder, made where it does not exist. Raises InputError if it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return Path(path)


def check_folder(path: str | os.PathLike) -> Path:
    """`make_folder`, if files can be made in it."""
    folder = make_folder(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write there")
    return folder


def walk(root: Path, passed_over: list[str] | None = None) -> Iterator[Path]:
    """Files below a folder, in an order that does not depend on the disk; a pipe, socket or device is none.

    passed_over: a list that takes the names of those that do not count, as they are met.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}") from None

    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_tmp")))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith((".", "_tmp")) and not _is_special(path):
                yield path
            elif passed_over is not None:
                passed_over.append(name)


def _linked(temporary: Path, target: Path) -> bool:
    """Give the file its name, unless somebody has taken it meanwhile (FileExistsError), which rename would not see.

    False where the file system has no hard links.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _is_special(path: str | os.PathLike) -> bool:
    """A device, pipe or socket, or a name such as /dev/stdout for whatever is open there: to be written through."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _is_open(os.fspath(path))


def _is_open(path: str) -> bool:
    """Whether the name leads, link by link, to one of a process's open files."""
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(path) or ".")
        if _DESCRIPTORS.fullmatch(folder):
            return True
        try:
            path = os.path.join(folder, os.readlink(os.path.join(folder, os.path.basename(path))))
        except OSError:
            return False
    return False


def remove_stale(folder: str | os.PathLike, name: str | None = None) -> None:
    """Remove what killed runs left of a file in a folder, or of any: their process is gone, or it is a day old."""
    prefix = "." if name is None else f".{name[:100]}{_MARK}"
    with contextlib.suppress(OSError):
        for entry in os.scandir(os.fspath(folder)):
            _, mark, owner = entry.name.rpartition(_MARK)
            if mark and entry.name.startswith(prefix) and _is_stale(entry, owner):
                os.unlink(entry.path)


def _is_stale(entry: os.DirEntry, owner: str) -> bool:
    host, _, process = owner.rpartition("-")
    if host == os.uname().nodename and process.isdigit() and int(process) != os.getpid() and _has_ended(int(process)):
        return True
    return time.time() - entry.stat().st_mtime > _STALE_SECONDS


def _has_ended(process: int) -> bool:
    """Whether a process of this host writes no more, also where nobody has asked yet how it ended (a zombie)."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    with contextlib.suppress(OSError), open(f"/proc/{process}/stat", "rb") as stream:
        return stream.read().rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])
    return False
