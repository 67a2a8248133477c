"""chex-train: what it learns, what it writes, that nothing stops it from ending with the same weights, and what it
refuses before it starts.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import launcher, run
from PIL import Image

from chextools import train
from chextools.cli import base
from chextools.errors import InputError
from chextools.models import checkpoints
from chextools.plumbing import files
from chextools.training import augment
from chextools.training.folder import RunFolder
from chextools.training.ranks import ALONE

SMALL = ("--arch", "shufflenet_v2_x0_5", "--size", "32", "--batch-size", "4", "--device", "cpu")
SHORT = (*SMALL, "--steps", "6", "--checkpoint-every", "2", "--keep", "2")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Nets as small as these gain nothing from more, and lose much where other work runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """24 noisy images in CheXpert's layout, of which those with Edema are bright on one side; in train.csv and
    valid.csv. Fracture has uncertain and blank labels, Cardiomegaly one class, Support Devices none.
    """
    folder = tmp_path_factory.mktemp("xrays")
    random = np.random.default_rng(0)
    rows = []
    for k in range(24):
        name = f"patient{k:03}/study1/view1_frontal.png"
        pixels = random.integers(0, 100, (32, 32))
        pixels[:, :16] += 120 * (k % 2)
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        fracture = ("1.0", "0.0", "-1.0", "")[k // 2 % 4]
        rows.append(
            {"Path": name, "Edema": f"{k % 2:.1f}", "Fracture": fracture, "Cardiomegaly": "0.0", "Support Devices": ""}
        )
    for name, part in (("train.csv", rows[:16]), ("valid.csv", rows[16:])):
        write_csv(folder / name, part)
    return folder


def write_csv(path, rows) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path) -> list[dict]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def training(cli, xrays, tmp_path):
    """Run chex-train to tmp_path/NAME with these options; the result."""

    def call(name: str, *options: object, settings=SHORT):
        return cli(
            "chex-train",
            xrays / "train.csv",
            "--valid",
            xrays / "valid.csv",
            "-o",
            tmp_path / name,
            *settings,
            *options,
        )

    return call


def rows_of(result) -> list[dict]:
    return [json.loads(line) for line in result.out.splitlines()]


def contents(folder) -> dict[str, bytes]:
    """What must be the same; resume.pt holds times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "resume.pt"}


# What comes of it


def test_a_run_from_images_to_auroc(cli, training, xrays, tmp_path):
    """It learns what is plain to see, and chex-predict and chex-eval find the figures of its last row."""
    exposure = ("--brightness", "0.1", "--contrast", "0.1")  # of 16 images it learns little else otherwise
    still = ("--scale", "0", "--shift", "0", "--rotate", "0")
    learn = ("--lr", "3e-3", "--optimizer", "adamw", "--steps", "80", "--checkpoint-every", "40")
    result = training("RUN", *learn, *still, *exposure)
    assert result.code == 0
    first, last = rows_of(result)
    assert last["step"] == 80 and last["epoch"] == 20 and last["loss"] < first["loss"]
    assert last["auroc"]["Edema"] > 0.9 and 0 <= last["data_wait"] <= 1 and 0 < last["step_share"] <= 1
    run = tmp_path / "RUN"
    assert {p.name for p in run.iterdir()} == {
        "config.json",
        "best.pt",
        "last.pt",
        "ensemble.json",
        "resume.pt",
        "step-000040.pt",
        "step-000080.pt",
    }
    scored = cli("chex-predict", xrays / "valid.csv", "--checkpoint", run / "last.pt", "--batch-size", 4)
    assert cli("chex-eval", "--metric", "auroc", stdin=scored.out.encode()).code == 0
    measured = cli("chex-eval", "--metric", "brier", "--task", "Edema", stdin=scored.out.encode()).out.splitlines()[0]
    assert json.loads(measured)["mean"] == pytest.approx(last["brier"]["Edema"], abs=1e-6)
    checkpoint = checkpoints.load(run / "last.pt")
    assert (checkpoint.arch, checkpoint.size, checkpoint.step) == ("shufflenet_v2_x0_5", 32, 80)
    assert checkpoint.tasks == ["Edema", "Fracture"] and checkpoint.missing["Fracture"] == "negative"
    assert checkpoint.metrics["auroc"] == last["auroc"] and "images_per_second" not in checkpoint.metrics


