"""What chex-probe costs over the forwards that it must make: deletion and insertion at 20 steps, all tasks.

    python tests/bench/bench_probe.py [--images 130] [--size 224] [--arch resnet18] [--batch-size 16] [--device cpu]

Both in one process on the same images: the bare network on as many full batches of altered images as deletion and
insertion ask for, and `chextools.probe` from heatmap records to values. On a CPU both have one thread. Prints a table
in Markdown; the ratio is the figure, seconds are the machine's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from chextools import probe
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.models import architectures, checkpoints, inference
from chextools.probing.probes import ProbeSettings
from chextools.records.records import Located
from chextools.tasks import STUDY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=130)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, records = work(Path(folder), options)
        settings = ProbeSettings(metrics=("deletion", "insertion"), steps=options.steps)
        torch.set_num_threads(1)
        run = probe.start(
            map(Located, "x" * len(records), records), [checkpoint], settings, options.device, options.batch_size
        )
        needed = 2 * len(records) * (2 + (len(STUDY) + 2) * (options.steps - 1))
        bare = forwards(checkpoint, needed, run.networks.batch_size, options)
        start, used = time.perf_counter(), time.process_time()
        count = sum(1 for _ in run.records(jobs=1))
        seconds, spent = time.perf_counter() - start, time.process_time() - used
        print(f"{count} images of {options.size} pixels, {options.arch}, {len(STUDY)} tasks, {options.steps} steps")
        print("| | forwards | seconds | processor seconds |\n|---|---|---|---|")
        print(f"| bare network | {needed} | {bare[0]:.1f} | {bare[1]:.1f} |")
        print(f"| chex-probe | {run.networks.forwards} | {seconds:.1f} | {spent:.1f} |")
        print(f"\n{run.networks.forwards / needed:.3f}x the forwards, {seconds / bare[0]:.2f}x the time, ", end="")
        print(f"{spent / bare[1]:.2f}x the processor time")


def forwards(checkpoint: str, needed: int, batch_size: int, options: argparse.Namespace) -> tuple[float, float]:
    """Wall and processor seconds of the plain network on so many images, estimated from a part of them."""
    device = inference.device(options.device)
    network = inference.place(checkpoints.load(checkpoint).model, device)
    images = torch.rand(batch_size, 3, options.size, options.size, device=device)
    if device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last)
    batches = -(-needed // batch_size)
    some = min(batches, 30)
    with torch.inference_mode():
        network(images)
        start, used = time.perf_counter(), time.process_time()
        for _ in range(some):
            network(images).cpu()
        share = batches / some
        return (time.perf_counter() - start) * share, (time.process_time() - used) * share


def work(folder: Path, options: argparse.Namespace) -> tuple[str, list[dict]]:
    """A checkpoint, and records of noise images with heatmaps."""
    torch.manual_seed(0)
    checkpoint = folder / "network.pt"
    network = architectures.build(options.arch, len(STUDY)).eval()
    checkpoints.save(checkpoint, checkpoints.Checkpoint(options.arch, list(STUDY), options.size, network))
    rng, records = np.random.default_rng(0), []
    for number in range(options.images):
        image, maps = folder / f"{number}.png", rng.random((len(STUDY), 7, 7), np.float32)
        Image.fromarray(rng.integers(0, 256, (300, 250), np.uint8)).save(image)
        made = Heatmaps(str(number), (300, 250), dict(zip(STUDY, maps)), input_size=(options.size, options.size))
        write_npz(folder / f"{number}.npz", made)
        records.append({"id": str(number), "image": str(image), "heatmap": str(folder / f"{number}.npz")})
    return str(checkpoint), json.loads(json.dumps(records))


if __name__ == "__main__":
    main()
