"""ROAD, remove and debias (Rong et al. 2022): as deletion, but what is removed is imputed, so that it leaves no trace.

Removed pixels are those that solve the paper's noisy linear system: each is the mean of its eight neighbours, the four
at an edge with weight 1/6, those at a corner with 1/12, plus a little noise. Pixels are removed most relevant first,
and least relevant first; the value is the area of the latter less that of the former, positive where a map follows the
network. (pytorch-grad-cam's combined score is half of that, over its own percentiles.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chextools.probing.erasure import cuts
from chextools.probing.probes import ProbeSettings
from chextools.probing.subject import Curves, Plan, Subject, Values, area

NOISE = 0.01 * 255 * 0.226  # the paper's 0.01 of a normalised pixel, in grey levels
TOLERANCE = 5e-5  # of the system's right side
_ITERATIONS = 2000
_COARSEST = 4  # pixels a side
_KERNEL = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))


def remove_and_debias(subject: Subject, settings: ProbeSettings) -> Plan:
    """Keys road, road_most and road_least (areas), and road_centre, that of an order from the centre outwards."""
    orders = [*subject.places.values(), subject.centre_places]
    stacked = torch.stack([each for order in orders for each in (order, subject.size**2 - 1 - order)])
    taken = torch.from_numpy(cuts(settings.steps, subject.size**2)).to(stacked.device, torch.int32)
    image = torch.tensor(subject.images[subject.square]).to(subject.device, torch.float32)
    inner = settings.steps - 1  # where all is removed there is nothing to impute from: a curve ends a step before
    count = 1 + len(stacked) * inner
    seed = int(subject.random(settings.seed, "road").integers(2**31))

    def make(part: slice) -> Tensor:
        rows = torch.arange(count, device=stacked.device)[part]
        order = ((rows - 1) // max(inner, 1)).clamp(min=0)
        step = torch.where(rows < 1, 0, (rows - 1) % max(inner, 1) + 1)
        removed = stacked[order] < taken[step][:, None, None]
        noise = [torch.randn(image.shape, generator=torch.Generator().manual_seed(seed + row)) for row in rows.tolist()]
        return imputed(image, removed) + removed * NOISE * torch.stack(noise).to(image)

    def finish(scores: np.ndarray) -> tuple[Values, Curves]:
        values: Values = {key: {} for key in ("road", "road_most", "road_least", "road_centre")}
        curves: Curves = {"road_most": {}, "road_least": {}}
        between = scores[1:].reshape(len(orders), 2, inner, -1)
        places = list(subject.places)
        for task, column in zip(subject.tasks, subject.columns):

            def curve(order: int, side: int, column: int = column) -> np.ndarray:
                return np.append(scores[0, column], between[order, side, :, column])

            centre = [area(curve(len(orders) - 1, side)) for side in (0, 1)]
            values["road_centre"][task] = centre[1] - centre[0]
            if task not in places:
                values["road"][task] = values["road_most"][task] = values["road_least"][task] = float("nan")
                continue
            for side, key in enumerate(("road_most", "road_least")):
                found = curve(places.index(task), side)
                values[key][task], curves[key][task] = area(found), found.tolist()
            values["road"][task] = values["road_least"][task] - values["road_most"][task]
        return values, curves

    return Plan(count, make, None, finish)


def imputed(image: Tensor, removed: Tensor) -> Tensor:
    """float32 [n, H, W]: an image [H, W] whose removed pixels, bool [n, H, W], solve the linear system, without noise.

    By conjugate gradients on all of them at once, from what the same system says at half the resolution.
    """
    free = removed.to(torch.float32)
    return _solved(image * (1 - free), free)


def _solved(known: Tensor, free: Tensor) -> Tensor:
    """Known values, 0 where they are free (1, else 0), and there the system's solution: all [n, H, W]."""
    kernel = torch.tensor(_KERNEL, device=known.device, dtype=torch.float32)[None, None]
    there = functional.conv2d(torch.ones_like(known[:1, None]), kernel, padding=1)[0]  # less than 1 at the border

    def spread(values: Tensor) -> Tensor:
        return functional.conv2d(values[:, None], kernel, padding=1)[:, 0]

    right = free * spread(known)
    found = free * _guess(known, 1 - free)
    residue = right - free * (there * found - spread(found))
    direction = residue / there
    target = TOLERANCE**2 * (right**2).sum((1, 2)).clamp(min=1e-12)
    rho = (residue * direction).sum((1, 2))
    for _ in range(_ITERATIONS):
        if ((residue**2).sum((1, 2)) <= target).all():
            break
        product = free * (there * direction - spread(direction))
        step = rho / (direction * product).sum((1, 2)).clamp(min=1e-30)
        found = found + step[:, None, None] * direction
        residue = residue - step[:, None, None] * product
        scaled = residue / there
        following = (residue * scaled).sum((1, 2))
        direction = scaled + (following / rho.clamp(min=1e-30))[:, None, None] * direction
        rho = following
    return known + found


def _guess(known: Tensor, weight: Tensor) -> Tensor:
    """The solution at half the resolution, where a pixel is known that has any in it, brought back to [n, H, W]."""
    if min(known.shape[1:]) < _COARSEST:
        mean = known.sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
        return mean[:, None, None].expand_as(known)
    pad = (0, known.shape[2] % 2, 0, known.shape[1] % 2)
    value, share = (functional.avg_pool2d(functional.pad(v[:, None], pad), 2)[:, 0] for v in (known, weight))
    coarse = _solved(value / share.clamp(min=1e-6), (share <= 0).to(known))
    finer = functional.interpolate(coarse[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]
    return finer[:, : known.shape[1], : known.shape[2]]
