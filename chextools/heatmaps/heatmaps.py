"""The heatmaps of one image, and which of their evidence counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.signs import SIGNS

NOT_FINITE = "the map holds NaN or infinity"
NOT_COMPLETE = "the map does not sum to the change in logit: its completeness delta is {:.3g}"
NOT_CONSERVED = "the map and what was absorbed on the way do not sum to the logit: relevance of {:.3g} is lost"


@dataclass(slots=True)
class Heatmaps:
    """The heatmaps of one image, raw and signed.

    size: (height, width) in pixels of the original image.
    maps: task -> float32 [h, w], finite.
    scores: task -> probability in [0, 1].
    labels: task -> 1 positive, 0 negative, -1 uncertain.
    input_size: (height, width) of the network's input, to which a map is first upsampled; None in the study's
        pickles, whose maps have been.
    model: sha256 of the checkpoints.
    failed: task -> why it has no map.
    flags: task -> "flat" where the whole map has one value.
    reference: whether this comes from the study's pickles.
    delta: task -> how far a map's sum is from the change in logit that it explains, of methods where that is 0.
    absorbed: task -> relevance that did not come to the map, of methods that count it; with the map it makes the logit.
    chosen_sign: which evidence counts (`SIGNS`) as chex-cam was told; None where it was not.
    """

    id: str
    size: tuple[int, int]
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    input_size: tuple[int, int] | None = None
    method: str | None = None
    model: str | None = None
    failed: dict[str, str] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    reference: bool = False
    delta: dict[str, float] = field(default_factory=dict)
    absorbed: dict[str, float] = field(default_factory=dict)
    chosen_sign: str | None = None

    @property
    def sign(self) -> str:
        """Which evidence counts unless the user says otherwise (`SIGNS`): all of it in the study's pickles."""
        return self.chosen_sign or ("raw" if self.reference else "positive")

    def add(self, task: str, heatmap: np.ndarray) -> None:
        """Take a map [h, w] of floats: into `maps`, or into `failed` if it has values that are not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            heatmap = np.array(heatmap, np.float32, order="C")
        lowest, highest = heatmap.min(), heatmap.max()
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            known = math.isfinite(self.delta.get(task, math.nan))
            said = NOT_CONSERVED if task in self.absorbed else NOT_COMPLETE
            self.failed[task] = said.format(self.delta[task]) if known else NOT_FINITE
            return
        self.maps[task] = heatmap
        if lowest == highest:
            self.flags[task] = "flat"


def checked_sign(sign: object) -> str:
    """A sign that a stranger has written. Raises InputError for one that there is not."""
    if sign not in SIGNS:
        raise InputError(f'"sign" is {str(sign)[:40]!r}, not one of {", ".join(SIGNS)}')
    return sign
