"""chex-cam: records, files, ensembles, the study's pickles, going on after a kill, and what it refuses."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, launcher
from PIL import Image
from test_canonical import one_thread  # noqa: F401
from test_memory import peak_megabytes

from chextools import cam
from chextools.errors import InputError
from chextools.heatmaps.folders import index_folder
from chextools.heatmaps.reading import heatmaps_of
from chextools.heatmaps.study_pickles import read_study_pickle
from chextools.models import architectures, checkpoints, inference
from chextools.saliency import deeplift, ensembles
from chextools.saliency.gradcam import maps as gradcam
from chextools.saliency.methods import METHODS
from chextools.saliency.network import Network
from chextools.saliency.settings import MethodSettings
from chextools.tasks import CHEXPERT, STUDY
from chextools.xrays import images

CXRS = DATA / "cxr/valid.csv"


def checkpoint(path: Path, arch: str = "resnet18", tasks=CHEXPERT, size: int = 64, seed: int = 0, policy=None) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = architectures.build(arch, len(checkpoints.output_names(tasks, policy or {})), size)
    checkpoints.save(path, checkpoints.Checkpoint(arch, list(tasks), size, network, policy=policy or {}))
    return path


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("one") / "one.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("two") / "two.pt", seed=1)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def xrays(folder: Path, count: int) -> Path:
    """Noise, one file per image."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (40 + i % 3, 50), np.uint8)).save(folder / f"patient{i:05d}.png")
    return folder


def test_records_and_files_say_the_same(cli, tmp_path, one):
    result = cli("chex-cam", CXRS, "--checkpoint", one, "-o", tmp_path / "maps")
    assert result.code == 0, result.err
    records = lines(result.out)
    assert len(records) == 8
    loaded = checkpoints.load(one)
    net = Network(loaded.model)
    for record in records:
        assert record["method"] == "gradcam" and record["target"] == "logit"
        assert record["model"] == loaded.sha256
        assert list(record["scores"]) == list(STUDY)  # the ten by default
        read = heatmaps_of(record)
        assert read.size == images.measure(record["image"]).size == tuple(record["size"])
        assert (read.method, read.model, read.input_size) == ("gradcam", loaded.sha256, (64, 64))
        assert read.scores == record["scores"]
        pixels = inference.normalise(images.load(record["image"], 64)[None], loaded.mean, loaded.std)
        expected = gradcam(net, pixels, [loaded.tasks.index(task) for task in STUDY])[0].numpy()
        np.testing.assert_allclose(np.stack(list(read.maps.values())), expected, atol=1e-5 * expected.max())
        with torch.no_grad():
            scores = loaded.scores(loaded.model(pixels))[0]
        assert record["scores"]["Edema"] == pytest.approx(float(scores[loaded.tasks.index("Edema")]), abs=1e-6)


def test_maps_go_on_to_segment_and_eval(cli, tmp_path, one):
    made = cli("chex-cam", CXRS, "--checkpoint", one, "-o", tmp_path / "maps", "--method", "hirescam", "-q")
    masks = cli("chex-segment", "-q", stdin=made.out.encode())
    assert masks.code == 0
    assert cli("chex-segment", tmp_path / "maps", "-q").code == 0
    assert lines(masks.out)[0]["masks"]["Edema"]["size"] == lines(made.out)[0]["size"]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("gradcam", "rollout")])  # no attention
def test_every_method_makes_maps(cli, tmp_path, one, method):
    more = ["--window", 16, "--stride", 16] if method == "occlusion" else []
    options = ["--checkpoint", one, "-o", tmp_path, "--method", method, "--task", "Edema", "-q", *more]
    result = cli("chex-cam", CXRS, *options)
    assert result.code == 0, result.err
    records = lines(result.out)
    assert len(records) == 8 and all(record["method"].split()[0] == method for record in records)
    maps = np.stack([heatmaps_of(record).maps["Edema"] for record in records])
    assert np.isfinite(maps).all()
    if method == "occlusion":
        assert maps.shape == (8, 64, 64) and records[0]["method"] == "occlusion window=16 stride=16 baseline=zero"


