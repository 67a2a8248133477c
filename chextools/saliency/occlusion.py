"""Occlusion (Zeiler and Fergus 2014): how far a logit falls when a window of the image is replaced.

Windows start at multiples of the stride and are cut off at the border; a pixel's value is the mean over the windows
that cover it. One sweep reads the logits of all tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from chextools.models.inference import leave_if_stopped
from chextools.saliency import baselines
from chextools.saliency.network import Network, picked, plainly


@plainly()
def maps(
    model: Network,
    images: Tensor,
    tasks: Sequence[int],
    *,
    window: int,
    stride: int,
    baseline: baselines.Baseline = 0.0,
    batch: int = 8,
) -> Tensor:
    """Maps [N, K, H, W] at the input's resolution, signed: logit as it is less logit occluded.

    window, stride: in pixels of the input. baseline: what replaces it, see `baselines`. batch: occluded images at once.
    """
    with torch.no_grad():
        fill = baselines.of(baseline, images).expand_as(images)
        whole = picked(model(images), tasks, 1)
        size = images.shape[2:]
        boxes = list(windows(size[0], size[1], window, stride))
        total = images.new_zeros(len(images), len(tasks), *size)
        count = images.new_zeros(size)
        for top, bottom, left, right in boxes:
            count[top:bottom, left:right] += 1
        jobs = [(n, box) for n in range(len(images)) for box in boxes]
        for start in range(0, len(jobs), batch):
            leave_if_stopped()
            part = jobs[start : start + batch]
            occluded = picked(images, [n for n, _ in part], 0)
            for row, (n, (top, bottom, left, right)) in enumerate(part):
                occluded[row, :, top:bottom, left:right] = fill[n, :, top:bottom, left:right]
            logits = picked(model(occluded), tasks, 1)
            for row, (n, (top, bottom, left, right)) in enumerate(part):
                total[n, :, top:bottom, left:right] += (whole[n] - logits[row])[:, None, None]
        return total / count


def windows(height: int, width: int, window: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of every window, row by row; every pixel is in one."""
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            yield top, min(top + window, height), left, min(left + window, width)


def _starts(side: int, window: int, stride: int) -> range:
    return range(0, 1 + stride * max(0, -(-(side - window) // stride)), stride)
