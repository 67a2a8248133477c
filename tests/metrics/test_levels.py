"""Do tests keep their level and intervals their coverage where CXRs are few? Light here; the whole by

    python tests/metrics/test_levels.py [DATASETS]

which prints a line per kind of data and number of CXRs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from chextools.metrics import paired, regression  # noqa: E402  the checkout's, whatever is installed
from chextools.metrics.delong import auroc_components, auroc_error, auroc_freedom  # noqa: E402
from chextools.metrics.paired import Clusters, differences, holm  # noqa: E402
from chextools.metrics.student import upper_tail  # noqa: E402

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


def mostly_misses(random: np.random.Generator, n: int) -> Pair:
    """IoU-like values, half of either side's 0, so that a quarter of CXRs do not differ."""
    return tuple(random.beta(2, 3, n) * (random.random(n) < 0.5) for _ in range(2))


def hits(random: np.random.Generator, n: int, rates: tuple = (0.5, 0.5), agreeing: float = 0.0) -> Pair:
    """Hits and misses of two methods, some of which agree."""
    u = random.random(n)
    v = np.where(random.random(n) < agreeing, u, random.random(n))
    return (u < rates[0]).astype(float), (v < rates[1]).astype(float)


def unlike_hits(random: np.random.Generator, n: int) -> Pair:
    return hits(random, n, (0.5, 0.7), 0.3)


def alike_hits(random: np.random.Generator, n: int) -> Pair:
    return hits(random, n, (0.6, 0.6), 0.2)


EQUAL = (ious, skewed, mostly_misses, hits, alike_hits)  # no difference: for levels
ALL = (*EQUAL, worse, misses, unlike_hits)


def drawn(make: Callable[..., Pair], n: int, datasets: int, seed: int = 0) -> list[np.ndarray]:
    """Both sides of many data sets, [n, datasets]."""
    random = np.random.default_rng(seed)
    return [np.stack(sides, axis=1) for sides in zip(*(make(random, n) for _ in range(datasets)))]


def level(make: Callable[..., Pair], n: int, datasets: int, seed: int = 0) -> float:
    """The share of data sets, without a difference, in which p < 0.05."""
    pred, ref = drawn(make, n, datasets, seed)
    is_binary = set(np.unique([pred, ref])) <= {0, 1}
    return float(np.mean(paired.sign_flip(pred - ref, seed, is_binary)[0] < 0.05))


@lru_cache
def true_means(make: Callable[..., Pair]) -> tuple[float, float]:
    pred, ref = make(np.random.default_rng(0), 1_000_000)
    return float(pred.mean()), float(ref.mean())


def simulated(make: Callable[..., Pair], n: int, datasets: int, seed: int = 0, alone: int = 0) -> dict[str, float]:
    """Shares of data sets in which the intervals hold the true difference and percentage.

    alone: CXRs of the n that only one side has, as many on either.
    """
    pred, ref = true_means(make)
    true, decrease = pred - ref, 100 * (1 - pred / ref)
    sides = drawn(make, n, datasets, seed)
    sides[0][:alone] = sides[1][n - alone :] = np.nan
    found = differences(*sides, Clusters.of_rows(n))[:-1]
    lower, upper = np.array([each.interval() for each in found]).T
    _, least, most = np.array([each.decrease for each in found]).T
    misses = (decrease < least) | (decrease > most)  # where a side is 0 throughout there is no interval, and no miss
    return {"coverage": float(np.mean((lower <= true) & (true <= upper))), "decrease": 1 - float(np.mean(misses))}


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


def auroc_level(n: int, positives: int, area: float, datasets: int, spread: float = 1.0, seed: int = 0) -> float:
    """The share of data sets in which two models of one AUROC, whose scores correlate by a half, have p < 0.05.

    spread: how much more the other model's scores of positives do.
    """
    random = np.random.default_rng(seed)
    positive = np.arange(n) < positives
    wrong = 0
    for _ in range(datasets):
        shared, parts = random.normal(size=n), []
        for much in (1.0, spread):
            apart = NormalDist().inv_cdf(area) * math.sqrt(1 + much**2)
            noise = (shared + random.normal(size=n)) / 2**0.5
            parts.append(auroc_components(np.where(positive, apart + much * noise, noise), positive))
        added, clusters = parts[0][1] - parts[1][1], Clusters.of_rows(n)
        error = auroc_error(added, clusters)
        freedom = auroc_freedom(added[:, None], positive[:, None], clusters)
        wrong += error > 1e-12 and 2 * upper_tail(abs(parts[0][0] - parts[1][0]) / error, freedom) < 0.05
    return wrong / datasets


