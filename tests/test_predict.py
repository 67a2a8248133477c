"""chex-predict: means over checkpoints, what a score is, and floors that need no network."""

from __future__ import annotations

import json
import math
import subprocess

import numpy as np
import pytest
import torch
from conftest import DATA, ROOT, launcher
from PIL import Image

from chextools.metrics import scores
from chextools.models import architectures, checkpoints, inference
from chextools.predict import Predictor
from chextools.xrays import packs

CXRS = DATA / "cxr"
ARCH = "shufflenet_v2_x0_5"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def make(path, tasks: list[str], seed: int, size: int = 32, **policy: str):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = architectures.build(ARCH, len(checkpoints.output_names(tasks, policy)))
    with torch.no_grad():
        network.fc.weight *= 20  # an untrained network scores all images alike
    checkpoints.save(path, checkpoints.Checkpoint(ARCH, tasks, size, network, policy=policy))
    return path


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Checkpoints a and b of Edema and Fracture, at 32 pixels, and c of Edema with three classes, at 48."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return (
        make(folder / "a.pt", ["Edema", "Fracture"], 1),
        make(folder / "b.pt", ["Fracture", "Edema"], 2),
        make(folder / "c.pt", ["Edema"], 3, 48, Edema="multiclass"),
    )


@pytest.fixture
def predict(cli):
    """Records by id."""

    def call(paths, *options: object, images=(CXRS / "valid.csv",)):
        named = [word for path in paths for word in ("--checkpoint", path)]
        result = cli("chex-predict", *images, *named, *options)
        assert result.code == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()], result.err

    return call


def column(records: list[dict], task: str, key: str = "scores") -> np.ndarray:
    return np.array([record[key][task] for record in records])


def test_a_score_is_the_networks_probability(predict, three):
    records, err = predict(three[:1], "--logits")
    assert len(records) == 8 and "running on the CPU" in err or torch.cuda.is_available()
    checkpoint = checkpoints.load(three[0])
    images = np.stack([packs.pixels(record, 32) for record in records])
    expected = checkpoint.scores(checkpoint.model(inference.normalise(images, checkpoint.mean, checkpoint.std)))
    np.testing.assert_allclose(column(records, "Edema"), expected[:, 0], atol=1e-5)
    logits = column(records, "Edema", "logits")
    np.testing.assert_allclose(column(records, "Edema"), 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert {record["model"] for record in records} == {checkpoint.sha256}
    assert records[0]["labels"] == {"Cardiomegaly": 1, "Airspace Opacity": 0, "Edema": -1}


def test_several_checkpoints_average_whatever_their_order_of_tasks_and_size(predict, three):
    alone = [predict([path])[0] for path in three]
    both = predict(three)[0]
    np.testing.assert_allclose(column(both, "Edema"), np.mean([column(r, "Edema") for r in alone], axis=0), rtol=1e-9)
    np.testing.assert_allclose(column(both, "Fracture"), np.mean([column(r, "Fracture") for r in alone[:2]], axis=0))
    assert both[0]["model"] not in {r[0]["model"] for r in alone}


def test_a_multiclass_score_drops_the_uncertain_output(predict, three):
    records = predict(three[2:])[0]
    checkpoint = checkpoints.load(three[2])
    images = np.stack([packs.pixels(record, 48) for record in records])
    output = checkpoint.model(inference.normalise(images, checkpoint.mean, checkpoint.std))
    np.testing.assert_allclose(column(records, "Edema"), output[:, :2].softmax(dim=1)[:, 1], atol=1e-5)


def test_batches_are_halved_where_memory_is_short(cli, three, monkeypatch):
    options = [CXRS / "valid.csv", "--checkpoint", three[0], "--batch-size", "8", "-q"]
    whole = cli("chex-predict", *options).out
    sizes, real = [], Predictor._predict

    def short(self, images):
        sizes.append(len(next(iter(images.values()))))
        if sizes[-1] > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, images)

    monkeypatch.setattr(Predictor, "_predict", short)
    halved = cli("chex-predict", *options)
    assert halved.code == 0 and sizes == [8, 4, 2, 2, 4, 2, 2]
    for a, b in zip(map(json.loads, halved.out.splitlines()), map(json.loads, whole.splitlines())):
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)

    def never(self, images):
        raise MemoryError

    monkeypatch.setattr(Predictor, "_predict", never)
    failed = cli("chex-predict", *options)
    assert failed.code == 1 and failed.out == "" and failed.err.count("\n") == 1 and "memory" in failed.err


def test_an_ensemble_selects_per_task(predict, three, tmp_path):
    a, b, _ = three
    path = tmp_path / "ensemble.json"
    path.write_text(json.dumps({"tasks": {"Edema": [str(a)], "Fracture": [str(a), str(b)]}}))
    records, alone, both = predict([path])[0], predict([a])[0], predict([a, b])[0]
    assert (column(records, "Edema") == column(alone, "Edema")).all()
    assert (column(records, "Fracture") == column(both, "Fracture")).all()
    path.write_text(json.dumps({"tasks": {"Cardiomegaly": [str(a)]}}))
    with pytest.raises(AssertionError, match="has no task 'Cardiomegaly', of which an ensemble names it"):
        predict([path])