def test_the_mean_floor_is_the_mean_of_the_other_images_gradcam(cli, tmp_path, one):
    options = ["--checkpoint", one, "--task", "Edema", "-q"]
    plain = lines(cli("chex-cam", CXRS, *options, "-o", tmp_path / "plain").out)
    mean = lines(cli("chex-cam", CXRS, *options, "-o", tmp_path / "mean", "--method", "mean").out)
    maps = np.stack([heatmaps_of(record).maps["Edema"] for record in plain])
    greatest = np.abs(maps).max((1, 2), keepdims=True)
    maps = np.divide(maps, greatest, where=greatest > 0, out=maps)
    for n, record in enumerate(mean):
        expected = np.delete(maps, n, 0).mean(0)
        np.testing.assert_allclose(heatmaps_of(record).maps["Edema"], expected, atol=1e-6)
    (alone,) = lines(cli("chex-cam", plain[0]["image"], *options, "-o", tmp_path / "x", "--method", "mean").out)
    assert alone["failed"] == {"Edema": "the map holds NaN or infinity"}


def test_occlusion_can_be_black(cli, tmp_path, one):
    """Black of the image, not 0 after normalisation: in a black image nothing is lost."""
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(tmp_path / "patient1.png")
    options = [tmp_path / "patient1.png", "--checkpoint", one, "--method", "occlusion", "--task", "Edema"]
    black = lines(cli("chex-cam", *options, "-o", tmp_path / "black", "--baseline", "black").out)
    grey = lines(cli("chex-cam", *options, "-o", tmp_path / "grey").out)
    assert np.abs(heatmaps_of(black[0]).maps["Edema"]).max() < 1e-5
    assert np.abs(heatmaps_of(grey[0]).maps["Edema"]).max() > 1e-4


# What maps should sum to


def test_the_delta_of_each_map_is_in_record_and_file(cli, tmp_path, one, monkeypatch):
    """Of methods whose maps should sum to a change in logit; how far off ig is, is said once."""
    monkeypatch.setattr(cam, "INCOMPLETE", 0.0)  # untrained networks are nearly linear
    options = [CXRS, "--checkpoint", one, "--task", "Edema", "--task", "Fracture"]
    found = {}
    for method, more in (("ig", ["--steps", 2]), ("deeplift", []), ("lrp", []), ("gradcam", []), ("smoothgrad", [])):
        result = cli("chex-cam", *options, "-o", tmp_path / method, "--method", method, *more)
        told = re.findall(r"(\d+) of 16 heatmaps miss the change in logit by more than 0% of it", result.err)
        assert result.code == 0 and told == (["16"] if method == "ig" else [])
        found[method] = [(record.get("delta"), heatmaps_of(record)) for record in lines(result.out)]
    for method in ("ig", "deeplift", "lrp"):
        for delta, made in found[method]:
            assert list(delta) == ["Edema", "Fracture"] and made.delta == delta
    assert max(abs(d) for delta, _ in found["deeplift"] for d in delta.values()) < 1e-4
    assert [delta for method in ("gradcam", "smoothgrad") for delta, _ in found[method]] == [None] * 16


def test_a_map_that_is_not_complete_has_failed(cli, tmp_path, one, monkeypatch):
    """Also when resumed, and for the commands that read it."""
    for name in ("TOLERANCE", "ROUNDING"):
        monkeypatch.setattr(ensembles, name, 0.0)
    options = [CXRS, "--checkpoint", one, "--task", "Edema", "-o", tmp_path / "maps", "--method", "deeplift"]
    first, again = (cli("chex-cam", *options, *more) for more in ([], ["--resume"]))
    assert first.code == again.code == 1 and again.out == first.out
    failed = [record["failed"]["Edema"] for record in lines(first.out) if "failed" in record]
    assert failed and all("does not sum to the change in logit: its completeness delta is" in each for each in failed)
    read = lines(cli("chex-segment", stdin=first.out.encode()).out)
    assert [record["failed"]["Edema"] for record in read if "failed" in record] == failed


