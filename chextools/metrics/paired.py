"""Is a difference of two results on the same CXRs more than chance? Tests and intervals that hold where CXRs are few.

A result is a table [n, K] by CXR and task, NaN where undefined. Everything is by cluster: a CXR, or all of a patient's.
tests/metrics/test_levels.py simulates what is claimed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from chextools.metrics.bootstrap import UNWATCHED, moved
from chextools.metrics.student import quantile_975, upper_tail

MOST_EXACT = 14  # clusters whose signs are all tried, 2^14 ways
DRAWS = 100_000  # of signs, where there are more
MOST_DRAWN = 5_000  # clusters beyond which the sum of signs is as good as normal
_SLACK = 1e-12  # of sums, for rounding
_BLOCK = 1 << 22  # signs held at once
EXACT, MID_P, MCNEMAR = "sign-flip", "sign-flip mid-p", "McNemar"  # tests
_OF_TIES = {EXACT: 1.0, MID_P: 0.5}  # what ways count that are just as far as the data's
LEAST_ALIKE = 6  # clusters that differ alike: of fewer the sign-flip test rejects nothing
LEAST_NORMAL = 7  # clusters; of 6 the normal limit would reject up to 6.5%


@dataclass(frozen=True)
class Clusters:
    """Which rows belong together: number int64 [n] of each row's cluster, and how many clusters there are."""

    number: np.ndarray
    count: int

    @classmethod
    def of_rows(cls, n: int) -> Clusters:
        """Every row by itself."""
        return cls(np.arange(n), n)

    def sums(self, table: np.ndarray) -> np.ndarray:
        """Sums over the rows of each cluster, float64 [count, K], of a table [n, K] where NaN counts 0."""
        filled = np.nan_to_num(table)
        return np.stack([np.bincount(self.number, column, self.count) for column in filled.T], axis=1)