def test_batches_change_nothing_but_the_last_digits(predict, three):
    one, eight = (predict(three[:1], "--batch-size", n)[0] for n in (1, 8))
    np.testing.assert_allclose(column(one, "Edema"), column(eight, "Edema"), atol=1e-5)


def test_a_task_is_chosen_or_refused(cli, predict, three):
    assert predict(three[:1], "--task", "Fracture")[0][0]["scores"].keys() == {"Fracture"}
    for task, words in (("Edeam", "did you mean 'Edema'?"), ("Cardiomegaly", "no task 'Cardiomegaly'; it has Edema")):
        result = cli("chex-predict", CXRS / "valid.csv", "--checkpoint", three[0], "--task", task)
        assert result.code == 1 and result.out == "" and words in result.err.splitlines()[-1]


def test_images_of_one_grey_level_are_warned_of(predict, three, tmp_path):
    for name, level in (("black", 0), ("gray", 90)):
        Image.new("L", (40, 40), level).save(tmp_path / f"{name}.png")
    _, err = predict(three[:1], images=[tmp_path])
    assert "black.png: all black: its scores mean nothing" in err and "gray.png: all one grey level" in err
    for name in ("black", "gray"):
        Image.new("L", (40, 40), 0).save(tmp_path / f"{name}.png")
    assert "all 2 images have the same scores" in predict(three[:1], images=[tmp_path])[1]


def test_an_image_that_cannot_be_read_fails_alone(cli, three, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = cli("chex-predict", tmp_path / "bad.png", CXRS / "valid.csv", "--checkpoint", three[0])
    assert result.code == 1 and len(result.out.splitlines()) == 8
    assert "bad.png: not an image of a known kind; skipped" in result.err
    assert result.err.endswith("chex-predict: error: 1 of 9 records failed\n")


def test_what_can_be_known_is_said_before_torch_is_imported():
    code = (
        "import sys; from chextools.cli.predict import main\n"
        "sys.argv[1:] = ['x.csv', '--checkpoint', 'no/such.pt']\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run([launcher("chex-predict")[0], "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "False\n")
    assert result.stderr.endswith("error: no/such.pt: No such file or directory\n")


def test_it_ends_though_stdin_does_not(three):
    """With --fail-fast the reader may still wait for input that never comes."""
    command = [*launcher("chex-predict"), "--checkpoint", str(three[0]), "--fail-fast", "-q", "--batch-size", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b'{"id": "x", "image": "no/such.png"}\n')
        process.stdin.flush()
        assert process.wait(60) == 1
        assert process.stderr.read().startswith(b"chex-predict: error: stopped at the first failure")


# Floors


def test_a_floor_tells_sizes_of_files_apart_without_torch(cli, tmp_path):
    random = np.random.default_rng(0)
    rows = ["Path,Edema,Fracture"]
    for k in range(12):
        noise = random.integers(0, 2 + 200 * (k % 2), (64, 64), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(20)).save(tmp_path / f"patient{k}.png")
        rows.append(f"patient{k}.png,{k % 2},1")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    for floor in ("filesize", "exposure", "thumbnail", "both"):
        result = cli("chex-predict", tmp_path / "train.csv", "--floor", floor, "--fit", tmp_path / "train.csv")
        records = [json.loads(line) for line in result.out.splitlines()]
        assert result.code == 0 and records[0]["model"] == f"floor:{floor}"
        assert scores.value("auroc", column(records, "Edema"), column(records, "Edema", "labels")) == 1
        assert "Fracture: left out, as a class is missing" in result.err


def test_exposure_knows_nothing_of_where(tmp_path):
    from chextools.models import floors

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    pixels[:, :20] //= 4
    for name, array in (("whole", pixels), ("mirrored", pixels[:, ::-1]), ("darker", pixels // 2)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    found = {name: floors.features_of(tmp_path / f"{name}.png", "exposure") for name in ("whole", "mirrored", "darker")}
    np.testing.assert_allclose(found["whole"], found["mirrored"], rtol=1e-12)
    assert found["whole"][0] == pixels.mean() / 255 and found["whole"][4] == np.median(pixels) / 255
    assert (found["darker"][2:] < found["whole"][2:]).all()


def test_the_floor_is_a_ridge_logistic_regression(tmp_path):
    """At its optimum the gradient vanishes: residuals are orthogonal to the features, less the penalty."""
    from chextools.models import floors

    random = np.random.default_rng(0)
    table = np.column_stack([np.ones(50), random.normal(size=(50, 3))])
    positive = random.random(50) < 0.5
    weights = floors._logistic(table, positive)
    residual = table.T @ (1 / (1 + np.exp(-table @ weights)) - positive)
    np.testing.assert_allclose(residual[1:], -weights[1:], atol=1e-6)
    assert math.isclose(residual[0], 0, abs_tol=1e-5)


def test_a_floor_and_a_checkpoint_exclude_each_other(cli, three):
    for options, words in (
        ((), "Missing option '--checkpoint'"),
        (("--floor", "filesize"), "--floor and --fit go together"),
        (("--floor", "filesize", "--fit", "x", "--checkpoint", three[0]), "without --checkpoint"),
    ):
        result = cli("chex-predict", "x", *options)
        assert result.code == 2 and words in result.err