def test_what_becomes_of_each_task_and_label_is_said(training):
    err = training("RUN", "--limit-batches", "1").err
    assert "left out: Cardiomegaly: no positive label" in err
    assert "Support Devices" in err and "no label at all" in err
    assert "train.csv: uncertain labels ignored: Fracture 4" in err
    assert "train.csv: blank labels taken for negative: Fracture 4" in err


def test_a_class_that_is_missing_makes_auroc_null(cli, xrays, tmp_path):
    write_csv(
        tmp_path / "valid.csv",
        [r | {"Edema": "1.0", "Path": f"{xrays}/{r['Path']}"} for r in read_csv(xrays / "valid.csv")],
    )
    result = cli(
        "chex-train",
        xrays / "train.csv",
        "--valid",
        tmp_path / "valid.csv",
        "-o",
        tmp_path / "RUN",
        *SMALL,
        "--task",
        "Edema",
        "--steps",
        "1",
    )
    (row,) = rows_of(result)
    assert result.code == 0 and row["auroc"] == {"Edema": None} and row["mean"] is None
    assert "AUROC undefined, as one class is missing: Edema" in result.err


def test_the_best_are_kept_and_ranked(training, tmp_path):
    rows = rows_of(training("RUN", "--steps", "8", "--rank-by", "loss", "--ensemble", "1"))
    order = sorted(rows, key=lambda row: row["valid_loss"])
    kept = {f"step-{row['step']:06}.pt" for row in order[:2]}
    assert {p.name for p in (tmp_path / "RUN").glob("step-*")} == kept
    best = checkpoints.load(tmp_path / "RUN/best.pt")
    assert best.step == order[0]["step"] and best.metrics["valid_loss"] == order[0]["valid_loss"]
    assert checkpoints.load(tmp_path / "RUN/last.pt").step == 8
    ensemble = checkpoints.read_ensemble(tmp_path / "RUN/ensemble.json")
    expected = max((row for row in rows if f"step-{row['step']:06}.pt" in kept), key=lambda row: row["auroc"]["Edema"])
    assert ensemble["Edema"] == [str(tmp_path / f"RUN/step-{expected['step']:06}.pt")]


def test_patience_ends_training(training):
    result = training("RUN", "--lr", "1e-12", "--patience", "2", "--steps", "100")
    assert [row["step"] for row in rows_of(result)][-1] < 100 and "no better auroc in 2 validations" in result.err


@pytest.mark.parametrize(
    "options",
    [
        ("--uncertain", "multiclass", "--class-weights", "balanced", "--schedule", "cosine", "--warmup", "1"),
        ("--optimizer", "sgd", "--accumulate", "2", "--clip", "0.5", "--channels-last", "--amp", "bf16", "--flip"),
    ],
)
def test_options_reach_the_checkpoint_and_the_config(cli, training, xrays, tmp_path, options):
    assert training("RUN", "--limit-batches", "2", "-v", *options).code == 0
    assert cli("chex-predict", xrays / "valid.csv", "--checkpoint", tmp_path / "RUN/best.pt").code == 0
    config = json.loads((tmp_path / "RUN/config.json").read_text())
    assert config["steps"] == 6 and config[options[0][2:].replace("-", "_")] in (options[1], [options[1]])


