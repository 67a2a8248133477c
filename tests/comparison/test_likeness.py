"""chex-compare --metric ssim or spearman: how alike two sets of heatmaps are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.heatmaps.surface import bilinear


@pytest.fixture
def sets(tmp_path):
    """Write {id: {task: map}} as a folder of heatmaps."""

    def call(name: str, maps: dict, size=(64, 48)) -> str:
        (tmp_path / name).mkdir()
        for identifier, by_task in maps.items():
            found = Heatmaps(
                identifier, size, {t: np.asarray(m, np.float32) for t, m in by_task.items()}, input_size=(8, 8)
            )
            write_npz(tmp_path / name / f"{identifier}.npz", found)
        return str(tmp_path / name)

    return call


def compared(cli, *arguments: object) -> dict[str, dict]:
    result = cli("chex-compare", *arguments)
    assert result.code == 0, result.err
    return {row["task"]: row | {"err": result.err} for row in map(json.loads, result.out.splitlines())}


def test_equal_maps_are_alike_whatever_their_scale(cli, sets):
    random = np.random.default_rng(0)
    maps = {f"i{k}": {"Edema": random.random((5, 6))} for k in range(4)}
    one, other = sets("one", maps), sets("other", {i: {"Edema": 3 * m["Edema"] + 7} for i, m in maps.items()})
    for metric in ("ssim", "spearman"):
        row = compared(cli, one, other, "--metric", metric)["Edema"]
        assert row["mean"] == pytest.approx(1, abs=1e-3) and row["n"] == 4 and row["metric"] == metric


def test_spearman_is_that_of_the_pixels(cli, sets):
    random = np.random.default_rng(1)
    maps = [{"i": {"Edema": random.random((8, 8)).astype(np.float32)}} for _ in range(2)]
    row = compared(cli, sets("one", maps[0]), sets("other", maps[1]), "--metric", "spearman")["Edema"]
    expected = stats.spearmanr(*(bilinear(m["i"]["Edema"], (224, 224)).ravel() for m in maps)).statistic
    assert row["mean"] == pytest.approx(expected, abs=1e-6)
    assert row["lower"] is None and row["n"] == 1


def test_maps_of_any_resolution_and_either_side_alone(cli, sets):
    ramp = np.linspace(0, 1, 8)
    fine, coarse = np.tile(ramp, (8, 1)), np.tile(ramp[::7], (2, 1))
    one = sets("one", {"i": {"Edema": fine, "Fracture": fine}, "j": {"Edema": fine}})
    found = compared(cli, one, sets("other", {"i": {"Edema": coarse}, "k": {"Edema": fine}}), "--metric", "spearman")
    assert found["Edema"]["mean"] > 0.95 and set(found) == {"Edema", "Average"}
    assert "left out: 1 CXR (j)" in found["Edema"]["err"] and "left out: 1 CXR (k)" in found["Edema"]["err"]


def test_a_flat_map_has_no_likeness(cli, sets):
    one = sets("one", {"i": {"Edema": np.ones((4, 4))}, "j": {"Edema": np.eye(4)}})
    other = sets("other", {"i": {"Edema": np.eye(4)}, "j": {"Edema": np.eye(4)}})
    assert compared(cli, one, other, "--metric", "ssim")["Edema"]["n"] == 1


def test_where_all_maps_are_flat_it_is_said(cli, sets):
    one, other = (sets(name, {"i": {"Edema": np.full((4, 4), value)}}) for name, value in (("one", 1), ("other", 2)))
    row = compared(cli, one, other, "--metric", "spearman")["Edema"]
    assert (row["mean"], row["n"], row["reason"]) == (None, 0, "no CXR with a map on both sides that varies")
    assert "Edema: no CXR with a map on both sides that varies" in row["err"]


def test_one_patient_has_no_interval(cli, sets):
    random = np.random.default_rng(0)
    one, other = (sets(name, {f"patient1_{k}": {"Edema": random.random((4, 4))} for k in "ab"}) for name in ("o", "p"))
    row = compared(cli, one, other, "--metric", "ssim", "--resample", "patient")["Edema"]
    assert (row["n"], row["lower"], row["upper"], row["reason"]) == (2, None, None, "one patient: no interval")
    assert compared(cli, one, other, "--metric", "ssim")["Edema"]["lower"] is not None


def test_heatmaps_have_no_study_file_and_no_margin(cli):
    for options, words in (
        (("--format", "csv"), "the study's file"),
        (("--margin", "0.1"), "--margin is for differences"),
    ):
        result = cli("chex-compare", "a", "b", "--metric", "ssim", *options)
        assert result.code == 2 and words in result.err