def test_a_map_that_is_a_hundredth_off_has_failed_and_rounding_has_not(cli, tmp_path, one, monkeypatch):
    """At the tolerances that users get; where logits hardly change, float32 is what is left of a map."""
    weak = checkpoint(tmp_path / "weak.pt", "resnet18", ["Edema"])
    content = torch.load(weak, weights_only=True)
    content["state_dict"]["fc.weight"] *= 1e-6  # the change drowns in the rounding of logit and bias
    torch.save(content, weak)
    options = ["-o", tmp_path / "maps", "--method", "deeplift", "--task", "Edema", "-q", "-f", CXRS]
    for path in (one, weak):
        assert cli("chex-cam", *options, "--checkpoint", path).code == 0
    exact = deeplift.maps
    monkeypatch.setattr(deeplift, "maps", lambda *given, **more: 1.01 * exact(*given, **more))
    assert "8 of 8 records failed" in cli("chex-cam", *options, "--checkpoint", one).err


def test_the_sign_goes_with_the_maps(cli, tmp_path, one):
    options = [CXRS, "--checkpoint", one, "--task", "Edema", "--method", "lrp", "-q", "-o"]
    plain, signed = (
        cli("chex-cam", *options, tmp_path / name, *more).out for name, more in (("a", []), ("b", ["--sign", "abs"]))
    )
    assert [record.get("sign") for record in lines(plain + signed)] == [None] * 8 + ["abs"] * 8
    masks = {
        name: [(record["sign"], record["masks"]) for record in lines(cli("chex-segment", *words, stdin=stdin).out)]
        for name, words, stdin in (
            ("default", [], plain.encode()),
            ("said here", ["--sign", "abs"], plain.encode()),
            ("said there", [], signed.encode()),
            ("of the file", [tmp_path / "b"], b""),
            ("overruled", ["--sign", "positive"], signed.encode()),
        )
    }
    assert masks["default"] == masks["overruled"] != masks["said here"]
    assert masks["said here"] == masks["said there"] == masks["of the file"]
    refused = cli("chex-cam", *options, tmp_path / "b", "--resume")
    assert refused.code == 1 and "made with another --sign (abs)" in refused.err


def test_a_network_without_rules_is_refused_before_any_image(cli, tmp_path):
    path = checkpoint(tmp_path / "c.pt", "shufflenet_v2_x0_5", ["Edema"])
    result = cli("chex-cam", "missing.csv", "--checkpoint", path, "-o", tmp_path / "maps", "--method", "rollout")
    assert result.code == 1 and result.out == "" and result.err.count("\n") == 1
    other = cli("chex-cam", CXRS, "--checkpoint", path, "-o", tmp_path / "maps", "--method", "rollout", "-q")
    assert other.code == 1 and re.match("chex-cam: error: .*c.pt: rollout: .* has no attention", other.err)


# Ensembles


def test_an_ensemble_is_the_mean_of_maps_and_scores(cli, tmp_path, one, two):
    def run(name, *paths):
        options = [word for path in paths for word in ("--checkpoint", path)]
        return lines(cli("chex-cam", CXRS, *options, "-o", tmp_path / name, "-q").out)

    a, b, both = run("a", one), run("b", two), run("both", one, two)
    for x, y, mean in zip(a, b, both):
        maps = [np.stack(list(heatmaps_of(record).maps.values())) for record in (x, y, mean)]
        np.testing.assert_allclose(maps[2], (maps[0] + maps[1]) / 2, atol=1e-7 * np.abs(maps).max())
        assert mean["scores"]["Edema"] == pytest.approx((x["scores"]["Edema"] + y["scores"]["Edema"]) / 2)
        assert mean["checkpoints"] == [str(one), str(two)]
        assert mean["model"] == checkpoints.identity([checkpoints.load(one), checkpoints.load(two)], [None, None])


def test_an_ensemble_file_names_checkpoints_per_task(cli, tmp_path, one, two):
    file = tmp_path / "ensemble.json"
    file.write_text(json.dumps({"tasks": {"Edema": [str(one)], "Cardiomegaly": [str(one), str(two)]}}))
    record, *_ = lines(cli("chex-cam", CXRS, "--checkpoint", file, "-o", tmp_path / "maps", "-q").out)
    alone, *_ = lines(cli("chex-cam", CXRS, "--checkpoint", one, "-o", tmp_path / "one", "-q").out)
    assert list(record["scores"]) == ["Cardiomegaly", "Edema"]
    assert record["scores"]["Edema"] == alone["scores"]["Edema"]
    found, expected = (heatmaps_of(r).maps["Edema"] for r in (record, alone))
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # with other tasks beside it, last digits differ
    assert record["scores"]["Cardiomegaly"] != alone["scores"]["Cardiomegaly"]
    # Another choice from the same checkpoints is another model
    file.write_text(json.dumps({"tasks": {"Edema": [str(one), str(two)], "Cardiomegaly": [str(one)]}}))
    refused = cli("chex-cam", CXRS, "--checkpoint", file, "-o", tmp_path / "maps", "--resume")
    assert refused.code == 1 and "another model" in refused.err


