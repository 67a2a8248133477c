"""Speed of chex-cam, as ratios measured in one run: to bare forward passes, captum and pytorch-grad-cam.

    python tests/bench/bench_cam.py [--arch NAME] [--size N] [--images N] [--rivals N] [--device cuda --jobs N]

A network with untrained weights and CheXpert's 14 tasks (default: DenseNet121 at 320 pixels) explains noise saved as
JPEG of 2320 x 2828, whole commands less their start-up (the same command on no more than one batch is taken off).
Bare passes and rivals run in this process, as their users run them: rivals explain `--rivals` images, one at a time, as
their cost per image on a CPU does not depend on how many, or on a GPU the whole batches that chex-cam takes; and memory
is managed as glibc does by default. That chex-cam keeps
what it is given back is part of what it does; bare passes with that setting are printed last. All take the same number
of threads. Cores that others use too make ratios uncertain: of passes and commands the best of three runs counts, bare
passes are timed before and after, and the load is printed.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from chextools.models import (  # noqa: E402
    architectures,  # noqa: E402
    checkpoints,
    inference,
)
from chextools.plumbing.parallel import default_jobs  # noqa: E402
from chextools.saliency.ensembles import BATCH  # noqa: E402
from chextools.saliency.network import Network  # noqa: E402
from chextools.saliency.occlusion import maps as occlude  # noqa: E402
from chextools.tasks import CHEXPERT  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="densenet121")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rivals", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8, help="of integrated gradients: likewise; fill a GPU with 32")
    parser.add_argument("--window", type=int, default=160, help="of occlusion: the ratio hardly depends on it")
    parser.add_argument("--device", default="cpu", help="of chex-cam, bare passes and rivals")
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="threads that decode images for chex-cam")
    options = parser.parse_args()
    torch.manual_seed(0)
    inference.exactly()  # as chex-cam: float32 on a GPU, too
    model = architectures.build(options.arch, len(CHEXPERT), options.size).eval().to(options.device)
    tasks = list(range(len(CHEXPERT)))
    batch = torch.randn(BATCH[options.device], 3, options.size, options.size, device=options.device)
    on = torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} cores"
    print(
        f"{options.arch}, {options.size} pixels, {len(tasks)} tasks, {on}, load "
        f"{os.getloadavg()[0]:.1f}, torch {torch.__version__}",
        flush=True,
    )
    torch.set_num_threads(default_jobs())
    report(options, model, tasks, batch)


def report(options: argparse.Namespace, model: torch.nn.Module, tasks: list[int], batch: torch.Tensor) -> None:
    def bare() -> float:
        """Seconds per image of forward passes alone, in the same batches."""
        with torch.inference_mode():
            model(batch)
            rounds = range(options.images // len(batch))
            return min(timed(lambda: [model(batch) for _ in rounds]) for _ in range(3)) / options.images

    before = bare()
    ours = commands(options, model, len(batch))
    after = bare()
    forward = (before + after) / 2
    print(f"bare forward passes: {before:.4f} and {after:.4f} s per image, before and after")
    print(f"chex-cam, Grad-CAM: {ours:.4f} s per image = {ours / forward:.2f} x the forward pass", flush=True)
    given = batch[:1] if batch.device.type == "cpu" else batch
    for name, rival in (("captum", captum_cam), ("pytorch-grad-cam", grad_cam)):
        rival(model, given, tasks[:1])
        runs = range(options.rivals)
        seconds = timed(lambda rival=rival, runs=runs: [rival(model, given, tasks) for _ in runs])
        seconds /= options.rivals * len(given)
        print(f"{name}, Grad-CAM: {seconds:.4f} s per image = {seconds / ours:.0f} x chex-cam", flush=True)
    window, network = options.window, Network(model)
    of = attributions(model, network, given, tasks, options.steps)
    sweep = {"window": window, "stride": window // 2, "batch": len(batch)}
    occlude(network, given[:1], tasks, **sweep)
    mine = timed(lambda: occlude(network, given, tasks, **sweep))
    of["occlusion"] = (mine, timed(lambda: captum_occlusion(model, given, tasks, window, len(batch))))
    for name, (mine, theirs) in of.items():
        said = theirs if isinstance(theirs, str) else f"{theirs / len(given):.4f} s = {theirs / mine:.1f} x"
        print(f"{name}: {mine / len(given):.4f} s per image, captum {said}", flush=True)
    if batch.device.type == "cpu":
        inference.keep_memory()
        print(f"bare forward passes with chex-cam's memory setting: {bare():.3f} s per image")
    print(f"load at the end {os.getloadavg()[0]:.1f}")


def commands(options: argparse.Namespace, model: torch.nn.Module, batch: int) -> float:
    """Seconds per image of chex-cam, less what one batch takes with start-up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "model.pt"
        checkpoints.save(path, checkpoints.Checkpoint(options.arch, list(CHEXPERT), options.size, model))
        rng = np.random.default_rng(0)
        low = Image.fromarray(rng.integers(0, 256, (290, 353), np.uint8))
        low.resize((2828, 2320), Image.Resampling.BICUBIC).save(folder / "one.jpg", quality=90)
        for part, count in (("few", batch), ("all", batch + options.images)):
            (folder / part).mkdir()
            for i in range(count):
                (folder / part / f"patient{i:05d}.jpg").hardlink_to(folder / "one.jpg")

        def run(part: str) -> float:
            words = [
                sys.executable,
                ROOT / "bin/chex-cam",
                folder / part,
                "--checkpoint",
                path,
                "-q",
                "-f",
                "-j",
                str(options.jobs),
                "--device",
                options.device,
                "-o",
                folder / "maps",
                *[word for task in CHEXPERT for word in ("--task", task)],
            ]
            return timed(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL))

        run("few")
        few, whole = (min(run(part) for _ in range(3)) for part in ("few", "all"))
        return (whole - few) / options.images


