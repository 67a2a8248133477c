"""What a command knows of the pipeline it stands in, from /proc: which of our commands feed it, and are still at it."""

from __future__ import annotations

import os
import re
import stat

_MOST = 16  # commands in a row


def upstream() -> list[str]:
    """The names of our commands whose output reaches our stdin through pipes, nearest first; only those that live.

    They also write their messages where we do. Where there is no /proc, a pipe on stdin is "chex".
    """
    if not _is_pipe(0):
        return []
    if not os.path.isdir("/proc/self/fd"):
        return ["chex"]
    writers: dict[str, int] = {}
    for pid in _group():
        if target := _target(pid, 1):
            writers.setdefault(target, pid)
    found: list[str] = []
    pid = os.getpid()
    ours = _target(pid, 2)
    while len(found) < _MOST and (writer := writers.pop(_target(pid, 0), None)):
        pid = writer
        if (name := _name(pid)) and _target(pid, 2) == ours:
            found.append(name)
    return found


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _group() -> list[int]:
    """The other processes of our process group: a pipeline in a terminal, or all that a script has started."""
    group, own = os.getpgrp(), os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            try:
                if os.getpgid(int(name)) == group:
                    found.append(int(name))
            except OSError:
                continue
    return found


def _target(pid: int, descriptor: int) -> str:
    """What a process's file is, such as pipe:[123]; nothing where we may not know."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return ""


def _name(pid: int) -> str:
    """The command that a process runs, if it is one of ours."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read(4096).split(b"\0")[:3]
    except OSError:
        return ""
    names = (re.fullmatch(rb"(?:.*/)?(chex-[a-z]+)", word) for word in words)
    return next((name[1].decode() for name in names if name), "")