def test_an_ensemble_that_does_not_fit_in_memory_is_read_anew_for_each_batch(cli, tmp_path, one, two, monkeypatch):
    from chextools.saliency import ensembles

    options = ["--checkpoint", one, "--checkpoint", two]
    expected = cli("chex-cam", CXRS, *options, "-o", tmp_path / "maps", "-q").out
    monkeypatch.setattr(ensembles.Ensemble, "_room", lambda self: 0)
    found = cli("chex-cam", CXRS, *options, "-o", tmp_path / "maps", "-f")
    assert found.out == expected and "2 of 2 checkpoints do not fit in memory" in found.err


def test_networks_of_other_sizes_and_resolutions_meet_at_the_larger_input(cli, tmp_path, one):
    other = checkpoint(tmp_path / "other.pt", "squeezenet1_1", ["Edema"], size=96)
    record, *_ = lines(cli("chex-cam", CXRS, "--checkpoint", one, "--checkpoint", other, "-o", tmp_path, "-q").out)
    read = heatmaps_of(record)
    assert read.input_size == (96, 96) and read.maps["Edema"].shape == (96, 96)


def test_parts_of_a_sum_keep_it_at_another_resolution(cli, tmp_path, one):
    """Maps of methods that attribute to the input sum to a change in logit; that of an ensemble to the mean change."""
    other = checkpoint(tmp_path / "other.pt", "resnet18", ["Edema"], size=96)
    options = [CXRS, "--task", "Edema", "--method", "deeplift", "-q", "-o"]

    def sums(name, *paths):
        words = [word for path in paths for word in ("--checkpoint", path)]
        found = [heatmaps_of(record) for record in lines(cli("chex-cam", *options, tmp_path / name, *words).out)]
        return np.array([made.maps["Edema"].sum(dtype=float) for made in found])

    mean = (sums("a", one) + sums("b", other)) / 2
    both = sums("both", one, other)
    assert np.abs(both - mean).max() < 0.1 * np.abs(mean).max()  # borders are repeated, nothing else


def test_multiclass_tasks_are_positive_minus_negative(cli, tmp_path):
    path = checkpoint(tmp_path / "mc.pt", "resnet18", ["Edema", "Mine"], policy={"Edema": "multiclass"})
    record, *_ = lines(
        cli(
            "chex-cam",
            CXRS,
            "--checkpoint",
            path,
            "-o",
            tmp_path,
            "--method",
            "hirescam",
            "--task",
            "Edema",
            "--task",
            "Mine",
            "-q",
        ).out
    )
    assert record["target"] == {"Edema": "positive minus negative logit", "Mine": "logit"}
    loaded = checkpoints.load(path)
    bias = loaded.model.fc.bias
    logit = np.log(record["scores"]["Edema"] / (1 - record["scores"]["Edema"]))
    total = heatmaps_of(record).maps["Edema"].sum()
    assert total == pytest.approx(logit - float(bias[1] - bias[0]), abs=1e-4)


# The study's pickles


def test_pickles_are_what_the_study_reads_and_what_we_read(cli, tmp_path, one):
    options = [CXRS, "--checkpoint", one, "--format", "pickles", "-q"]
    record, *_ = lines(cli("chex-cam", *options, "-o", tmp_path / "maps").out)
    own = heatmaps_of(record)
    path = tmp_path / "maps" / f"{record['id']}_Airspace Opacity_map.pkl"
    with path.open("rb") as stream:
        found = pickle.load(stream)  # as the study's scripts do
    upsampled = torch.nn.functional.interpolate(
        torch.tensor(own.maps["Airspace Opacity"])[None, None], (64, 64), mode="bilinear", align_corners=False
    )
    assert torch.equal(found["map"], upsampled) and found["map"].shape == (1, 1, 64, 64)
    assert found["cxr_dims"] == tuple(record["size"][::-1]) and found["cxr_img"].shape == (3, 64, 64)
    assert (found["task"], found["prob"], found["gt"]) == ("Airspace Opacity", own.scores["Airspace Opacity"], 0)
    ours = read_study_pickle(path)
    assert ours.size == own.size and ours.scores["Airspace Opacity"] == own.scores["Airspace Opacity"]
    assert torch.equal(torch.tensor(ours.maps["Airspace Opacity"]), upsampled[0, 0])
    again = cli("chex-cam", *options, "-o", tmp_path / "again")
    assert again.code == 0
    assert subprocess.run(["diff", "-r", tmp_path / "maps", tmp_path / "again"]).returncode == 0
    assert index_folder(tmp_path / "maps").kind == "npz"  # pickles beside them are copies


