"""Speed of a training step of chex-train with each of its options for speed, and how far its results then are.

    python tests/bench/bench_train.py [--arch resnet18 densenet121] [--size 224 320] [--options "" channels_last ...]
        [--batch N] [--steps N] [--device cpu]

Each option is `channels_last`, `bf16`, `compile`, or several joined by +; "" is none. Steps are on made-up X-rays in
memory, forward, backward and optimiser, of the same weights and batches. Prints the least processor seconds of a step
per image, images a second of a core, the ratio to the first option, and how far the probabilities of the images are
from those of the first option after the steps, as a median and at most. On a CPU run it with OMP_NUM_THREADS=1 where
others are busy: processor seconds are what they disturb least.
"""

from __future__ import annotations

import argparse
import time

import numpy as np


def main() -> None:
    import torch

    from chextools.models import inference

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", nargs="+", default=["resnet18", "densenet121"])
    parser.add_argument("--size", type=int, nargs="+", default=[224, 320])
    parser.add_argument("--options", nargs="+", default=["", "channels_last", "bf16", "bf16+channels_last"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    print("| network | size | options | s/image | images/s | faster | probabilities off, median and most |")
    print("|---|---|---|---|---|---|---|")
    with inference.threads():
        for arch in options.arch:
            for size in options.size:
                first = None
                for words in options.options:
                    seconds, found = trained(arch, size, words, options.batch, options.steps, device)
                    first = first or (seconds, found)
                    off = np.abs(found - first[1])
                    print(
                        f"| {arch} | {size} | {words or 'none'} | {seconds:.3f} | {1 / seconds:.2f} | "
                        f"{first[0] / seconds:.2f}x | {np.median(off):.1e}, {off.max():.1e} |",
                        flush=True,
                    )


def trained(arch: str, size: int, words: str, batch: int, steps: int, device) -> tuple[float, np.ndarray]:
    """The least seconds of a step per image, and the probabilities of the images afterwards."""
    import torch

    from chextools.tasks import STUDY
    from chextools.training.labels import Labelling
    from chextools.training.learner import Learner
    from chextools.training.own_code import OwnCode
    from chextools.training.ranks import ALONE
    from chextools.training.settings import TrainSettings

    names = set(filter(None, words.split("+")))
    settings = TrainSettings(
        arch=arch,
        size=size,
        batch_size=batch,
        channels_last="channels_last" in names,
        compile="compile" in names,
        amp="bf16" if "bf16" in names else None,
    )
    labelling = Labelling(tuple(STUDY), dict.fromkeys(STUDY, "ones"), {})
    importance = np.ones((len(STUDY), 3), np.float32)
    learner = Learner(settings, labelling, OwnCode.load({}), device, ALONE, importance, 1000, None)
    rng = np.random.default_rng(0)
    pixels = np.cumsum(np.cumsum(rng.normal(size=(batch, size, size)), 1), 2)  # smooth, as X-rays are
    pixels = (255 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)
    target = torch.from_numpy((rng.random((batch, len(STUDY))) < 0.3).astype(np.float32))
    labels = target, torch.ones_like(target)
    taken = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for step in range(steps):
        start = clock()
        learner.learn(step, np.arange(batch), pixels, labels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(clock() - start)
    learner.model.eval()
    with torch.inference_mode():
        found = learner.model(learner.images(pixels)).float().sigmoid().cpu().numpy()
    return min(taken[1:] or taken) / batch, found


if __name__ == "__main__":
    main()