def test_a_config_replays_a_run_and_flags_override(cli, training, tmp_path):
    training("A", "--seed", "5", "--rotate", "0")
    config = ("--config", tmp_path / "A/config.json")
    assert cli("chex-train", *config, "-o", tmp_path / "B").code == 0
    assert contents(tmp_path / "A") == contents(tmp_path / "B")
    assert cli("chex-train", *config, "-o", tmp_path / "C", "--seed", "6").code == 0
    assert json.loads((tmp_path / "C/config.json").read_text())["seed"] == 6
    assert (tmp_path / "C/last.pt").read_bytes() != (tmp_path / "A/last.pt").read_bytes()
    (tmp_path / "bad.json").write_text('{"sead": 1}')
    assert (
        "unknown option 'sead' (did you mean 'seed'?)"
        in cli("chex-train", "--config", tmp_path / "bad.json", "-o", tmp_path / "D").err
    )


def test_weights_of_a_run_begin_another(training, tmp_path):
    training("A", "--limit-batches", "1")
    result = training("B", "--limit-batches", "1", "--weights", tmp_path / "A/last.pt")
    assert result.code == 0 and "last.pt: loaded" in result.err and "left as drawn" not in result.err
    result = training("C", "--limit-batches", "1", "--arch", "squeezenet1_1", "--weights", tmp_path / "A/last.pt")
    assert result.code == 1 and "a checkpoint of shufflenet_v2_x0_5, not of squeezenet1_1" in result.err


def test_tensorboard(training, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = rows_of(training("RUN", "--tensorboard", tmp_path / "board"))
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("auroc/Edema")] == [row["step"] for row in rows]
    assert [s.value for s in board.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])


# Interrupted is not lost


def run_of(xrays, folder, ranks=ALONE, device="cpu", outlines=None, **settings) -> train.Run:
    """A run with dropout, batch normalisation and momentum, in this process."""
    from chextools.inputs import image_lists

    options = {
        "arch": "mobilenet_v3_small",
        "size": 32,
        "batch_size": 4,
        "steps": 5,
        "checkpoint_every": 2,
        "keep": 1,
        "lr": 1e-3,
        "augmentation": augment.Augmentation(5, 0.1, 0.1, 0.1, 0.1, True),
    }
    settings = train.TrainSettings(**(options | settings))
    names = ("train.csv", "valid.csv")
    data, valid = (train.read_data(image_lists.read_image_lists([str(xrays / name)], None), name) for name in names)
    labelling = train.settle_labels(data, valid, settings)
    run_folder = RunFolder(folder, settings.keep, settings.ensemble, ranks.leads)
    resumed = folder.exists()
    run = train.Run(settings, labelling, data, valid, run_folder, device, 1, resumed, ranks, outlines=outlines)
    if not resumed:
        run_folder.start({})
        run_folder.unlock()
    return run


def test_a_finished_run_that_is_resumed_shows_how_it_stood(xrays, tmp_path):
    from chextools.cli.train import _SoFar

    rows = [row for row in run_of(xrays, tmp_path / "RUN", steps=1).events() if row]
    again = run_of(xrays, tmp_path / "RUN", steps=1)
    shown = _SoFar(again)
    assert again.finished and without_times([row for row in again.events() if row]) == without_times(rows)
    assert shown(rows[-1]).startswith("AUROC ")


