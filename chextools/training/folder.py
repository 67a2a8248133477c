"""The folder of a run: its options, its checkpoints, ranked, and the state from which it goes on.

    config.json       every option
    step-000230.pt    checkpoints: the best by the criterion
    best.pt, last.pt  copies of two of them
    ensemble.json     the best of them per task
    resume.pt         all that the next step depends on; small once the run is done

Files are written whole and to the disk, resume.pt last: what it knows of is there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from chextools.errors import InputError
from chextools.models import checkpoints
from chextools.plumbing import jsontext
from chextools.plumbing.files import atomic, make_folder

CONFIG, RESUME, BEST, LAST, ENSEMBLE = "config.json", "resume.pt", "best.pt", "last.pt", "ensemble.json"
STATE = "chextools training state 1"


class RunFolder:
    """One run's folder. `keep` checkpoints are kept, of which `ensemble` make up each task's ensemble.

    writes: whether this process writes to it; of several that share a run, one does.
    """

    def __init__(self, path: str | os.PathLike, keep: int, ensemble: int, writes: bool = True):
        self.path, self.keep, self.ensemble, self.writes = Path(path), keep, ensemble, writes
        self._lock: BinaryIO | None = None

    def start(self, config: Mapping) -> None:
        """Make the folder, with its config.json, and lock it."""
        if not self.writes:
            return
        check_new(self.path)
        make_folder(self.path)
        with atomic(self.path / CONFIG, sync=True) as stream:
            stream.write(json.dumps(config, indent=2).encode() + b"\n")
        self.lock()

    def lock(self) -> None:
        """Keep a second run out until `unlock`; where the file system has no locks, users must."""
        if not self.writes:
            return
        try:
            self._lock = open(self.path / CONFIG, "r+b")
            fcntl.flock(self._lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.path}: another chex-train is at work here") from None
        except OSError:
            pass

    def unlock(self) -> None:
        if self._lock:
            self._lock.close()

    def add(self, checkpoint: checkpoints.Checkpoint, ranked: list[dict], value: float | None) -> list[dict]:
        """Write a checkpoint where it is among the best by `value`, greater is better, and always as last.pt.

        ranked: the checkpoints there are, best first; returned with this one, those to be removed by `prune` too.
        """
        name = f"step-{checkpoint.step:06d}.pt"
        entry = {"name": name, "step": checkpoint.step, "value": value, "auroc": checkpoint.metrics.get("auroc", {})}
        ranked = sorted([*ranked, entry], key=_rank)
        names = [LAST]
        if entry in ranked[: self.keep]:
            names.append(name)
        if entry is ranked[0]:
            names.append(BEST)
        best = {
            task: [e["name"] for e in sorted(ranked[: self.keep], key=lambda e: _rank(e, task))[: self.ensemble]]
            for task in checkpoint.tasks
        }
        if self.writes:
            self._write(checkpoint, names)
            checkpoints.write_ensemble(self.path / ENSEMBLE, best)
        return ranked

    def _write(self, checkpoint: checkpoints.Checkpoint, names: Sequence[str]) -> None:
        import torch

        data = checkpoints.packed(checkpoints.content(checkpoint), torch)
        for name in names:
            with atomic(self.path / name, force=True, sync=True) as stream:
                stream.write(data)

    def prune(self, ranked: list[dict]) -> list[dict]:
        """Remove the checkpoints that are not among the best; those that are."""
        for entry in ranked[self.keep :] if self.writes else ():
            (self.path / entry["name"]).unlink(missing_ok=True)
        return ranked[: self.keep]

    def save(self, state: Mapping) -> None:
        """Write the state to go on from."""
        if not self.writes:
            return
        import torch

        data = checkpoints.packed({"format": STATE, **state}, torch)
        with atomic(self.path / RESUME, force=True, sync=True) as stream:
            stream.write(data)

    def load(self) -> dict | None:
        """The state to go on from; None where none was saved yet."""
        from chextools.models.weights import read

        path = self.path / RESUME
        if not path.exists():
            return None
        checkpoints.check_file(path)
        state = read(os.fspath(path))
        if state.get("format") != STATE:
            raise InputError(f"{path}: not a state of this version of chex-train")
        return state


def is_run(path: str | os.PathLike) -> bool:
    return (Path(path) / CONFIG).exists()


def check_new(path: str | os.PathLike) -> None:
    """Raise InputError unless a run can be made at `path`."""
    if is_run(path):
        raise InputError(f"{path}: holds a run; --resume goes on with it")
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{path}: is not a folder")
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write in {folder}")


def read_config(path: str | os.PathLike) -> dict:
    """The options of a config.json. Raises InputError if it cannot be read."""
    try:
        found = jsontext.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not the options of a run")
    return found


def _rank(entry: Mapping, task: str | None = None) -> tuple:
    """Sorts the greatest first, the earlier of equals; without a value, the later first."""
    value = entry["value"] if task is None else entry["auroc"].get(task)
    return (value is None, -(value or 0), entry["step"] if value is not None else -entry["step"])


def better(value: float | None, ranked: Sequence[Mapping]) -> bool:
    """Whether a value is above those of all checkpoints before."""
    return value is not None and all(e["value"] is None or value > e["value"] for e in ranked)
