"""chex-probe: records and rows, runs that go on, heatmaps from elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import DATA
from PIL import Image

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.heatmaps.study_pickles import file_name, write_study_pickle
from chextools.heatmaps.surface import bilinear
from chextools.metrics.catalogue import PROBED
from chextools.models import architectures, checkpoints
from chextools.probing.networks import Networks
from chextools.probing.probes import PROBES

TASKS = ["Cardiomegaly", "Edema"]
IMAGES = sorted((DATA / "cxr").rglob("*.*g"))[:4]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = architectures.build("shufflenet_v2_x0_5", 2)
    path = tmp_path_factory.mktemp("networks") / "small.pt"
    checkpoints.save(path, checkpoints.Checkpoint("shufflenet_v2_x0_5", list(TASKS), 32, network))
    return str(path)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with maps/*.npz and the study's pickles of the same, and the records of the former."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "maps").mkdir()
    (folder / "pickles").mkdir()
    lines = []
    for number, path in enumerate(IMAGES):
        with Image.open(path) as image:
            size = image.size[::-1]
        rng = np.random.default_rng(number)
        maps = dict(zip(TASKS, rng.random((2, 4, 4)).astype(np.float32)))
        if number == 1:
            maps["Edema"][:] = 0
        name = f"patient{number}_study1_view1_frontal"
        heatmaps = Heatmaps(name, size, maps, input_size=(32, 32), method="gradcam")
        write_npz(folder / f"maps/{name}.npz", heatmaps)
        for task, values in maps.items():
            with open(folder / "pickles" / file_name(name, task), "wb") as stream:
                larger, grey = bilinear(values, (32, 32)), np.zeros((32, 32), np.uint8)
                write_study_pickle(stream, larger, task, 0.5, 1, grey, size)
        lines.append({"id": name, "image": str(path), "heatmap": str(folder / f"maps/{name}.npz"), "mine": [number]})
    (folder / "maps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def probe(cli, checkpoint):
    def call(*arguments, **options):
        return cli("chex-probe", "--checkpoint", checkpoint, "--device", "cpu", "--steps", "3", *arguments, **options)

    return call


def records(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_records_have_values_floors_and_curves(probe, work):
    result = probe(work / "maps.jsonl", "--curve", "--metric", "deletion")
    assert result.code == 0
    for number, record in enumerate(records(result.out)):
        assert record["mine"] == [number] and record["probes"]["deletion"] == (
            "steps=3 baseline=zero score=probability seed=0"
        )
        for key in ("deletion", "deletion_random", "deletion_centre"):
            for task, curve in record["curves"][key].items():
                assert len(curve) == 4 and all(0 <= score <= 1 for score in curve)
                assert record[key][task] == pytest.approx(np.trapezoid(curve) / 3)
        ends = {(curve["Edema"][0], curve["Edema"][-1]) for curve in record["curves"].values() if "Edema" in curve}
        assert len(ends) == 1  # whatever the order
    flat = records(result.out)[1]
    assert flat["deletion"]["Edema"] is None and flat["deletion_random"]["Edema"] is not None
    assert flat["undefined"] == {"deletion": {"Edema": "the heatmap is flat"}}


def test_rows_are_means_of_records(probe, work, tmp_path):
    rows = tmp_path / "rows.jsonl"
    found = records(probe(work / "maps.jsonl", "--summary", rows, "--metric", "deletion", "--metric", "road").out)
    by_name = {(row["metric"], row["task"]): row for row in records(rows.read_text())}
    assert list(by_name) == [(m, t) for m in ("deletion", "road") for t in (*TASKS, "Average")]
    row = by_name["deletion", "Edema"]
    kept = [record for record in found if record["deletion"]["Edema"] is not None]
    assert row["n"] == len(kept) == 3
    assert row["observed"] == pytest.approx(np.mean([record["deletion"]["Edema"] for record in kept]))
    assert row["chance"] == pytest.approx(np.mean([record["deletion_random"]["Edema"] for record in kept]))
    assert row["floor"] == pytest.approx(np.mean([record["deletion_centre"]["Edema"] for record in kept]))
    assert row["lower"] <= row["mean"] <= row["upper"] and row["steps"] == 3 and row["baseline"] == "zero"
    road = by_name["road", "Average"]
    assert road["chance"] == 0 and road["observed"] == pytest.approx(road["least"] - road["most"])


def test_the_studys_pickles_are_probed_with_images(probe, work):
    own = records(probe(work / "maps.jsonl").out)
    result = probe(work / "pickles", "--images", work / "maps.jsonl")
    assert result.code == 0
    for ours, theirs in zip(own, records(result.out)):
        for key in ("deletion", "insertion", "insertion_random"):
            assert theirs[key] == pytest.approx(ours[key])
    result = probe(work / "pickles")
    assert result.code == 1 and "name the X-rays with --images" in result.err and result.out == ""
    result = probe(work / "pickles", "--images", work / "maps.jsonl", "--metric", "randomisation")
    assert result.code == 1 and "does not say by which method of chex-cam" in result.err


def test_shards_are_the_whole(probe, work):
    whole = sorted(probe(work / "maps.jsonl").out.splitlines())
    parts = [probe(work / "maps.jsonl", "--shard", f"{n}/3").out.splitlines() for n in (1, 2, 3)]
    assert sorted(sum(parts, [])) == whole


def test_a_killed_run_goes_on(probe, work, tmp_path, monkeypatch):
    whole = probe(work / "maps.jsonl").out
    lines = whole.splitlines(keepends=True)
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    part.write_text(lines[0] + lines[1] + lines[2][:40])  # what kill -9 leaves
    plans = []
    original = Networks.scores
    monkeypatch.setattr(Networks, "scores", lambda self, p, score: plans.extend(p) or original(self, p, score))
    assert probe(work / "maps.jsonl", "-o", out, "--resume").code == 0
    assert out.read_text() == whole and not part.exists()
    assert {subject.id for subject, _ in plans} == {record["id"] for record in records(whole)[2:]}
    plans.clear()
    assert probe(work / "maps.jsonl", "-o", out, "--resume").code == 0
    assert out.read_text() == whole and not plans
    probe(work / "maps.jsonl", "-o", out, "--resume", "--seed", "1")  # other options: nothing is finished
    assert {subject.id for subject, _ in plans} == {record["id"] for record in records(whole)}
    assert probe(work / "maps.jsonl", "--resume").code == 2


def test_what_does_not_fit_is_said(probe, work, tmp_path):
    first = json.loads((work / "maps.jsonl").read_text().splitlines()[0])
    other = str(IMAGES[0].parents[2] / "nothing.png")
    lines = [first | {"id": "a"}, first | {"image": other}, first | {"id": "b", "method": "lrp rule=epsilon"}]
    result = probe(stdin="".join(json.dumps(line) + "\n" for line in lines).encode())
    assert result.code == 1 and result.err.count("; skipped") == 3
    assert "holds the heatmap of" in result.err and "nothing.png" in result.err
    lines = [first, json.loads((work / "maps.jsonl").read_text().splitlines()[1]) | {"method": "layercam"}]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    result = probe("--metric", "sensitivity", "--samples", "2", stdin=text)
    assert "made by layercam, those of the first record by gradcam" in result.err and len(records(result.out)) == 1
    result = probe(stdin=json.dumps(first | {"model": "0" * 64}).encode() + b"\n")
    assert result.code == 0 and result.err.count("another model") == 1
    result = probe("--samples", "3", work / "maps.jsonl")
    assert result.code == 2 and "--samples is for faithfulness and sensitivity" in result.err
    result = probe("--metric", "randomisation", stdin=json.dumps(first | {"method": "mean"}).encode() + b"\n")
    assert result.code == 1 and "of no network" in result.err


def test_probes_are_compared_as_other_results_are(cli, probe, work, tmp_path):
    assert tuple(PROBES) == PROBED
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_text(probe(work / "maps.jsonl").out)
    other.write_text(probe(work / "maps.jsonl", "--sign", "raw", "--baseline", "mean").out)
    result = cli("chex-compare", one, other, "--metric", "insertion")
    assert result.code == 0
    means = [[r["insertion"]["Cardiomegaly"] for r in records(path.read_text())] for path in (one, other)]
    row = next(row for row in records(result.out) if row["task"] == "Cardiomegaly")
    assert row["n"] == len(IMAGES) and row["metric"] == "insertion"
    assert any(value == pytest.approx(np.mean(means[0])) for value in row.values() if isinstance(value, float))
