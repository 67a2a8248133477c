"""What a saliency method is told, and how a record says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chextools.errors import InputError
from chextools.saliency.methods import METHODS

if TYPE_CHECKING:
    from chextools.models.checkpoints import Checkpoint
    from chextools.saliency.network import Network

GREYS = {"black": 0.0, "white": 1.0}


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """How heatmaps are made: a method and its options.

    method: one of `methods.METHODS`. layer: for methods that look at one; None for the default.
    window, stride: of occlusion, in pixels of the input; None for an eighth and a sixteenth of its side.
    baseline: what stands for nothing to see, in occlusion, integrated gradients and DeepLIFT: "zero" (the mean colour
        of the normalisation), "mean" (the image's own), "blur", "black", "white", or a grey level from 0 to 1.
    steps: of integrated gradients. rule: of relevance propagation. samples: of SmoothGrad.
    seed: of random maps and SmoothGrad.
    sign: which evidence is to count where these maps become masks; None for the reader's own default.
    """

    method: str = "gradcam"
    layer: str | None = None
    window: int | None = None
    stride: int | None = None
    baseline: str | float = "zero"
    steps: int = 50
    rule: str = "epsilon-plus"
    samples: int = 50
    seed: int = 0
    sign: str | None = None

    def label(self, size: int) -> str:
        """What a record's "method" says: the name, and what differs from its defaults or has none in the literature."""
        method, said = METHODS[self.method], dict[str, object]()
        if "window" in method.options:
            said["window"], said["stride"] = self.sweep(size)
        for name in ("steps", "baseline", "rule", "samples"):
            if name in method.options:
                said[name] = getattr(self, name)
        if "seed" in method.options and self.seed:
            said["seed"] = self.seed
        if method.needs_layer and self.layer:
            said["layer"] = self.layer
        return " ".join([self.method, *(f"{name}={value}" for name, value in said.items())])

    def sweep(self, size: int) -> tuple[int, int]:
        """(window, stride) of occlusion. Raises InputError if windows leave gaps or exceed the input."""
        window = self.window or max(1, size // 8)
        stride = self.stride or max(1, window // 2)
        if window > size:
            raise InputError(f"--window {window} is larger than the network's input of {size} pixels")
        if stride > window:
            raise InputError(f"--stride {stride} is larger than the window of {window}: pixels would be left out")
        return window, stride

    def options(self, checkpoint: Checkpoint, batch: int) -> dict[str, Any]:
        """What the method takes beyond its three arguments."""
        found: dict[str, Any] = {"batch": batch, "baseline": self.baseline}
        if self.method == "occlusion":
            found["window"], found["stride"] = self.sweep(checkpoint.size)
        if self.baseline == "zero":
            found["baseline"] = 0.0
        elif self.baseline not in ("mean", "blur"):
            grey = GREYS[self.baseline] if isinstance(self.baseline, str) else self.baseline
            found["baseline"] = [(grey - m) / s for m, s in zip(checkpoint.mean, checkpoint.std)]
        for name in ("steps", "rule", "samples", "seed"):
            found[name] = getattr(self, name)
        return {name: found[name] for name in METHODS[self.method].options}

    def check(self, network: Network) -> None:
        """Raise InputError if the method is not defined for a network."""
        METHODS[self.method].check(network, **({"rule": self.rule} if self.method == "lrp" else {}))

    @classmethod
    def parsed(cls, label: str) -> MethodSettings:
        """The settings that a record's "method" tells of: the inverse of `label`, for any size.

        Raises InputError for what no version of chex-cam has written.
        """
        name, *said = label.split(" ")
        given: dict[str, Any] = {"method": name}
        for key, equals, value in (part.partition("=") for part in said):
            if name not in METHODS or not equals or key not in (*METHODS[name].options, "layer") or key == "batch":
                raise InputError(f"no method of chex-cam is called {label[:80]!r}")
            given[key] = _number(value) if key == "baseline" else value if key in ("rule", "layer") else _count(value)
        if name not in METHODS:
            raise InputError(f"no method of chex-cam is called {label[:80]!r}")
        return cls(**given)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _count(text: str) -> int:
    if not text.isdigit():
        raise InputError(f"{text[:40]!r} in a method's name is not a whole number")
    return int(text)