@pytest.fixture(scope="module")
def undisturbed(xrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "RUN"
    state = torch.get_rng_state()
    rows = [row for row in run_of(xrays, folder).events() if row]
    assert torch.equal(torch.get_rng_state(), state)  # ours is the only random state that changed
    return folder, rows


def without_times(rows: list[dict]) -> list[dict]:
    timed = ("images_per_second", "data_wait", "step_share", "checkpoint")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def test_stopped_after_every_step_it_ends_with_the_same_files(xrays, tmp_path, undisturbed):
    folder, expected = undisturbed
    parts = 0
    while True:
        run = run_of(xrays, tmp_path / "RUN")
        rows = [row for row in run.events(lambda: True) if row]
        parts += 1
        if run.finished:
            break
        assert parts < 20
    assert parts >= 5
    assert contents(tmp_path / "RUN") == contents(folder)
    assert without_times(rows) == without_times(expected)


class Crash(BaseException):
    pass


def test_killed_at_every_write_it_ends_with_the_same_files(xrays, tmp_path, undisturbed, monkeypatch):
    """As if by kill -9: at the n-th file, before it gets its name, after the earlier ones got theirs."""
    folder, expected = undisturbed
    replace, done = os.replace, []

    def fail_at(n: int):
        def count(source, target):
            done.append(target)
            if len(done) == n:
                raise Crash
            replace(source, target)

        return count

    for n in (1, 3, 5, 6, 8, 9, 100):
        done.clear()
        monkeypatch.setattr(files.os, "replace", fail_at(n))
        try:
            rows = [row for row in run_of(xrays, tmp_path / "RUN").events() if row]
        except Crash:
            continue
    assert contents(tmp_path / "RUN") == contents(folder)
    assert without_times(rows) == without_times(expected)


def test_kill_9_and_resume(xrays, tmp_path, training):
    """A process killed for real between two validations, and resumed by the same command line."""
    training("A")
    options = (xrays / "train.csv", "--valid", xrays / "valid.csv", *SHORT, "--resume", "-o", tmp_path / "B", "-q")
    process = subprocess.Popen([*launcher("chex-train"), *map(str, options)], stdout=subprocess.PIPE)
    assert json.loads(process.stdout.readline())["step"] == 2
    process.kill()
    process.wait()
    process.stdout.close()
    assert training("B", "--resume").code == 0
    assert contents(tmp_path / "A") == contents(tmp_path / "B")


def test_out_of_time_is_75_and_resume_goes_on(training, tmp_path):
    whole = training("A")
    stopped = training("B", "--max-time", "0")
    assert (stopped.code, stopped.out) == (75, "") and "stopped early; --resume goes on" in stopped.err
    resumed = training("B", "--resume")
    assert resumed.code == 0 and len(rows_of(resumed)) == len(rows_of(whole))
    assert contents(tmp_path / "A") == contents(tmp_path / "B")
    again = training("B", "--resume")  # nothing is left to do: the rows once more
    assert (again.code, again.out) == (0, resumed.out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_stop_between_steps_and_their_handlers_come_back(number):
    before = signal.getsignal(number)
    with base.stopping() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert signal.getsignal(number) == before
    with base.stopping(time.monotonic() - 1) as stop:
        assert stop()


def test_a_full_disk_leaves_the_state_there_was(training, tmp_path):
    """A limit on the size of files stands in for it."""
    whole = training("A")
    assert training("B", "--max-time", "0").code == 75
    before = contents(tmp_path / "B"), (tmp_path / "B/resume.pt").read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        failed = training("B", "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert failed.code == 1 and failed.err.endswith("last.pt: File too large\n")
    assert (contents(tmp_path / "B"), (tmp_path / "B/resume.pt").read_bytes()) == before
    assert without_times(rows_of(training("B", "--resume"))) == without_times(rows_of(whole))


def test_what_a_run_began_with_it_goes_on_with(cli, training, xrays, tmp_path):
    training("RUN", "--max-time", "0")
    assert "RUN: holds a run; --resume goes on with it" in training("RUN").err
    assert "its lr is 0.0001, not 0.5: leave it out" in training("RUN", "--resume", "--lr", "0.5").err
    rows = [row | {"Path": f"{xrays}/{row['Path']}"} for row in read_csv(xrays / "train.csv")]
    rows[0]["Edema"] = "1.0"
    state = tmp_path / "RUN/config.json"
    write_csv(tmp_path / "train.csv", rows)
    state.write_text(state.read_text().replace(str(xrays / "train.csv"), str(tmp_path / "train.csv")))
    changed = cli("chex-train", "--resume", "-o", tmp_path / "RUN")
    assert changed.code == 1 and "was trained on other records or labels than these" in changed.err


# Refused before it starts


def one_line(result, *parts: str) -> None:
    assert result.code in (1, 2) and result.out == ""
    last = result.err.splitlines()[-1]
    assert last.startswith("chex-train: error: ") and result.err.count("error:") == 1
    for part in parts:
        assert part in last, result.err


def test_missing_images_are_listed(cli, xrays, tmp_path):
    rows = read_csv(xrays / "train.csv")
    write_csv(tmp_path / "train.csv", rows)
    result = cli("chex-train", tmp_path / "train.csv", "--valid", xrays / "valid.csv", "-o", tmp_path / "RUN", *SMALL)
    one_line(result, "16 of 16 images are missing", "patient009", ", and 6 more", "--root")
    assert not (tmp_path / "RUN").exists()
    assert (
        cli(
            "chex-train",
            tmp_path / "train.csv",
            "--valid",
            xrays / "valid.csv",
            "-o",
            tmp_path / "RUN",
            *SMALL,
            "--root",
            xrays,
            "--limit-batches",
            1,
        ).code
        == 0
    )


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "no records"),
        ("Path,Edema\n", "no records"),
        ("Pathh,Edema\nx.png,1\n", "did you mean 'Path'?"),
        ("Path\npatient1/x.png\n", "no labels"),
        ("Path,Edema\npatient1/x.png,2\npatient2/x.png,yes\n", "2 of 2 records cannot be used"),
        ("Path,Edema\npatient1/x.png,2\n", "Edema is '2'; a label is 1, 0, -1 or blank"),
    ],
)
def test_a_csv_that_cannot_be_used_is_one_line(cli, xrays, tmp_path, content, words):
    (tmp_path / "train.csv").write_text(content)
    result = cli("chex-train", tmp_path / "train.csv", "--valid", xrays / "valid.csv", "-o", tmp_path / "RUN", *SMALL)
    one_line(result, "train.csv", words)