def sign_flip(
    contributions: np.ndarray, seed: int = 0, is_binary: bool = False, steps: Iterator = UNWATCHED
) -> tuple[np.ndarray, list[str]]:
    """Two-sided p-values, float64 [K], of sums that are symmetric about 0 if there is no difference; and their tests.

    contributions: float64 [G, K], what each cluster adds to each sum, NaN where it has no value. The share of all ways
    to flip the clusters' signs whose sum is as far from 0 (Fisher 1935; for clusters Canay, Romano and Shaikh 2017):
    all 2^G up to G = 14, else of `DRAWS` draws by the seed, with one added above and below, and beyond `MOST_DRAWN` its
    normal limit. Where all clusters differ this is exact, whatever their distribution.

    Clusters that agree leave fewer ways, and how many agree is chance: the exact test, whose p then takes few values,
    is far below its level. There ways that are just as far count a half (`MID_P`; Lancaster 1961). Of hits
    (is_binary), whose differences are all of one size, even that rejects 2% of 8 CXRs: from `LEAST_NORMAL` clusters on
    they take the normal limit without correction (`MCNEMAR`), at most 5.9% whatever share of CXRs may differ; both are
    what Fagerland, Lydersen and Laake (2013) advise. steps: moves on by one with each thousand draws.
    """
    p, tests, drawn = np.ones(contributions.shape[1]), [], []
    for k, column in enumerate(contributions.T):
        column = column[~np.isnan(column)]
        some = column[column != 0]
        tests.append(_test_of(some, len(column), is_binary))
        if not some.size:
            continue
        if tests[k] == MCNEMAR or some.size > MOST_DRAWN:
            p[k] = _two_sided_normal(some)
        elif some.size > MOST_EXACT:
            drawn.append(k)
        else:
            signs = _all_signs(some.size)
            beyond, equal = _as_far(signs @ some, some)
            p[k] = (beyond + equal * _OF_TIES[tests[k]]) / len(signs)
    if drawn:
        columns = np.nan_to_num(contributions[:, drawn])
        beyond, equal, done = np.zeros(len(drawn)), np.zeros(len(drawn)), 0
        for signs in _signs(len(columns), seed):
            more, same = _as_far(signs @ columns, columns)
            beyond, equal = beyond + more, equal + same
            moved(steps, (done + len(signs)) // 1000 - done // 1000)
            done += len(signs)
        p[drawn] = (beyond + (equal + 1) * [_OF_TIES[tests[k]] for k in drawn]) / (DRAWS + 1)
    return np.minimum(p, 1.0), tests


def _test_of(some: np.ndarray, count: int, is_binary: bool) -> str:
    """The test of so many clusters, of which some differ."""
    if some.size == count:
        return EXACT
    is_mcnemars = is_binary and count >= LEAST_NORMAL and np.unique(np.abs(some)).size <= 1
    return MCNEMAR if is_mcnemars else MID_P


@lru_cache(MOST_EXACT)
def _all_signs(n: int) -> np.ndarray:
    """Half of all ways, float64 [2^(n - 1), n]: the others are these with every sign flipped, as far from 0."""
    return 1.0 - 2 * (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1)


def _signs(n: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of random signs, float64 [rows, n]; together `DRAWS` rows."""
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK // n)
    for start in range(0, DRAWS, rows):
        count = min(rows, DRAWS - start)
        bits = np.unpackbits(random.integers(0, 256, (count, (n + 7) // 8), np.uint8), axis=1)[:, :n]
        yield 1.0 - 2.0 * bits


def _as_far(sums: np.ndarray, contributions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many sums [R, ...] are further from 0 than the contributions' own, and how many as far, but for rounding."""
    own = np.abs(contributions.sum(axis=0))
    slack = _SLACK * np.abs(contributions).sum(axis=0)
    far = np.abs(sums)
    return (far > own + slack).sum(axis=0), (np.abs(far - own) <= slack).sum(axis=0)


def _two_sided_normal(contributions: np.ndarray) -> float:
    return 2 * upper_tail(float(abs(contributions.sum()) / np.sqrt(np.square(contributions).sum())), np.inf)


@dataclass(frozen=True)
class Difference:
    """pred - ref of one task, or of the mean over tasks, and 100 (ref - pred) / ref.

    error: of the difference, by the jackknife over clusters; 0 where all differ alike, and then t says nothing: tests
    and the interval are those of the sign-flip test, to which such clusters are as likely as any other sign.
    freedom: of Student's t; infinite for the normal. shift: of the interval's middle from the value, where it has one.
    most: no difference is greater.
    decrease: the percentage and its interval; NaN where undefined. clusters: with a value on both sides.
    test: whose p it is.
    """

    value: float
    error: float
    freedom: float
    decrease: tuple[float, float, float]
    clusters: int
    p: float
    test: str = ""
    shift: float = 0.0
    most: float = np.inf

    def interval(self) -> tuple[float, float]:
        """The 95% interval; NaN where there is none."""
        if not self.error and self.clusters < LEAST_ALIKE:
            return np.nan, np.nan
        half = quantile_975(self.freedom) * self.error if self.error else 0.0
        middle = self.value + self.shift
        return max(middle - half, -self.most), min(middle + half, self.most)

    def noninferior(self, margin: float) -> float:
        """One-sided p-value of pred being worse than ref by the margin or more."""
        return self._beyond(self.value + self.shift + margin)

    def equivalent(self, margin: float) -> float:
        """The greater p-value of the two one-sided tests that pred and ref differ by the margin or more (TOST)."""
        return max(self._beyond(self.value + self.shift + margin), self._beyond(margin - self.value - self.shift))

    def _beyond(self, distance: float) -> float:
        if not self.error:
            return 0.5**self.clusters if distance > _SLACK * abs(self.value) else 1.0
        return upper_tail(distance / self.error, self.freedom)


def differences(
    pred: np.ndarray, ref: np.ndarray, clusters: Clusters, seed: int = 0, steps: Iterator = UNWATCHED
) -> list[Difference]:
    """The difference of each task of two tables [n, K], and last that of the mean over tasks.

    Each side's mean is over the rows where it is defined, the difference over those where both are. Intervals are
    Student's t with the jackknife over clusters, which for one row a cluster is the usual error of the mean; that of
    the decrease is symmetric in its logarithm. Where all values are 0 or 1, two rows are added, a hit of one side and
    a miss of the other each, and t is normal (Bonett and Price 2012), as rows that agree by chance have no spread.
    steps: as of `sign_flip`.
    """
    is_binary = _are_binary(pred) and _are_binary(ref)
    both = pred - ref
    n = (~np.isnan(both)).sum(axis=0)
    contributions = clusters.sums(both)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(clusters.sums(~np.isnan(both)) > 0, contributions / n, np.nan)
    known = np.flatnonzero(n > 0)
    average = np.where(np.isnan(shares).all(axis=1), np.nan, np.nan_to_num(shares[:, known]).sum(axis=1) / len(known))
    p, tests = sign_flip(np.column_stack([shares, average]), seed, is_binary, steps)
    groups = [[k] for k in range(pred.shape[1])] + [known.tolist()]
    found = []
    for k, columns in enumerate(groups):
        found.append(_difference(pred[:, columns], ref[:, columns], clusters, is_binary, float(p[k]), tests[k]))
    return found


def _are_binary(values: np.ndarray) -> bool:
    return bool((np.isnan(values) | (values == 0) | (values == 1)).all())


def _difference(
    pred: np.ndarray, ref: np.ndarray, clusters: Clusters, is_binary: bool, p: float, test: str
) -> Difference:
    """Of the mean over the columns."""
    nothing = np.nan, np.nan, np.nan
    there = np.unique(clusters.number[~np.isnan(pred - ref).all(axis=1)])
    if not len(there) or not pred.shape[1]:
        return Difference(np.nan, np.nan, np.nan, nothing, 0, np.nan)
    value = _mean_of_means(pred - ref)
    own = _mean_of_means(pred), _mean_of_means(ref)
    if len(there) < 2:
        return Difference(value, np.nan, np.nan, (_decrease(*own), np.nan, np.nan), 1, np.nan)
    if is_binary:
        two = np.ones((1, pred.shape[1]))
        pred, ref = np.concatenate([pred, two, 0 * two]), np.concatenate([ref, 0 * two, two])
        number = np.append(clusters.number, [clusters.count, clusters.count + 1])
        clusters = Clusters(number, clusters.count + 2)
    (pred_moves, pred_count), (ref_moves, ref_count), (moves, count) = (
        _jackknifed(table, clusters) for table in (pred, ref, pred - ref)
    )
    sides = np.stack([pred_moves, ref_moves])  # each over its own clusters, as the means are
    freedom, own_freedom = (np.inf if is_binary else n - 1.0 for n in (count, min(pred_count, ref_count)))
    shift = _mean_of_means(pred - ref) - value if is_binary else 0.0
    decrease = _decrease_interval(own, (_mean_of_means(pred), _mean_of_means(ref)), sides @ sides.T, own_freedom)
    error = float(np.sqrt(moves @ moves))
    if error < _SLACK * np.abs(own).max():  # what is left by rounding
        error = 0.0
        if len(there) < LEAST_ALIKE:
            decrease = decrease[0], np.nan, np.nan
    most = 1.0 if is_binary else np.inf
    return Difference(value, error, freedom, decrease, len(there), p, test, shift, most)


def _jackknifed(table: np.ndarray, clusters: Clusters) -> tuple[np.ndarray, int]:
    """How the mean over columns of the means of a table [n, K] moves without each cluster, and how many have a value.

    float64 [G], 0 of a cluster without a value; their squares sum to the jackknife's variance.
    """
    sums, counts = clusters.sums(table), clusters.sums((~np.isnan(table)).astype(float))
    there = counts.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = ((sums.sum(axis=0) - sums) / (counts.sum(axis=0) - counts))[there]
        defined = ~np.isnan(columns)
        means = np.where(defined, columns, 0).sum(axis=1) / defined.sum(axis=1)
    count = len(means)
    moves = np.zeros(clusters.count)
    moves[there] = (means - means.mean()) * np.sqrt((count - 1) / count)
    return moves, count


def _mean_of_means(table: np.ndarray) -> float:
    defined = ~np.isnan(table)
    count = defined.sum(axis=0)
    means = np.where(defined, table, 0).sum(axis=0)[count > 0] / count[count > 0]
    return float(means.mean()) if len(means) else np.nan


def _decrease(pred: float, ref: float) -> float:
    return 100 * (ref - pred) / ref if ref > 0 else np.nan


def _decrease_interval(
    own: tuple[float, float], means: tuple[float, float], covariance: np.ndarray, freedom: float
) -> tuple[float, float, float]:
    """The percentage decrease and its interval, symmetric in the logarithm of the ratio; NaN where a mean is 0.

    own: means of pred and ref; means, covariance [2, 2], freedom: what the interval is made of.
    """
    pred, ref = means
    if not (pred > 0 and ref > 0 and min(own) > 0):
        return _decrease(*own), np.nan, np.nan
    slope = np.array([1 / pred, -1 / ref])
    error = float(np.sqrt(max(slope @ covariance @ slope, 0)))
    half = quantile_975(freedom) * error
    lower, upper = (100 * (1 - pred / ref * np.exp(sign * half)) for sign in (1, -1))
    return _decrease(*own), float(lower), float(upper)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (Holm 1979) of the p-values that are not None."""
    known = sorted((p, k) for k, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    greatest = 0.0
    for rank, (p, k) in enumerate(known):
        greatest = max(greatest, min(1.0, (len(known) - rank) * p))
        adjusted[k] = greatest
    return adjusted
