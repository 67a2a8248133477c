"""Counting what passes and what fails, as every command does it: a caller may listen, the library prints nothing."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator

from chextools.errors import InputError
from chextools.records.records import Failure, Located

log = logging.getLogger(__name__)

_ABSENT = os.strerror(errno.ENOENT)
_ONCE = {"once": True}  # said by one command of a pipeline
_NAMED = 3  # absent files that are named; of a set that is elsewhere all are absent


def unseen(items: Iterable, _unit: str) -> Iterable:
    """Progress that nobody watches."""
    return items


class Tally:
    """Passes records on, logs which failed, and counts both.

    fail_fast: raise InputError at the first failure. progress: passes items on and shows it to whoever waits, with a
    word for what they are; items that have a length are so many, others about as many as the inputs hold records.
    A heatmap's flags are no failures: each is logged for who wants to know all, and at the end how many there were.
    seen, failed, skipped: items so far, those that failed at least in part, and those of them of which nothing came
    through.
    """

    def __init__(self, fail_fast: bool = False, progress: Callable[[Iterable, str], Iterable] = unseen):
        self.fail_fast, self.progress = fail_fast, progress
        self.seen = self.failed = self.skipped = self.absent = 0
        self._flagged: dict[str, tuple[str, int]] = {}  # by flag: where the first was, and how many

    def passing(self, items: Iterable[Located | Failure]) -> Iterator[dict]:
        """The records among the items. A record with failed tasks passes, and counts as failed."""
        for item in items:
            self.seen += 1
            if isinstance(item, Failure):
                self.absent += _ABSENT in item.reason
                problems = [f"{item.where}: {item.reason}; skipped"]
                self.skipped += 1
            else:
                problems = [f"{item.where}: {task}: {why}" for task, why in item.record.get("failed", {}).items()]
                for task, flag in item.record.get("flags", {}).items():
                    log.info("%s: %s: the heatmap is %s", item.where, task, flag, extra=_ONCE)
                    first, count = self._flagged.get(flag, (f"{item.where}: {task}", 0))
                    self._flagged[flag] = first, count + 1
            for problem in problems:
                if not (_ABSENT in problem and self.absent > _NAMED):
                    log.warning("%s", problem)
            if problems:
                self.failed += 1
                if self.fail_fast:
                    raise InputError(f"stopped at the first failure (--fail-fast), after {self.seen - 1} records")
            if not isinstance(item, Failure):
                yield item.record

    def take(self, failures: Iterable[Located | Failure]) -> None:
        """Count failures that stand alone."""
        for _ in self.passing(failures):
            pass

    def finish(self) -> None:
        """Raise InputError if any record failed."""
        if self.absent > _NAMED:
            log.warning("%d files are absent, of which the first %d are named", self.absent, _NAMED)
        for flag, (first, count) in self._flagged.items():
            if count == 1:
                log.warning("%s: the heatmap is %s", first, flag, extra=_ONCE)
            else:
                log.warning("%d heatmaps are %s, the first: %s; -v names each", count, flag, first, extra=_ONCE)
        if self.failed:
            raise InputError(f"{self.failed} of {self.seen} records failed")
