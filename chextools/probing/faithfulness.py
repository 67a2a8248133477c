"""Faithfulness correlation (Bhatt et al. 2020): whether the score drops where the map says that there is much to see.

Square patches at random places are replaced, one a time; the value is Spearman's correlation of the drop in score with
the sum of the map over the patch. Every patch tells of all tasks at once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from chextools.metrics.similarity import spearman
from chextools.probing.probes import ProbeSettings
from chextools.probing.subject import Curves, Plan, Subject, Values

SHARE = 8  # a patch's side is the input's over this


def of_patches(subject: Subject, settings: ProbeSettings) -> Plan:
    """Keys faithfulness, and faithfulness_centre, that of a map that falls from the centre outwards."""
    size, samples = subject.size, settings.option("faithfulness", "samples")
    side = max(1, size // SHARE)
    corner = subject.random(settings.seed, "patches").integers(0, size - side + 1, (samples, 2))
    top, left = (torch.from_numpy(c).to(subject.device)[:, None, None] for c in corner.T)
    y = torch.arange(size, device=subject.device)[:, None]
    x = torch.arange(size, device=subject.device)

    def make(part: slice) -> Tensor:
        """The image as it is, then with each patch replaced."""
        rows = range(1 + samples)[part]
        some = torch.tensor([row - 1 for row in rows if row], device=subject.device, dtype=torch.int64)
        inside = (y >= top[some]) & (y < top[some] + side) & (x >= left[some]) & (x < left[some] + side)
        whole = torch.ones(len(rows) - len(some), size, size, dtype=torch.bool, device=subject.device)
        return torch.cat([whole, ~inside])

    def finish(scores: np.ndarray) -> tuple[Values, Curves]:
        values: Values = {"faithfulness": {}, "faithfulness_centre": {}}
        centre = -subject.centre_places.cpu().numpy().astype(np.float64)
        for task, column in zip(subject.tasks, subject.columns):
            drop = scores[0, column] - scores[1:, column]
            values["faithfulness"][task] = spearman(drop, _sums(subject.maps[task], corner, side))
            values["faithfulness_centre"][task] = spearman(drop, _sums(centre, corner, side))
        return values, {}

    return Plan(1 + samples, make, settings.option("faithfulness", "baseline"), finish)


def _sums(values: np.ndarray, corner: np.ndarray, side: int) -> np.ndarray:
    """Sums over patches: float64 [samples]."""
    return np.array([values[y : y + side, x : x + side].sum(dtype=np.float64) for y, x in corner.tolist()])
