"""The probes by name: their one list, which imports none of them, nor torch.

A new probe is a file of this folder and a line here. Its function takes a `Subject` and `ProbeSettings`, and returns a
`Plan`: the altered images that it wants the scores of, and what it makes of these. A probe that needs the heatmaps of
altered images, or of altered networks, has a function of its own, see `remade`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BASELINES = ("zero", "mean", "blur", "black")
SCORES = ("probability", "logit")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A probe.

    function: module and function. options: settings that matter to it, which its results name. remakes: whether it
    makes heatmaps anew, and so needs the method. beside: what stands beside its value in a row, and the name of the
    record's key that it is the mean of. chance: of a map that knows nothing, where that is a number.
    """

    function: str
    options: tuple[str, ...]
    remakes: bool = False
    beside: Mapping[str, str]
    chance: float | None = None

    def load(self) -> Callable[..., Any]:
        module, _, function = self.function.partition(":")
        return getattr(importlib.import_module(f"chextools.probing.{module}"), function)


# In the order of the rows.
PROBES: Mapping[str, Probe] = {
    "deletion": Probe(
        function="erasure:deletion",
        options=("steps", "baseline", "score", "seed"),
        beside={"chance": "deletion_random", "floor": "deletion_centre"},
    ),
    "insertion": Probe(
        function="erasure:insertion",
        options=("steps", "baseline", "score", "seed"),
        beside={"chance": "insertion_random", "floor": "insertion_centre"},
    ),
    "road": Probe(
        function="road:remove_and_debias",
        options=("steps", "score", "seed"),
        beside={"most": "road_most", "least": "road_least", "floor": "road_centre"},
        chance=0.0,
    ),
    "faithfulness": Probe(
        function="faithfulness:of_patches",
        options=("samples", "baseline", "score", "seed"),
        beside={"floor": "faithfulness_centre"},
        chance=0.0,
    ),
    "sensitivity": Probe(
        function="sensitivity:to_noise",
        options=("samples", "seed"),
        remakes=True,
        beside={"mean_change": "sensitivity_mean"},
    ),
    "randomisation": Probe(
        function="randomisation:of_weights",
        options=("seed",),
        remakes=True,
        beside={"ssim": "randomisation_ssim", "end": "randomisation_end", "alone": "randomisation_alone"},
        chance=0.0,
    ),
}
# What each probe takes where nobody says: the papers' own
DEFAULT_BASELINES: Mapping[str, str] = {"deletion": "zero", "insertion": "blur", "faithfulness": "zero"}
DEFAULT_SAMPLES: Mapping[str, int] = {"faithfulness": 100, "sensitivity": 10}


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How heatmaps are probed.

    metrics: of `PROBES`. tasks: those wanted; none for all. steps: of deletion, insertion and road. baseline: what
    replaces pixels, of `BASELINES`; None for each probe's default. samples: of faithfulness and sensitivity, likewise.
    score: the "probability" or "logit" of a task. sign: which evidence of a signed map counts; None for what the record
    or heatmap says. seed: of random orders, patches, noise and weights. curve: whether records hold the curves.
    """

    metrics: tuple[str, ...] = ("deletion", "insertion")
    tasks: tuple[str, ...] = ()
    steps: int = 20
    baseline: str | None = None
    samples: int | None = None
    score: str = "probability"
    sign: str | None = None
    seed: int = 0
    curve: bool = False

    def option(self, probe: str, name: str) -> Any:
        """A setting as it is for a probe."""
        value = getattr(self, name)
        if value is None:
            return (DEFAULT_BASELINES if name == "baseline" else DEFAULT_SAMPLES).get(probe)
        return value

    def told(self, probe: str) -> dict[str, Any]:
        """What results of a probe name."""
        return {name: self.option(probe, name) for name in PROBES[probe].options}

    def label(self, probe: str) -> str:
        return " ".join(f"{name}={value}" for name, value in self.told(probe).items())
