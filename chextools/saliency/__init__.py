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


@dataclass(frozen=True)
class Method:
    """A method by its name.

    module, function: where it is. needs_layer: whether it looks at one layer's feature maps. options: what it takes
    beyond its three arguments. per_image: whether each image takes many passes through the network.
    """

    name: str
    module: str
    function: str
    needs_layer: bool = False
    options: tuple[str, ...] = ()
    per_image: bool = False

    def load(self) -> Callable:
        return getattr(importlib.import_module(f"chextools.saliency.{self.module}"), self.function)


METHODS = {
    method.name: method
    for method in (
        Method("gradcam", "gradcam", "gradcam", needs_layer=True),
        Method("gradcampp", "gradcampp", "gradcampp", needs_layer=True),
        Method("eigencam", "eigencam", "eigencam", needs_layer=True),
        Method("layercam", "layercam", "layercam", needs_layer=True),
        Method("hirescam", "hirescam", "hirescam", needs_layer=True),
        Method("occlusion", "occlusion", "occlude", options=("window", "stride", "baseline", "batch"), per_image=True),
        Method("random", "floors", "random", options=("seed",)),
        Method("centre", "floors", "centre"),
        Method("mean", "gradcam", "gradcam", needs_layer=True),  # then floors.mean_of_others
    )
}
