"""Metrics of where a map looks, against brute force on pixels."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from chextools.heatmaps.levels import grey_levels
from chextools.heatmaps.surface import Surface, surface_of
from chextools.masks.mask import Mask
from chextools.metrics import boundaries, energy, froc, lesions, pointing, ranking
from chextools.metrics.catalogue import LESION_RULES

EIGHT = np.ones((3, 3))


def truth_of(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A few rectangles, some touching the border, as bool [h, w]; not empty."""
    inside = np.zeros(size, bool)
    for _ in range(rng.integers(1, 5)):
        y, x = (int(rng.integers(0, n)) for n in size)
        inside[y : y + int(rng.integers(1, size[0] // 2)), x : x + int(rng.integers(1, size[1] // 2))] = True
    return inside


def map_of(rng: np.random.Generator, kind: str) -> np.ndarray:
    values = rng.normal(0, 1, (int(rng.integers(1, 9)), int(rng.integers(1, 9)))).astype(np.float32)
    if kind == "relu":
        return np.maximum(values - np.float32(0.3), 0)
    return np.round(values) if kind == "steps" else values


CASES = [(kind, seed) for kind in ("signed", "relu", "steps") for seed in range(12)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    """(surface, its pixels, truth, its pixels)."""
    kind, seed = request.param
    rng = np.random.default_rng([seed, len(kind)])
    size = (int(rng.integers(20, 90)), int(rng.integers(60, 90)))
    inside = truth_of(rng, size)
    surface = Surface(map_of(rng, kind), size)
    return surface, surface.dense(), Mask.from_array(inside), inside


def test_energy_is_the_share_of_the_sum(case):
    surface, pixels, truth, inside = case
    found = energy.energy_inside(surface, truth)
    if surface.values.min() < 0 or not surface.values.any():
        assert np.isnan(found)
    else:
        pixels = pixels.astype(np.float64)
        assert found == pytest.approx(pixels[inside].sum() / pixels.sum(), rel=1e-5, abs=1e-7)  # float32's pixels


@pytest.mark.parametrize("border", [0.03, 0.1, 0.49])
def test_energy_in_the_border_is_that_of_its_pixels(case, border):
    surface, pixels, truth, _ = case
    share, chance = energy.energy_in_border(surface, truth, border)
    if surface.values.min() < 0 or not surface.values.any():
        assert np.isnan(share) and np.isnan(chance)
        return
    (y, x), (height, width) = (round(border * n) for n in surface.size), surface.size
    rim = np.ones(surface.size, bool)
    rim[y : height - y, x : width - x] = False
    pixels = pixels.astype(np.float64)
    assert share == pytest.approx(pixels[rim].sum() / pixels.sum(), rel=1e-5, abs=1e-6)
    assert chance == pytest.approx(rim.mean(), abs=1e-12)


def test_energy_outside_the_lungs_is_what_is_not_inside(case):
    surface, pixels, truth, inside = case
    share, chance = energy.energy_outside(surface, Mask.empty(surface.size), truth)
    if surface.values.min() < 0 or not surface.values.any():
        assert np.isnan(share) and np.isnan(chance)
    else:
        assert share == pytest.approx(pixels[~inside].sum(dtype=np.float64) / pixels.sum(dtype=np.float64), abs=1e-5)
        assert chance == pytest.approx((~inside).mean(), abs=1e-12)
    assert np.isnan(energy.energy_outside(surface, truth, None)).all()


def test_rank_takes_the_first_of_equal_pixels(case):
    surface, pixels, truth, inside = case
    first = np.argsort(-pixels.ravel(), kind="stable")[: inside.sum()]
    assert ranking.rank(surface, truth) == inside.ravel()[first].mean()


def test_auroc_and_auprc_count_every_pair(case):
    surface, pixels, truth, inside = case
    true, false = pixels[inside][:, None], pixels[~inside]
    if false.size:
        pairs = (true > false).mean() + (true == false).mean() / 2
        assert ranking.pixel_auroc(surface, truth) == pytest.approx(pairs, rel=1e-12)
    precision = [inside[pixels >= value].mean() for value in pixels[inside]]
    assert ranking.pixel_auprc(surface, truth) == pytest.approx(np.mean(precision), rel=1e-12)


def test_best_iou_is_that_of_the_best_of_all_thresholds(case):
    surface, pixels, truth, inside = case
    best, area, chance = ranking.best_iou(surface, truth)

    def iou(mask: np.ndarray) -> float:
        return (mask & inside).sum() / (mask | inside).sum()

    if pixels.min() == pixels.max():
        assert (best, area) == (0, 0)
    else:
        assert best == max(iou(pixels >= value) for value in np.unique(pixels)[1:])
        grey = grey_levels(pixels, pixels.min(), pixels.max())
        assert area == pytest.approx(np.mean([iou(grey >= k) for k in range(1, 256)]), rel=1e-12)
    share = inside.mean()
    odds = share / (1 - share) if share < 1 else np.inf
    if share < 1:  # the integral over all thresholds, which 255 come close to
        assert chance == pytest.approx(odds * (1 - odds * np.log(1 / share)), abs=0.005)


def test_a_flat_map_ranks_nothing():
    """Its pixels are equal, whatever interpolation rounds them to; of equal ones the first in raster order count."""
    truth = np.zeros((30, 50), bool)
    truth[:2, 10:30] = truth[20:25, 5:15] = True
    first = truth.ravel()[: truth.sum()].mean()
    for value in (0.7, -0.3, 0.1):
        surface = surface_of(np.full((3, 5), value, np.float32), truth.shape)
        given = surface, Mask.from_array(truth)
        assert ranking.pixel_auroc(*given) == 0.5 and ranking.best_iou(*given)[:2] == (0, 0)
        assert ranking.pixel_auprc(*given) == pytest.approx(truth.mean()) and ranking.rank(*given) == first
        energies = energy.energy_inside(*given)
        assert np.isnan(energies) if value < 0 else energies == pytest.approx(truth.mean())


def test_hit_within_a_tolerance(case):
    _, _, truth, inside = case
    y, x = np.indices(inside.shape)
    away = ndimage.distance_transform_edt(~inside)
    rng = np.random.default_rng(0)
    for radius in (0, 1, 2.5, 7, 60, 1e5, 1e300):
        near = away <= radius
        for _ in range(5):
            point = (int(rng.integers(inside.shape[0])), int(rng.integers(inside.shape[1])))
            found, chance = pointing.hit([point], truth, radius)
            assert found == near[point]
            assert chance == near.mean()
    assert np.array_equal(pointing.dilated(truth, 3.3).to_array(), away <= 3.3)
    assert pointing.hit([(0, 0)], truth, 2.0, max(inside.shape) // 2)[1] == pytest.approx(
        (away <= 2 * max(inside.shape) / (max(inside.shape) // 2)).mean()
    )


def test_a_tolerance_as_large_as_it_likes_takes_no_memory():
    noise = np.random.default_rng(0).random((1500, 1200)) < 0.5
    truth = Mask.from_array(noise)
    tracemalloc.start()
    for radius in (300, 1e18):
        assert pointing.hit([(0, 0)], truth, radius) == (1, 1)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


def test_distances_of_boundaries(case):
    surface, _, truth, inside = case
    mask = np.roll(inside, (3, -5), (0, 1))
    borders = []
    for each in (mask, inside):
        border = each & ~ndimage.binary_erosion(each)
        assert sorted(zip(*boundaries.boundary(Mask.from_array(each)))) == sorted(zip(*np.nonzero(border)))
        borders.append(np.argwhere(border) * (0.5, 2.0))
    pairs = cdist(*borders)
    there, back = pairs.min(1), pairs.min(0)
    given = Mask.from_array(mask), truth
    assert boundaries.hd95(*given, spacing=(0.5, 2.0)) == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95))
    )
    assert boundaries.assd(*given, spacing=(0.5, 2.0)) == pytest.approx(np.concatenate([there, back]).mean())
    close = np.concatenate([there, back]) <= 2.0
    assert boundaries.nsd(*given, nsd_tolerance=2.0, spacing=(0.5, 2.0)) == pytest.approx(close.mean())


def test_distances_to_nothing():
    mask, empty = Mask.from_array(np.eye(9, dtype=bool)), Mask.empty((9, 9))
    for function in (boundaries.hd95, boundaries.assd):
        assert np.isnan(function(empty, mask)) and np.isnan(function(mask, empty))
        assert function(mask, mask) == 0
    assert boundaries.nsd(empty, mask) == boundaries.nsd(mask, empty) == 0
    assert np.isnan(boundaries.nsd(empty, empty))


def by_hand(mask: np.ndarray, inside: np.ndarray, overlap: float, rule: str) -> tuple[list[bool], list[bool]]:
    """Which lesions are found and which components are right, component by component."""
    (own, n), (true, m) = ndimage.label(mask, EIGHT), ndimage.label(inside, EIGHT)

    def share(part: np.ndarray, whole: np.ndarray, others: np.ndarray, count: int) -> float:
        if rule == "covered":
            return (part & whole).sum() / part.sum()
        return max(
            ((part & (others == k)).sum() / (part | (others == k)).sum() for k in range(1, count + 1)), default=0
        )

    found = [share(true == k, mask, own, n) > overlap for k in range(1, m + 1)]
    return found, [share(own == k, inside, true, m) > overlap for k in range(1, n + 1)]


@pytest.mark.parametrize("rule", LESION_RULES)
@pytest.mark.parametrize("overlap", [0, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_lesions_are_components_that_touch_even_at_corners(rule, overlap, seed):
    rng = np.random.default_rng(seed)
    mask, inside = (rng.random((30, 40)) < share for share in (0.25, 0.35))
    found, right = by_hand(mask, inside, overlap, rule)
    given = Mask.from_array(mask), Mask.from_array(inside), overlap, rule
    assert lesions.lesion_recall(*given) == np.mean(found)
    assert lesions.lesion_precision(*given) == np.mean(right)


def test_lesions_of_nothing():
    mask, empty = Mask.from_array(np.eye(9, dtype=bool)), Mask.empty((9, 9))
    assert lesions.lesion_recall(empty, mask) == 0 and np.isnan(lesions.lesion_recall(mask, empty))
    assert lesions.lesion_precision(mask, empty) == 0 and np.isnan(lesions.lesion_precision(empty, mask))


def test_a_column_ends_where_the_next_begins_and_yet_they_do_not_touch():
    pixels = np.zeros((4, 5), bool)
    pixels[3, 1] = pixels[0, 2] = True
    assert len(lesions.components_of(Mask.from_array(pixels)).area) == 2


def test_froc_counts_at_every_threshold(case):
    surface, pixels, truth, inside = case
    counts = froc.lesion_counts(surface, truth)
    images, true, *rest = counts
    assert (images, true, len(counts)) == (1, ndimage.label(inside, EIGHT)[1], froc.COUNTS)
    if pixels.min() == pixels.max():
        assert not any(rest)
        return
    normal = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    for k, threshold in enumerate(froc.THRESHOLDS):
        found, right = by_hand(normal.astype(np.float64) > threshold, inside, 0.1, "iou")
        assert rest[k] == sum(found)
        assert rest[k + len(froc.THRESHOLDS)] == len(right) - sum(right)


def test_the_froc_score_reads_recall_at_seven_rates():
    thresholds = len(froc.THRESHOLDS)
    sums = np.zeros((froc.COUNTS, 2))
    sums[:2, 0] = 4, 8  # four images, eight lesions; a second task has none
    sums[2 : 2 + thresholds, 0] = [8, 6, 4, 2, 0, 0, 0, 0, 0]
    sums[2 + thresholds :, 0] = [16, 8, 4, 1, 0, 0, 0, 0, 0]
    score, more = froc.summary(sums)
    assert score[0] == np.mean([0, 0.25, 0.25, 0.5, 0.75, 1, 1])
    assert np.isnan(score[1])
    assert more["lesions"].tolist() == [8, 0] and more["recall_at_1"][0] == 0.5
    assert np.array_equal(froc.summary(np.stack([sums, sums]))[0][1], score, equal_nan=True)
