"""Saliency methods, one file each, with one signature:

    method(model: Network, images: float32 [N,3,H,W], tasks: [K]) -> float32 [N,K,h,w]

`tasks` are positions among the model's logits. Maps are raw and signed, at the method's own resolution: nothing is
normalised. What is explained is the logit, never its sigmoid, whose gradient vanishes where the network is sure.
Nothing here imports torch before a method is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chextools.saliency.network import Network

UNCOUNTED = "gradient-input"  # of LRP's rules the one that hands on nothing layer by layer


@dataclass(frozen=True)
class Method:
    """A method by its name.

    module, function: where it is, if not `maps` in the file of its name. needs_layer: whether it looks at one layer's
    feature maps. options: what it takes beyond its three arguments. per_image: whether each image takes many passes
    through the network. to_input: whether gradients go back to the input, which takes memory. complete: whether its
    maps should sum to a logit, or to its change from a baseline. exact: whether they must. partial: whether it is not
    defined for every network. counted: its function that also says what did not come to the maps, float64 [N, K], with
    which they must sum to it. double: whether it computes in float64 here and there.
    """

    name: str
    module: str = ""
    function: str = "maps"
    needs_layer: bool = False
    options: tuple[str, ...] = ()
    per_image: bool = False
    to_input: bool = False
    complete: bool = False
    exact: bool = False
    partial: bool = False
    counted: str = ""

    @property
    def double(self) -> bool:
        return self.to_input or self.name == "eigencam"

    def load(self) -> Callable:
        return getattr(self._imported(), self.function)

    def load_counted(self) -> Callable:
        return getattr(self._imported(), self.counted)

    def check(self, network: Network, **options: object) -> None:
        """Raise InputError if the method is not defined for a network."""
        if self.partial:
            self._imported().check(network, **options)

    def _imported(self) -> ModuleType:
        return importlib.import_module(f"chextools.saliency.{self.module or self.name}")


METHODS = {
    method.name: method
    for method in (
        Method("gradcam", needs_layer=True),
        Method("gradcampp", needs_layer=True),
        Method("eigencam", needs_layer=True),
        Method("layercam", needs_layer=True),
        Method("hirescam", needs_layer=True),
        Method("rollout", partial=True),
        Method("occlusion", options=("window", "stride", "baseline", "batch"), per_image=True),
        Method("ig", options=("steps", "baseline", "batch"), per_image=True, to_input=True, complete=True),
        Method("deeplift", options=("baseline",), to_input=True, complete=True, exact=True, partial=True),
        Method("lrp", options=("rule",), to_input=True, complete=True, partial=True, counted="accounted"),
        Method("smoothgrad", options=("samples", "seed", "batch"), per_image=True, to_input=True),
        Method("random", "floors", "random_maps", options=("seed",)),
        Method("centre", "floors", "centred"),
        Method("mean", "gradcam", needs_layer=True),  # then floors.mean_of_others
    )
}
