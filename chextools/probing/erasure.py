"""Deletion and insertion (Petsiuk et al. 2018, RISE): the score as the greatest pixels are replaced, or restored.

Pixels are taken in equal shares by the map's order, the greatest first, of equal ones the first in raster order. The
value is the area under the score against the share, by trapezoids: deletion of a map that follows the network is low,
insertion high. As in the paper deletion replaces by the network's zero, the mean colour of its normalisation, and
insertion restores a blurred image. Beside each the areas of a random order and of one from the centre outwards.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from chextools.probing.probes import ProbeSettings
from chextools.probing.subject import Curves, Plan, Subject, Values, area


def deletion(subject: Subject, settings: ProbeSettings) -> Plan:
    """Keys deletion, deletion_random and deletion_centre."""
    return _erased(subject, settings, "deletion", restore=False)


def insertion(subject: Subject, settings: ProbeSettings) -> Plan:
    """Keys insertion, insertion_random and insertion_centre."""
    return _erased(subject, settings, "insertion", restore=True)


def cuts(steps: int, pixels: int) -> np.ndarray:
    """How many pixels have been taken after each step, from none to all: int64 [steps + 1]."""
    return np.round(np.arange(steps + 1) * pixels / steps).astype(np.int64)


def _erased(subject: Subject, settings: ProbeSettings, name: str, restore: bool) -> Plan:
    orders = {task: subject.places[task] for task in subject.places}
    floors = {"random": subject.random_places(settings.seed), "centre": subject.centre_places}
    stacked = torch.stack([*orders.values(), *floors.values()])
    taken = torch.from_numpy(cuts(settings.steps, subject.size**2)).to(stacked.device, torch.int32)
    inner = settings.steps - 1
    # Whatever the order, at the ends nothing or everything is replaced: two images, then the steps of each order.
    count = 2 + len(stacked) * inner

    def make(part: slice) -> Tensor:
        rows = torch.arange(count, device=stacked.device)[part]
        order = ((rows - 2) // max(inner, 1)).clamp(min=0)
        step = torch.where(rows < 2, rows * settings.steps, (rows - 2) % max(inner, 1) + 1)
        late = stacked[order] >= taken[step][:, None, None]
        return ~late if restore else late

    def finish(scores: np.ndarray) -> tuple[Values, Curves]:
        values: Values = {key: {} for key in (name, f"{name}_random", f"{name}_centre")}
        curves: Curves = {key: {} for key in values}
        between = scores[2:].reshape(len(stacked), inner, -1)
        for task, column in zip(subject.tasks, subject.columns):
            own = list(orders).index(task) if task in orders else None
            for key, order in ((name, own), (f"{name}_random", -2), (f"{name}_centre", -1)):
                if order is None:
                    values[key][task] = float("nan")
                    continue
                curve = np.concatenate([scores[:1, column], between[order, :, column], scores[1:2, column]])
                values[key][task], curves[key][task] = area(curve), curve.tolist()
        return values, curves

    return Plan(count, make, settings.option(name, "baseline"), finish)