@pytest.mark.parametrize(
    "options, words",
    [
        (("--task", "Edemas"), "unknown task 'Edemas' (did you mean 'Edema'?)"),
        (("--task", "Cardiomegaly"), "Cardiomegaly cannot be learned: no positive label"),
        (("--task", "Support Devices"), "no label at all"),
        (("--uncertain", "Edema=always"), "expected ignore, zeros, ones"),
        (("--uncertain", "Odema=ones"), "did you mean 'Edema'?"),
        (("--rank-by", "auroc:Edma"), "did you mean 'Edema'?"),
        (("--arch", "densenet12"), "did you mean 'densenet121'?"),
        (("--arch", "inception_v3"), "inception_v3 cannot take images of 32 pixels"),
        (("--weights", "no/such.pt"), "no/such.pt: No such file or directory"),
        (("--tensorboard", "no/tb"), "pip install 'chextools[tensorboard]'"),
        (("--amp", "fp16"), "needs a CUDA GPU"),
        (("--valid", "no/such.csv"), "no/such.csv: No such file or directory"),
        (("-o", "/dev/null"), "is not a folder"),
        (("--size", "8", "--batch-size", "1"), "batch normalisation"),
    ],
)
def test_what_cannot_work_is_refused(training, options, words):
    if options[0] == "--tensorboard":
        from chextools.training import board

        if board.available():
            pytest.skip("tensorboard is installed")
    one_line(training("RUN", *options), words)


def test_a_loss_that_is_not_finite_ends_it(training):
    one_line(training("RUN", "--lr", "1e30", "--optimizer", "sgd"), "the loss is not finite", "try a lower --lr")


