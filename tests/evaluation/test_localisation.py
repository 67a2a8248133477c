"""Every metric of where a model looks, through chex-eval: its row, its chance or floor, and what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from chextools import evaluate
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.masks.mask import Mask
from chextools.metrics import overlap
from chextools.metrics.catalogue import HEATMAPS, LOCALISATION, MASKS

SIZE = (40, 60)
TRUTH = np.zeros(SIZE, bool)
TRUTH[5:15, 10:30] = True
OF_MAPS = [name for name, metric in LOCALISATION.items() if metric.looks_at == HEATMAPS and metric.needs_truth]
NEW = [name for name, metric in LOCALISATION.items() if not metric.is_default and metric.needs_truth]


@pytest.fixture
def world(tmp_path):
    """Evaluate {id: (map or None, mask or None)} of Edema against one truth, by metric."""

    def call(predictions: dict, metrics=tuple(NEW), missing: int = 0, **settings) -> dict[str, dict]:
        with (tmp_path / "records").open("w") as stream:
            for name, (heatmap, mask) in predictions.items():
                record = {"id": name, "size": list(SIZE)}
                if heatmap is not None:
                    path = tmp_path / f"{name}.npz"
                    maps = {} if isinstance(heatmap, str) else {"Edema": np.asarray(heatmap, np.float32)}
                    maps = maps or {"Fracture": np.ones((4, 6), np.float32)}
                    write_npz(path, Heatmaps(name, SIZE, maps, input_size=SIZE))
                    record["heatmap"] = str(path)
                if mask is not None:
                    record["masks"] = {"Edema": Mask.from_array(mask).to_rle()}
                stream.write(json.dumps(record) + "\n")
        names = [*predictions, *(f"missing{k}" for k in range(missing))]
        truth = {name: {"Edema": Mask.from_array(TRUTH).to_rle()} for name in names}
        (tmp_path / "gt.json").write_text(json.dumps(truth))
        settings = evaluate.EvaluationSettings(truth=str(tmp_path / "gt.json"), metrics=metrics, jobs=1, **settings)
        result = evaluate.run([str(tmp_path / "records")], settings)
        return {row["metric"]: row for row in result.summary if row["task"] == "Edema"}

    return call


def test_a_perfect_prediction(world):
    found = world({f"p{k}": (TRUTH.astype(float), TRUTH) for k in range(3)})
    assert list(found) == NEW
    for name in set(NEW) - {"hd95", "assd"}:
        assert found[name]["mean"] == 1 and found[name]["lower"] == 1, name
    assert found["hd95"]["mean"] == found["assd"]["mean"] == 0
    share = TRUTH.mean()
    for name in ("energy", "rank", "pixel-auprc", "best-iou"):
        assert found[name]["chance"] == pytest.approx(share)
    assert found["pixel-auroc"]["chance"] == 0.5
    assert all("chance" in row or "floor" in row for row in found.values())


def test_floors_are_of_what_looks_at_the_centre(world):
    found = world({"p": (TRUTH.astype(float), TRUTH)})
    disc = overlap.centred_disc(SIZE, int(TRUTH.sum()))
    assert abs(disc.area - TRUTH.sum()) < 10 and disc.contains(20, 30) and not disc.contains(0, 0)
    for name, metric in LOCALISATION.items():
        if metric.floor and metric.looks_at == MASKS:
            options = {"nsd_tolerance": 2.0} if name == "nsd" else {}
            assert found[name]["floor"] == pytest.approx(metric.load()(disc, Mask.from_array(TRUTH), **options))


def test_a_disc_is_cut_at_the_edges():
    assert overlap.centred_disc((4, 40), 100).area <= 160
    assert overlap.centred_disc((4, 40), 0).area == 0
    assert overlap.centred_disc((4, 4), 100).area == 16


def test_a_missing_heatmap_finds_nothing_and_a_missing_mask_is_empty(world):
    perfect = {"p0": (TRUTH.astype(float), TRUTH)}
    found = world(perfect, missing=1)
    for name in ("energy", "rank", "pixel-auroc", "pixel-auprc", "best-iou"):
        assert (found[name]["observed"], found[name]["n"]) == (0.5, 2)
    assert found["froc"]["mean"] == 0.5 and found["froc"]["lesions"] == 2
    assert (found["lesion-recall"]["observed"], found["lesion-recall"]["n"]) == (0.5, 2)
    assert (found["hd95"]["n"], found["hd95"]["positives"]) == (1, 2)
    assert (found["dice"]["n"], found["dice"]["misses_as_0"]) == (1, 0.5)


def test_what_is_undefined_has_a_reason(world):
    flat = world({"p": (np.zeros((4, 6)), np.zeros(SIZE, bool))}, metrics=("energy", "hd95"))
    assert flat["energy"]["mean"] is None or np.isnan(flat["energy"]["mean"])
    assert "0 everywhere" in flat["energy"]["reason"]
    assert flat["hd95"]["reason"] == "undefined for all 1 CXRs with a truth"
    nothing = world({"p": (np.zeros((4, 6)), np.zeros(SIZE, bool))}, metrics=("pixel",))
    assert nothing["precision"]["reason"] == "nothing is predicted where there is a truth"
    assert "reason" not in nothing["recall"]


def test_reasons_of_what_could_not_be_measured_and_of_averages(cli, tmp_path):
    rectangle = {"size": [3, 3], "counts": [0, 5, 4]}
    (tmp_path / "pred").write_text('{"id": "a", "size": [3, 3], "heatmap": "absent.npz"}\n')
    for truth, reason in (
        (rectangle, "no CXR with a truth could be measured: 1 failed"),
        ({"size": [3, 3], "counts": [9]}, "no CXR with a truth"),
        ({"size": [3, 3], "counts": [8]}, "no CXR with a truth could be measured: 1 failed"),
    ):
        (tmp_path / "truth").write_text(json.dumps({"id": "a", "masks": {"Edema": truth}}) + "\n")
        result = cli(
            "chex-eval", tmp_path / "pred", "--truth", tmp_path / "truth", "--metric", "energy", "--metric", "froc"
        )
        rows = [json.loads(line) for line in result.out.splitlines()]
        assert [row["reason"] for row in rows] == [reason, "undefined for every task"] * 2


def test_a_reason_is_not_that_others_failed(cli, tmp_path):
    nothing, drawn, broken = ({"size": [3, 3], "counts": counts} for counts in ([9], [0, 5, 4], [8]))
    for name, masks in (("pred", (nothing, broken, broken)), ("truth", (drawn, nothing, nothing))):
        lines = [json.dumps({"id": f"p{k}", "masks": {"Edema": mask}}) + "\n" for k, mask in enumerate(masks)]
        (tmp_path / name).write_text("".join(lines))
    result = cli("chex-eval", tmp_path / "pred", "--truth", tmp_path / "truth", "--metric", "pixel")
    row = json.loads(result.out.splitlines()[0])
    assert (row["metric"], row["reason"]) == ("precision", "nothing is predicted where there is a truth")
    distance = cli("chex-eval", tmp_path / "pred", "--truth", tmp_path / "truth", "--metric", "hd95")
    assert json.loads(distance.out.splitlines()[0])["reason"] == "undefined for all 1 CXRs with a truth"


def test_a_tolerance_forgives_a_near_miss(world):
    near = np.zeros(SIZE)
    near[17, 20] = 1  # three rows below the last of the truth
    for tolerance, hit in ((0, 0), (2.9, 0), (3, 1)):
        row = world({"p": (near, None)}, metrics=("hit",), tolerance=tolerance)["hit"]
        assert row["observed"] == hit
        assert row["chance"] == pytest.approx(TRUTH.mean()) if not tolerance else row["chance"] > TRUTH.mean()
    assert row["tolerance"] == 3
    assert world({"p": (near, None)}, metrics=("hit",), tolerance=3, tolerance_size=120)["hit"]["observed"] == 0


def test_distances_in_mm(world, cli, tmp_path):
    moved = np.roll(TRUTH, 4, axis=0)  # down by four rows
    by_pixel, by_mm = (world({"p": (None, moved)}, metrics=("hd95", "nsd"), spacing=s) for s in (None, 0.5))
    assert (by_pixel["hd95"]["mean"], by_pixel["hd95"]["unit"]) == (4, "px")
    assert (by_mm["hd95"]["mean"], by_mm["hd95"]["unit"], by_mm["hd95"]["spacing"]) == (2, "mm", 0.5)
    assert by_mm["nsd"]["mean"] == 1 > by_pixel["nsd"]["mean"]
    record = json.loads((tmp_path / "records").read_text()) | {"spacing": [0.25, 0.1]}
    arguments = ("chex-eval", "--truth", tmp_path / "gt.json", "--metric", "hd95", "--spacing", "record")
    result = cli(*arguments, stdin=json.dumps(record).encode() + b"\n")
    assert json.loads(result.out.splitlines()[0])["mean"] == 1
    del record["spacing"]
    result = cli(*arguments, stdin=json.dumps(record).encode() + b"\n")
    assert result.code == 1 and 'no "spacing"' in result.err
    assert cli(*arguments[:-1], "0", stdin=b"").code == 2


def test_a_sign_counts(world):
    signed = np.where(TRUTH, -1.0, 0.1)
    energies = [
        world({"p": (signed, None)}, metrics=("energy",), sign=sign)["energy"]["mean"] for sign in ("abs", "positive")
    ]
    assert energies == [pytest.approx(200 / (200 + 220)), 0]


def test_each_metric_is_as_if_it_were_asked_alone(world):
    random = np.random.default_rng(0)
    predictions = {f"p{k}": (random.random((8, 12)), random.random(SIZE) < 0.3) for k in range(3)}
    together = world(predictions)
    for name in NEW:
        assert world(predictions, metrics=(name,))[name] == together[name]


def test_values_by_cxr_are_written_and_options_of_other_metrics_refused(cli, world, tmp_path):
    world({"p": (TRUTH.astype(float), TRUTH)})
    arguments = ("chex-eval", tmp_path / "records", "--truth", tmp_path / "gt.json")
    assert cli(*arguments, "--metric", "pixel-auroc", "--per-image", tmp_path / "i").code == 0
    assert json.loads((tmp_path / "i").read_text())["pixel-auroc"] == {"Edema": 1.0}
    result = cli(*arguments, "--metric", "energy", "--lesion-rule", "covered")
    assert result.code == 2 and "--lesion-rule is for --metric lesion-recall or lesion-precision or froc" in result.err