def test_a_task_that_a_pickles_name_cannot_hold_is_refused_before_work(cli, tmp_path):
    path = checkpoint(tmp_path / "t.pt", "resnet18", ["Pleural_Thickening", "a/../b"])
    for task in ("Pleural_Thickening", "a/../b"):
        result = cli(
            "chex-cam", CXRS, "--checkpoint", path, "-o", tmp_path / "o", "--task", task, "--format", "pickles", "-q"
        )
        assert result.code == 1 and result.err.count("\n") == 1 and "cannot be in the name of a pickle" in result.err
    assert cli("chex-cam", CXRS, "--checkpoint", path, "-o", tmp_path / "o", "-q").code == 0
    assert list((tmp_path / "o").rglob("*b*.npz")) == []


# Stopped and resumed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed_is_as_if_never_killed(tmp_path, one, number):
    folder = xrays(tmp_path / "in", 24)
    words = [
        *launcher("chex-cam"),
        folder,
        "--checkpoint",
        one,
        "--batch-size",
        "4",
        "-q",
        "--resume",
        "--method",
        "occlusion",
        "--window",
        "16",
        "--stride",
        "16",
        "-o",
    ]
    words = [str(word) for word in words]
    whole = subprocess.run([*words, "whole"], cwd=tmp_path, capture_output=True, timeout=120)
    assert whole.returncode == 0, whole.stderr
    maps = tmp_path / "maps"
    with subprocess.Popen([*words, "maps"], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(list(maps.glob("*.npz"))) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(30) == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    before = {path.name: path.stat().st_mtime_ns for path in maps.glob("*.npz")}
    assert 5 <= len(before) < 24
    resumed = subprocess.run([*words, "maps"], cwd=tmp_path, capture_output=True, timeout=120)
    assert resumed.returncode == 0
    assert resumed.stdout == whole.stdout.replace(b"whole/", b"maps/")
    assert subprocess.run(["diff", "-r", "whole", "maps"], cwd=tmp_path).returncode == 0
    assert [name for name, at in before.items() if (maps / name).stat().st_mtime_ns != at] == []


def test_resume_fills_gaps_with_the_same_bytes(cli, tmp_path, one):
    """A batch of which some is missing is computed as it was, so that sums are made in the same order."""
    options = [xrays(tmp_path / "in", 7), "--checkpoint", one, "--batch-size", "3", "-q", "-o", tmp_path / "maps"]
    whole = cli("chex-cam", *options)
    content = {path: path.read_bytes() for path in (tmp_path / "maps").iterdir()}
    for path in list(content)[::2]:
        path.unlink()
    resumed = cli("chex-cam", *options, "--resume")
    assert resumed.out == whole.out
    assert {path: path.read_bytes() for path in (tmp_path / "maps").iterdir()} == content


def test_finished_images_are_not_even_opened(cli, tmp_path, one):
    folder = xrays(tmp_path / "in", 3)
    options = ["--checkpoint", one, "-q", "-o", tmp_path / "maps"]
    whole = cli("chex-cam", folder, *options)
    bare = "".join(json.dumps({k: r[k] for k in ("id", "image", "patient")}) + "\n" for r in lines(whole.out))
    for path in folder.iterdir():
        path.unlink()
    assert cli("chex-cam", *options, "--resume", stdin=bare.encode()).out == whole.out


def test_another_method_model_or_task_in_the_folder_is_refused(cli, tmp_path, one, two):
    options = [CXRS, "-q", "-o", tmp_path]
    assert cli("chex-cam", *options, "--checkpoint", one, "--task", "Edema").code == 0
    for more, reason in (
        (["--checkpoint", one, "--method", "layercam"], "made by gradcam, not layercam"),
        (["--checkpoint", one, "--layer", "layer3"], "made by gradcam, not gradcam layer=layer3"),
        (["--checkpoint", two], "made by another model"),
    ):
        result = cli("chex-cam", *options, *more, "--task", "Edema", "--resume")
        assert (result.code, result.out) == (1, "") and reason in result.err and result.err.count("\n") == 1
    result = cli("chex-cam", *options[:1], *options[2:], "--checkpoint", one, "--resume")
    assert (result.code, result.out) == (1, "") and "has other tasks" in result.err


def test_existing_files_are_refused_one_by_one(cli, tmp_path, one):
    options = ["--checkpoint", one, "-o", tmp_path / "maps", "--task", "Edema"]
    first = lines(cli("chex-cam", CXRS, *options, "-q").out)
    (tmp_path / "maps" / f"{first[3]['id']}.npz").unlink()
    result = cli("chex-cam", CXRS, *options)
    assert result.code == 1 and [record["id"] for record in lines(result.out)] == [first[3]["id"]]
    assert result.err.count("exists; use --force to replace it") == 7
    assert lines(cli("chex-cam", CXRS, *options, "-q", "-f").out) == first


# What goes wrong


def test_maps_that_are_nan_have_failed_and_are_flagged_also_when_resumed(cli, tmp_path):
    path = tmp_path / "nan.pt"
    network = architectures.build("resnet18", 2)
    with torch.no_grad():
        network.fc.weight[0] = torch.nan
        network.fc.weight[1] = -network.fc.weight[1].abs()
    checkpoints.save(path, checkpoints.Checkpoint("resnet18", ["Edema", "Cardiomegaly"], 64, network))
    options = [CXRS, "--checkpoint", path, "-o", tmp_path / "maps"]
    for more in ([], ["--resume"]):
        result = cli("chex-cam", *options, *more)
        assert result.code == 1 and result.err.endswith("8 of 8 records failed\n")
        for record in lines(result.out):
            assert record["failed"] == {"Edema": "the map holds NaN or infinity"}
            assert record["flags"] == {"Edema": "NaN", "Cardiomegaly": "flat"}
            assert list(record["scores"]) == ["Cardiomegaly"]
    segmented = lines(cli("chex-segment", tmp_path / "maps", "-q").out)
    assert all("Edema" in record["failed"] for record in segmented)
    signed = cli("chex-cam", *options[:-1], tmp_path / "signed", "--method", "hirescam", "-q")
    assert all(record["flags"]["Cardiomegaly"] == "negative" for record in lines(signed.out))


def test_an_image_that_cannot_be_read_fails_alone(cli, tmp_path, one):
    folder = xrays(tmp_path / "in", 3)
    (folder / "patient00001.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    result = cli("chex-cam", folder, "--checkpoint", one, "-o", tmp_path / "maps")
    assert result.code == 1 and len(lines(result.out)) == 2 and "1 of 3 records failed" in result.err


def test_a_size_that_is_not_the_images_fails(cli, tmp_path, one):
    folder = xrays(tmp_path / "in", 1)
    line = json.dumps({"id": "x", "image": str(folder / "patient00000.png"), "size": [1, 2]})
    result = cli("chex-cam", "--checkpoint", one, "-o", tmp_path / "maps", stdin=line.encode())
    assert result.code == 1 and "the record's size is [1, 2]" in result.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--checkpoint", "no.pt", "-o", "o"], 1, "no.pt: No such file or directory"),
        (["--checkpoint", "ONE"], 2, "Missing option '-o'"),
        (["--checkpoint", "ONE", "-o", "file"], 1, "file: File exists"),
        (["--checkpoint", "ONE", "-o", "o", "--layer", "layer9"], 1, "has no layer 'layer9' (did you mean 'layer"),
        (["--checkpoint", "ONE", "-o", "o", "--layer", "fc"], 1, "gradcam: fc of ResNet is [14], not feature"),
        (["--checkpoint", "ONE", "-o", "o", "--task", "Oedema"], 1, "unknown task 'Oedema' (did you mean 'Edema'?)"),
        (["--checkpoint", "ONE", "-o", "o", "--window", "4"], 2, "--window is for --method occlusion"),
        (["--checkpoint", "ONE", "-o", "o", "--layer", "fc", "--method", "occlusion"], 2, "--layer is for methods"),
        (["--checkpoint", "ONE", "-o", "o", "--method", "occlusion", "--window", "99"], 1, "larger than the network's"),
        (["--checkpoint", "ONE", "-o", "o", "--method", "mean", "--shard", "1/2"], 2, "it has no --shard"),
        (["--checkpoint", "ONE", "-o", "o", "--device", "gpu"], 1, "--device gpu"),
        (["--checkpoint", "ONE", "-o", "o", "--batch-size", "0"], 2, "neither auto nor a number"),
        (["--checkpoint", "ONE", "-o", "o", "--baseline", "2"], 2, "grey level from 0 to 1"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_any_image(cli, tmp_path, monkeypatch, one, words, code, said):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    result = cli("chex-cam", CXRS, "-q", *[str(one) if word == "ONE" else word for word in words])
    assert (result.code, result.out) == (code, "")
    assert result.err.count("\n") == 1 and said in result.err, result.err
    assert not list(tmp_path.rglob("*.npz"))


def test_checks_before_work_do_not_import_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch')\n")
    words = [*launcher("chex-cam"), str(CXRS), "--checkpoint", "no.pt", "-o", "o"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert result.stderr == b"chex-cam: error: no.pt: No such file or directory\n"
    assert not (tmp_path / "o").exists()


def test_jobs_and_shards_change_no_file(cli, tmp_path, one):
    folder = xrays(tmp_path / "in", 9)
    options = [folder, "--checkpoint", one, "--batch-size", "1", "-q"]
    assert cli("chex-cam", *options, "-o", tmp_path / "whole", "-j", "3").code == 0
    for part in (1, 2):
        assert cli("chex-cam", *options, "-o", tmp_path / "parts", "--shard", f"{part}/2").code == 0
    assert subprocess.run(["diff", "-r", tmp_path / "whole", tmp_path / "parts"]).returncode == 0


def test_memory_is_flat_over_two_thousand_images(tmp_path, one):
    few, many = xrays(tmp_path / "few", 1), tmp_path / "many"
    for name, count in (("some", 100), ("many", 2000)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"patient{i:05d}.png").hardlink_to(few / "patient00000.png")
    options = ["--checkpoint", one, "-q", "-j", "1", "-o"]
    some = peak_megabytes("chex-cam", tmp_path / "some", *options, tmp_path / "maps1")
    assert peak_megabytes("chex-cam", many, *options, tmp_path / "maps2") < some + 20


def test_the_method_says_what_differs_from_its_defaults():
    assert MethodSettings().label(320) == "gradcam"
    assert MethodSettings(method="layercam", layer="layer3").label(320) == "layercam layer=layer3"
    assert MethodSettings(method="occlusion").label(320) == "occlusion window=40 stride=20 baseline=zero"
    assert (
        MethodSettings(method="occlusion", window=32, stride=32, baseline=0.5).label(320)
        == "occlusion window=32 stride=32 baseline=0.5"
    )
    assert MethodSettings(method="random", seed=3).label(320) == "random seed=3"
    assert MethodSettings(method="ig", steps=9, baseline="blur").label(320) == "ig steps=9 baseline=blur"
    assert MethodSettings(method="lrp").label(320) == "lrp rule=epsilon-plus"
    assert MethodSettings(method="smoothgrad", seed=3).label(320) == "smoothgrad samples=50 seed=3"


@pytest.mark.parametrize("method", METHODS)
def test_the_method_is_read_back_as_it_was_said(method):
    for more in ({}, {"layer": "layer3"}, {"window": 32, "stride": 8}, {"baseline": 0.25}, {"samples": 3, "seed": 5}):
        label = MethodSettings(method=method, **more).label(320)
        assert MethodSettings.parsed(label).label(320) == label


@pytest.mark.parametrize("label", ["", "foo", "gradcam steps=3", "ig steps", "ig steps=x", "ig batch=3", "ig  steps=3"])
def test_a_method_that_no_command_wrote(label):
    with pytest.raises(InputError):
        MethodSettings.parsed(label)