@pytest.mark.parametrize("options", [("--arch", "densenet12"), ("--task", "Edemas"), ("--weights", "no/such.pt")])
def test_checks_come_before_torch(xrays, tmp_path, options):
    """The answer to a slip does not wait for seconds of imports: it comes where there is no torch."""
    for module in ("torch", "torchvision"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('imported')\n")
    result = run(
        "chex-train",
        xrays / "train.csv",
        "--valid",
        xrays / "valid.csv",
        "-o",
        tmp_path / "RUN",
        *options,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 1 and options[1].encode() in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith(b"chex-train: error: ") and not (tmp_path / "RUN").exists()


def copied(xrays, tmp_path):
    """The X-rays, to be damaged."""
    shutil.copytree(xrays, tmp_path / "xrays")
    return tmp_path / "xrays"


def test_images_that_are_not_whole_are_listed(cli, xrays, tmp_path):
    """By their headers and ends: nothing is decoded."""
    folder = copied(xrays, tmp_path)
    paths = sorted(folder.rglob("*.png"))
    paths[2].write_bytes(paths[2].read_bytes()[:-200])
    paths[5].write_bytes(b"no image")
    paths[7].write_bytes(b"")
    result = cli("chex-train", folder / "train.csv", "--valid", folder / "valid.csv", "-o", tmp_path / "RUN", *SMALL)
    name = "study1/view1_frontal.png"
    one_line(
        result,
        "train.csv: 3 of 16 images cannot be read: ",
        f"patient002/{name}: truncated",
        f"patient005/{name}: not an image",
        f"patient007/{name}: an empty file",
    )
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize("patient", [4, 20], ids=["training", "validation"])
def test_an_image_damaged_inside_ends_training_but_loses_nothing(xrays, tmp_path, patient):
    """What only decoding finds comes to light in the middle of things; mended, the run goes on to the same weights."""
    folder = copied(xrays, tmp_path)
    path = folder / f"patient{patient:03}/study1/view1_frontal.png"
    good = path.read_bytes()
    expected = [row for row in run_of(folder, tmp_path / "A").events() if row]
    path.write_bytes(good[:60] + b"damage" + good[66:])
    with pytest.raises(InputError, match=f"{path}: "):
        list(run_of(folder, tmp_path / "B").events())
    assert (tmp_path / "B/resume.pt").exists()
    path.write_bytes(good)
    rows = [row for row in run_of(folder, tmp_path / "B").events() if row]
    assert without_times(rows) == without_times(expected) and contents(tmp_path / "A") == contents(tmp_path / "B")


def test_two_processes_in_one_run(cli, training, xrays, tmp_path):
    assert training("RUN", "--max-time", "0").code == 75
    folder = RunFolder(tmp_path / "RUN", 1, 1)
    folder.lock()
    one_line(training("RUN", "--resume"), "RUN: another chex-train is at work here")
    folder.unlock()
    assert training("RUN", "--resume").code == 0


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"lr": [1]}', "lr: must be a number"),
        ('{"steps": 2.5}', "steps: must be a whole number"),
        ('{"steps": true}', "steps: must be a whole number"),
        ('{"flip": 1}', "flip: must be true or false"),
        ('{"tasks": [null]}', "tasks: must be a list of strings"),
        ('{"tasks": "Edema"}', "tasks: must be a list of strings"),
        ('{"valid": ["valid.csv"]}', "valid: must be a string"),
        ('{"output": "A"}', "'output' belongs on the command line"),
        ('{"lr": null}', "lr: must not be null"),
        ('{"size": {}}', "size: must be a whole number"),
        ('{"arch": null}', "arch: must not be null"),
        ('{"inputs": "train.csv"}', "inputs: must be a list of strings"),
        ('{"inputs": [5]}', "inputs: must be a list of strings"),
    ],
)
def test_a_config_written_by_hand_may_hold_anything(training, tmp_path, text, said):
    (tmp_path / "train.json").write_text(text)
    one_line(training("RUN", "--config", tmp_path / "train.json"), f"train.json: {said}")
    assert not (tmp_path / "RUN").exists()
