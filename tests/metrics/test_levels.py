"""Do tests keep their level and intervals their coverage where CXRs are few? Light here; the whole by

    python tests/metrics/test_levels.py [DATASETS]

which prints a line per kind of data and number of CXRs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from chextools.metrics import regression  # noqa: E402  the checkout's, whatever is installed
from chextools.metrics.paired import Clusters, differences, holm  # noqa: E402

Pair = tuple[np.ndarray, np.ndarray]


def ious(random: np.random.Generator, n: int, shapes: tuple = ((2, 3), (2, 3))) -> Pair:
    """IoU-like values of two methods that find the same CXRs hard."""
    hard = random.beta(2, 2, n)
    return tuple(np.clip(random.beta(a, b, n) / 2 + hard * a / (a + b), 0, 1) for a, b in shapes)


def skewed(random: np.random.Generator, n: int) -> Pair:
    """IoU-like values most of which are near 0."""
    return ious(random, n, ((0.3, 2), (0.3, 2)))


def worse(random: np.random.Generator, n: int) -> Pair:
    """IoU-like values of which one is lower and skewed."""
    return ious(random, n, ((0.5, 3), (3, 3)))


def misses(random: np.random.Generator, n: int) -> Pair:
    """IoU-like values many of which are 0, of one side more than of the other."""
    return random.beta(2, 3, n) * (random.random(n) < 0.5), random.beta(2, 3, n) * (random.random(n) < 0.85)


def hits(random: np.random.Generator, n: int, rates: tuple = (0.5, 0.5), agreeing: float = 0.0) -> Pair:
    """Hits and misses of two methods, some of which agree."""
    u = random.random(n)
    v = np.where(random.random(n) < agreeing, u, random.random(n))
    return (u < rates[0]).astype(float), (v < rates[1]).astype(float)


def unlike_hits(random: np.random.Generator, n: int) -> Pair:
    return hits(random, n, (0.5, 0.7), 0.3)


EQUAL = (ious, skewed, hits)  # no difference: for levels
ALL = (*EQUAL, worse, misses, unlike_hits)


def simulated(make: Callable[..., Pair], n: int, datasets: int, seed: int = 0) -> dict[str, float]:
    """Shares of data sets in which p < 0.05, and in which the interval holds the truth."""
    random = np.random.default_rng(seed)
    pred, ref = make(random, 1_000_000)
    true, decrease = pred.mean() - ref.mean(), 100 * (1 - pred.mean() / ref.mean())
    counts = np.zeros(3)
    for number in range(datasets):
        pair = (side[:, None] for side in make(random, n))
        found = differences(*pair, Clusters.of_rows(n), number)[0]
        lower, upper = found.interval()
        counts += (
            found.p < 0.05,
            lower <= true <= upper,
            not (decrease < found.decrease[1] or decrease > found.decrease[2]),
        )
    return dict(zip(("level", "coverage", "decrease"), (counts / datasets).tolist()))


def family_wise(n: int, tasks: int, datasets: int, seed: int = 0) -> float:
    """The share of data sets without a difference in which any of the tasks has p_holm < 0.05."""
    random = np.random.default_rng(seed)
    wrong = 0
    for number in range(datasets):
        pred, ref = (np.stack(sides, axis=1) for sides in zip(*(ious(random, n) for _ in range(tasks))))
        found = differences(pred, ref, Clusters.of_rows(n), number)[:-1]
        wrong += min(holm([each.p for each in found])) < 0.05
    return wrong / datasets


def slopes_found(patients: int, datasets: int, seed: int = 0) -> float:
    """The share of data sets without a slope in which the joint regression has p < 0.05; one patient has many CXRs."""
    random = np.random.default_rng(seed)
    wrong = total = 0
    for _ in range(datasets):
        sizes = random.integers(1, 6, patients)
        sizes[0] = max(10, patients)
        number = np.repeat(np.arange(patients), sizes)
        x = np.exp(random.normal(size=(patients, 3))[number] * 0.7 + random.normal(size=(len(number), 3)) * 0.7)
        y = random.normal(size=patients)[number] + random.normal(size=len(number))
        fits = regression.joint(x, y, [f"p{k}" for k in number])[2]
        wrong += sum(fit.p < 0.05 for fit in fits)
        total += len(fits)
    return wrong / total


# Light: 400 data sets have a standard error of 1.1%, so that these bounds are about three of them away.


@pytest.mark.parametrize("n", [8, 10, 14])
def test_levels_are_held(n):
    for make in EQUAL:
        level = simulated(make, n, 400)["level"]
        assert level < 0.085 and (make is hits or level > 0.02), make.__name__


@pytest.mark.parametrize("n", [10, 14])
def test_intervals_cover(n):
    for make in ALL:
        found = simulated(make, n, 400)
        assert found["coverage"] > 0.9 and found["decrease"] > 0.88, make.__name__


def test_a_family_of_ten_tasks_is_held():
    assert family_wise(10, 10, 200) < 0.1


def test_regression_by_patient_is_held():
    assert slopes_found(12, 300) < 0.085


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for make in ALL:
        for n in (8, 10, 15, 30):
            shown = {key: value for key, value in simulated(make, n, count).items() if key != "level" or make in EQUAL}
            print(
                f"{make.__name__:12} n={n:3} ",
                *(f"{key} {100 * value:5.1f}%" for key, value in shown.items()),
                flush=True,
            )
    for n in (10, 30):
        print(f"family of ten tasks, n={n}: {100 * family_wise(n, 10, count // 2):.1f}%", flush=True)
    for patients in (8, 12, 20, 40):
        print(f"joint regression, {patients} patients: {100 * slopes_found(patients, count):.1f}%", flush=True)
