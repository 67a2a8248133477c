"""Grad-CAM of 14 tasks on networks as checkpoints carry them, as a multiple of the original's bare forward pass.

python tests/bench/bench_any.py [NAME of timm]...

One image at a time on one thread, CPU time, the least of six rounds of each in turn. It needs timm.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from chextools.models import assembly, checkpoints, inference  # noqa: E402 - the checkout's, whatever is installed
from chextools.saliency.gradcam import maps  # noqa: E402
from chextools.saliency.network import Network, Once  # noqa: E402

NAMES = ("densenet121", "convnext_tiny", "swin_tiny_patch4_window7_224", "efficientnet_b0", "inception_v4")
TASKS, SIZE, ROUNDS = 14, 224, 6


def main() -> None:
    import timm

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    inference.keep_memory()
    for name in sys.argv[1:] or NAMES:
        original = timm.create_model(name, num_classes=TASKS).eval()
        graph, tensors = checkpoints.traced(original, 3, SIZE)
        network, images = Network(assembly.assemble(graph, tensors, 3, SIZE)), torch.randn(1, 3, SIZE, SIZE)
        forward, explained = [], []
        for _ in range(ROUNDS):
            start = time.process_time()
            with torch.inference_mode():
                original(images)
            between = time.process_time()
            once = Once(network, images)
            maps(once, images, range(TASKS))
            once.logits()
            explained.append(time.process_time() - between)
            forward.append(between - start)
        bare, ours = min(forward), min(explained)
        print(f"{name}: forward {1e3 * bare:.0f} ms, scores and Grad-CAM {1e3 * ours:.0f} ms = {ours / bare:.2f} x")


if __name__ == "__main__":
    main()
