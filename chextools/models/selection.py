"""The checkpoints that a command was given, one after the other, and which of their tasks it is for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from chextools.errors import InputError
from chextools.models import checkpoints
from chextools.models.checkpoints import Checkpoint
from chextools.tasks import choose, study_order


def loaded(chosen: Mapping[str, Collection[str] | None]) -> Iterator[tuple[str, Checkpoint, list[str]]]:
    """(path, checkpoint, tasks that it counts for, in its own order) of each that `checkpoints.select` has chosen.

    Raises InputError in one line for what cannot be loaded, and for a task that an ensemble names and it lacks.
    """
    for path, wanted in chosen.items():
        checkpoint = checkpoints.load(path)
        if absent := [task for task in wanted or () if task not in checkpoint.tasks]:
            raise InputError(f"{path}: has no task {absent[0]!r}, of which an ensemble names it")
        yield path, checkpoint, [task for task in checkpoint.tasks if wanted is None or task in wanted]


def tasks(requested: Sequence[str], available: Collection[str], where: str) -> list[str]:
    """The requested tasks in the study's order, all of `available` where none is. Raises InputError for an absent one.

    where: what has them, for the message.
    """
    found = choose(requested, available, where)
    if absent := [task for task in found if task not in available]:
        raise InputError(f"{where}: no task {absent[0]!r}; it has {', '.join(study_order(available))}")
    return found