def captum_cam(model: torch.nn.Module, images: torch.Tensor, tasks: list[int]) -> None:
    from captum.attr import LayerGradCam

    layer = LayerGradCam(model, last_layer(model))
    for task in tasks:
        layer.attribute(images, target=task, relu_attributions=True)


def grad_cam(model: torch.nn.Module, images: torch.Tensor, tasks: list[int]) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model, [last_layer(model)]) as cam:
        for task in tasks:
            cam(images, [ClassifierOutputTarget(task)])


def captum_occlusion(model: torch.nn.Module, images: torch.Tensor, tasks: list[int], window: int, batch: int) -> None:
    from captum.attr import Occlusion

    method = Occlusion(model)
    at_once = max(1, batch // len(images))  # captum counts windows, of which each takes all images
    for task in tasks:
        method.attribute(
            images, (3, window, window), (3, window // 2, window // 2), target=task, perturbations_per_eval=at_once
        )


def attributions(
    model: torch.nn.Module, network: Network, images: torch.Tensor, tasks: list[int], steps: int
) -> dict[str, tuple[float, float | str]]:
    """Seconds of what attributes to the input, ours and captum's; a word instead where captum raises."""
    import warnings

    from captum.attr import LRP, DeepLift, IntegratedGradients

    from chextools.saliency.deeplift import maps as deeplift
    from chextools.saliency.ig import maps as integrated_gradients
    from chextools.saliency.lrp import maps as lrp

    zero, batch = torch.zeros_like(images), BATCH[images.device.type]

    def captum(make: Callable, **given: object) -> float | str:
        try:
            method = make(copy.deepcopy(model))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return timed(lambda: [method.attribute(images, target=task, **given) for task in tasks])
        except Exception as error:  # whatever a library says of a network that it cannot explain
            return f"raises {type(error).__name__}"

    def ours(method: Callable, **given: object) -> float:
        method(network, images, tasks[:1], **given)  # folds the network
        return timed(lambda: method(network, images, tasks, **given))

    return {
        f"integrated gradients, {steps} steps": (
            ours(integrated_gradients, steps=steps, batch=batch),
            captum(IntegratedGradients, baselines=zero, n_steps=steps, internal_batch_size=max(batch, len(images))),
        ),
        "DeepLIFT": (ours(deeplift), captum(DeepLift, baselines=zero)),
        "LRP": (ours(lrp), captum(LRP)),
    }


def last_layer(model: torch.nn.Module) -> torch.nn.Module:
    """What users of the libraries name: DenseNet's features, ResNet's layer4."""
    return getattr(model, "features", None) or model.layer4


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
