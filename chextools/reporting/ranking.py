"""A leaderboard: runs ranked by the mean over tasks of a metric, with what their intervals allow to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a run stands by one metric.

    rank: 1 for the greatest mean, equal for equal means; None for what is not ranked, such as a human benchmark.
    overlaps: whether its interval overlaps with that of the first; None for the first, also where several share that
    place, and where one has no interval.
    """

    mean: float | None
    lower: float | None
    upper: float | None
    rank: int | None = None
    overlaps: bool | None = None


def places(means: Sequence[tuple[float | None, float | None, float | None]], ranked: Sequence[bool]) -> list[Place]:
    """The places of runs, each with its (mean, lower, upper); `ranked` says which take part."""
    takes_part = [is_ranked and mean is not None for (mean, _, _), is_ranked in zip(means, ranked)]
    known = (mean for (mean, _, _), takes in zip(means, takes_part) if takes and mean is not None)
    order = sorted(known, reverse=True)
    first = next((k for k, takes in enumerate(takes_part) if takes and means[k][0] == order[0]), None)
    return [
        Place(
            *interval,
            order.index(interval[0]) + 1 if takes and interval[0] is not None else None,
            None if first is None or (takes and interval[0] == order[0]) else overlap(interval, means[first]),
        )
        for k, (interval, takes) in enumerate(zip(means, takes_part))
    ]


def overlap(one: Sequence[float | None], other: Sequence[float | None]) -> bool | None:
    """Whether two (mean, lower, upper) share a value; None where a bound is undefined."""
    known = [value for value in (*one, *other) if value is not None]
    return known[1] <= known[5] and known[4] <= known[2] if len(known) == 6 else None
