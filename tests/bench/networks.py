"""Speed of chex-train and chex-predict beside the bare network: what the commands add to it.

    python tests/bench/networks.py [--arch resnet18] [--size 128] [--steps 20] [--rounds 5] [--images FOLDER]
        [--batch 16] [--device cpu] [--amp bf16]

The bare step is forward, backward and optimiser on one normalised batch in memory, with the same network, loss, batch
size and threads; the bare forward likewise. Both sides are timed in turn, after one round to warm up, and the medians
compared. FOLDER holds JPEG files; without it, images are made up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from chextools import predict, train
from chextools.models import checkpoints, inference
from chextools.records.records import Located
from chextools.training.augment import Augmentation
from chextools.training.folder import RunFolder

JOBS = max(2, len(os.sched_getaffinity(0)))  # threads that decode images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", help="of both steps; chex-predict computes in float32")
    options = parser.parse_args()
    batch = options.batch
    with tempfile.TemporaryDirectory() as folder, inference.threads():
        records = [
            {"id": path.stem, "image": str(path), "labels": {"Edema": k % 2}}
            for k, path in enumerate(pictures(options.images or Path(folder), batch * 10))
        ]
        run = start(options, records, Path(folder))
        n = options.steps
        times = rounds(options.rounds, lambda: steps(run, n), lambda: bare_steps(run, n))
        on = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
        print(f"{options.arch} at {options.size} pixels, batches of {batch}, {on}")
        print(f"chex-train: {batch * n / times[0]:.1f} images/s, {times[1] / times[0]:.1%} of the bare step")
        checkpoint = checkpoints.Checkpoint(options.arch, ["Edema"], options.size, run.learner.model)
        checkpoints.save(Path(folder) / "c.pt", checkpoint)
        predictor = predict.Predictor([f"{folder}/c.pt"], device=options.device)
        n, bare = len(records), checkpoints.load(f"{folder}/c.pt").model.to(options.device)  # laid out as users have it
        times = rounds(
            options.rounds, lambda: scored(predictor, records, batch), lambda: bare_forward(bare, options, n)
        )
        print(f"chex-predict: {n / times[0]:.1f} images/s, {times[1] / times[0]:.1%} of the bare forward")


def pictures(folder: Path, n: int) -> list[Path]:
    found = sorted(folder.rglob("*.jpg"))[:n]
    random = np.random.default_rng(0)
    for k in range(len(found), n):
        low = Image.fromarray(random.integers(0, 255, (64, 64), np.uint8))  # smooth, as X-rays are
        low.resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"{k}.jpg", quality=90)
        found.append(folder / f"{k}.jpg")
    return found


def start(options: argparse.Namespace, records: list[dict], folder: Path) -> train.Run:
    changes = Augmentation(5, 0.03, 0.05, 0.1, 0.1)
    settings = train.TrainSettings(
        arch=options.arch,
        size=options.size,
        optimizer="adamw",
        steps=10**6,
        batch_size=options.batch,
        checkpoint_every=10**6,
        augmentation=changes,
        amp=options.amp,
    )
    data = train.Data(records, "made up")
    run = train.Run(
        settings,
        train.settle_labels(data, data, settings),
        data,
        data,
        RunFolder(folder / "RUN", 1, 1),
        options.device,
        JOBS,
    )
    run.clock = run.events()
    return run


def rounds(n: int, *sides) -> list[float]:
    """Median seconds of each side, timed in turn."""
    times = [[] for _ in sides]
    for round_ in range(n + 1):
        for side, found in zip(sides, times):
            begun = time.perf_counter()
            side()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:
                found.append(time.perf_counter() - begun)
    return [statistics.median(found) for found in times]


def steps(run: train.Run, n: int) -> None:
    for _ in range(n):
        next(run.clock)


def bare_steps(run: train.Run, n: int) -> None:
    learner, settings = run.learner, run.settings
    images = torch.randn(settings.batch_size, 3, settings.size, settings.size, device=run.device)
    target, weight = (table[: settings.batch_size].to(run.device) for table in run.labels)
    learner.model.train()
    for _ in range(n):
        with torch.autocast(run.device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            output = learner.model(images)
        (learner.loss(output, target, weight) / settings.batch_size).backward()
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)


def scored(predictor: predict.Predictor, records: list[dict], batch: int) -> None:
    items = (Located("", dict(record)) for record in records)
    assert sum(1 for _ in predict.apply(items, predictor, batch, JOBS)) == len(records)


def bare_forward(model: torch.nn.Module, options: argparse.Namespace, n: int) -> None:
    images = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    with torch.inference_mode():
        for _ in range(n // options.batch):
            model(images)


if __name__ == "__main__":
    main()