# Light: 2000 data sets have a standard error of half a percent, 400 of 1.1%; bounds are about three of them away.


@pytest.mark.parametrize("n", [8, 10, 14])
def test_levels_are_held(n):
    for make in EQUAL:
        least = 0.02 if make is alike_hits else 0.03  # of which few of 8 CXRs differ: see level_of_hits
        assert least < level(make, n, 2000) < 0.065, make.__name__


def level_of_hits(n: int, share: np.ndarray) -> np.ndarray:
    """How often p < 0.05 of n CXRs without a difference, by the share that one side alone hits: nothing is drawn."""
    rejected = np.zeros(n + 1)  # given how many differ
    for m in range(1, n + 1):
        columns = np.zeros((n, m + 1))
        for b in range(m + 1):
            columns[:b, b], columns[b:m, b] = 1, -1
        ways = [math.comb(m, b) / 2**m for b in range(m + 1)]
        rejected[m] = ways @ (paired.sign_flip(columns, is_binary=True)[0] < 0.05)
    return sum(math.comb(n, m) * share**m * (1 - share) ** (n - m) * rejected[m] for m in range(n + 1))


def test_of_hits_the_level_is_counted():
    """Between 4 and 6% where half of the CXRs differ, as of two methods that hit every second; never more than 6%."""
    for n in (4, 5, 6, 7, 8, 10, 12, 14):
        levels = level_of_hits(n, np.linspace(0, 1, 101))
        assert levels.max() < 0.06
        assert n < 8 or 0.043 < levels[50]


@pytest.mark.parametrize("n", [10, 14])
def test_intervals_cover(n):
    for make in ALL:
        found = simulated(make, n, 400)
        assert found["coverage"] > 0.9 and found["decrease"] > 0.88, make.__name__


def test_intervals_cover_where_each_side_has_cxrs_of_its_own():
    """The percentage is of each side's mean over its own CXRs, the difference over those that both have."""
    for make in (ious, skewed, worse, misses):
        found = simulated(make, 40, 400, alone=15)
        assert found["coverage"] > 0.9 and found["decrease"] > 0.91, (make.__name__, found)


def test_a_family_of_ten_tasks_is_held():
    assert family_wise(10, 10, 200) < 0.1


def test_regression_by_patient_is_held():
    assert 0.005 < slopes_found(12, 300) < 0.06


@pytest.mark.parametrize(("n", "positives", "least", "most"), [(20, 5, 0.01, 0.06), (50, 25, 0.02, 0.07)])
def test_auroc_is_held(n, positives, least, most):
    assert least < auroc_level(n, positives, 0.7, 600) < most


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for make in ALL:
        for n in (8, 10, 15, 30):
            shown = ({"level": level(make, n, count)} if make in EQUAL else {}) | simulated(make, n, count)
            print(
                f"{make.__name__:12} n={n:3} ",
                *(f"{key} {100 * value:5.1f}%" for key, value in shown.items()),
                flush=True,
            )
    for n in (10, 30):
        print(f"family of ten tasks, n={n}: {100 * family_wise(n, 10, count // 2):.1f}%", flush=True)
    for n in (8, 10, 15, 30):
        shares = level_of_hits(n, np.linspace(0, 1, 101))
        print(
            f"hits, counted, n={n}: half differ {100 * shares[50]:.1f}%, at most {100 * shares.max():.1f}%", flush=True
        )
    for patients in (8, 12, 20, 40):
        print(f"joint regression, {patients} patients: {100 * slopes_found(patients, count):.1f}%", flush=True)
    for n, positives in ((20, 2), (20, 3), (20, 5), (20, 10), (50, 5), (50, 25), (100, 10), (100, 50)):
        for spread in (1.0, 2.0):
            found = (auroc_level(n, positives, area, count, spread) for area in (0.7, 0.85, 0.95))
            levels = ", ".join(f"{100 * one:.1f}%" for one in found)
            print(f"AUROC of 0.7, 0.85 and 0.95, n={n}, {positives} positive, spread {spread:g}: {levels}", flush=True)
