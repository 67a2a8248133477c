"""Metrics of where a map looks, against the libraries that have them (extra `parity`)."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import need_module

from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask
from chextools.metrics import boundaries, energy, lesions, pointing, ranking

SIZE = (90, 70)


@pytest.fixture(params=range(4))
def case(request):
    """A map, its pixels, the truth's pixels and those of a mask."""
    rng = np.random.default_rng(request.param)
    surface = Surface(np.maximum(rng.normal(0.3, 1, (7, 6)), 0).astype(np.float32), SIZE)
    inside, mask = (Surface(rng.random((6, 6), np.float32), SIZE).dense() > 0.55 for _ in range(2))
    return surface, surface.dense(), inside, mask


def test_energy_and_rank_are_quantus_relevance_mass_and_rank(case):
    quantus = need_module("quantus")
    surface, pixels, inside, _ = case
    torch = need_module("torch")
    given = {
        "model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIZE[0] * SIZE[1], 2)).eval(),
        "x_batch": np.zeros((1, 1, *SIZE), np.float32),
        "y_batch": np.zeros(1, int),
        "a_batch": pixels[None, None],
        "s_batch": inside[None, None],
        "device": "cpu",
    }
    options = {"abs": False, "normalise": False, "disable_warnings": True}
    mass = quantus.RelevanceMassAccuracy(**options)(**given)[0]
    assert energy.energy_inside(surface, Mask.from_array(inside)) == pytest.approx(mass, rel=1e-5)  # it sums float32
    if np.unique(pixels).size == pixels.size:  # of equal pixels it takes any
        rank = quantus.RelevanceRankAccuracy(**options)(**given)[0]
        assert ranking.rank(surface, Mask.from_array(inside)) == pytest.approx(rank, abs=1e-12)


def test_ranking_is_scikit_learns(case):
    metrics = need_module("sklearn.metrics")
    surface, pixels, inside, _ = case
    truth = Mask.from_array(inside)
    flat = inside.ravel(), pixels.ravel()
    assert ranking.pixel_auroc(surface, truth) == pytest.approx(metrics.roc_auc_score(*flat), rel=1e-9)  # trapezoids
    assert ranking.pixel_auprc(surface, truth) == pytest.approx(metrics.average_precision_score(*flat), rel=1e-9)


def test_distances_are_monais(case):
    need_module("monai")
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    torch = need_module("torch")
    _, _, inside, mask = case
    ours = Mask.from_array(mask), Mask.from_array(inside)
    theirs = [torch.from_numpy(each[None, None].astype(np.float32)) for each in (mask, inside)]
    # float32 distances there
    assert boundaries.hd95(*ours) == pytest.approx(float(compute_hausdorff_distance(*theirs, percentile=95)), rel=1e-5)
    expected = float(compute_average_surface_distance(*theirs, symmetric=True))
    assert boundaries.assd(*ours) == pytest.approx(expected, rel=1e-5)
    for tolerance in (1.0, 3.0):
        expected = float(compute_surface_dice(*theirs, [tolerance]))
        assert boundaries.nsd(*ours, nsd_tolerance=tolerance) == pytest.approx(expected, rel=1e-6)


def test_distances_are_surface_distances_but_for_its_weights(case):
    """surface-distance puts the boundary between pixels and weighs it by length: half a pixel of difference at most."""
    library = need_module("surface_distance")
    _, _, inside, mask = case
    ours = Mask.from_array(mask), Mask.from_array(inside)
    found = library.compute_surface_distances(inside, mask, (1.0, 1.0))
    assert boundaries.hd95(*ours) == pytest.approx(library.compute_robust_hausdorff(found, 95), abs=1.0)
    there, back = library.compute_average_surface_distance(found)
    assert boundaries.assd(*ours) == pytest.approx((there + back) / 2, abs=1.0)


def test_components_and_distances_are_simpleitks(case):
    sitk = need_module("SimpleITK")
    _, _, inside, mask = case
    image = sitk.GetImageFromArray(inside.astype(np.uint8))
    labelled = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))  # fully connected: 8 neighbours
    assert len(lesions.components_of(Mask.from_array(inside)).area) == labelled.max()
    away = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=False)
    )
    rng = np.random.default_rng(0)
    for y, x in rng.integers(0, SIZE, (50, 2)).tolist():
        if not inside[y, x]:  # inside, it measures to the border
            assert pointing.distance(y, x, Mask.from_array(inside)) == pytest.approx(away[y, x], rel=1e-5)


def test_boundaries_are_scikit_images(case):
    segmentation = need_module("skimage.segmentation")
    _, _, inside, _ = case
    # It does not count what lies at the image's edge as boundary: there a frame of background is put around.
    framed = segmentation.find_boundaries(np.pad(inside, 1), connectivity=1, mode="inner")[1:-1, 1:-1]
    assert sorted(zip(*boundaries.boundary(Mask.from_array(inside)))) == sorted(zip(*np.nonzero(framed)))
