"""A classifier as the saliency methods see it: cut at a layer, one logit per task."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from chextools.errors import InputError
from chextools.models.canonical import canonical, checked_layer, cut
from chextools.models.folded import folded
from chextools.models.inference import leave_if_stopped


class Network:
    """A network in its canonical form, cut at a layer; the caller's network is left as it is.

    model: any classifier of torchvision, from images [N,3,H,W] to outputs [N, outputs].
    layer: whose feature maps the class activation methods look at; None for the default of its family.
    combination: float32 [T, outputs] where logits are combinations of outputs, such as positive minus negative; None
        where they are the outputs. At most one 1 and one -1 in a row.

    Nothing of an image is remembered between calls. Results do not depend on the caller's autograd mode, autocast, or
    on whether the network's parameters are frozen.
    """

    def __init__(self, model: nn.Module, layer: str | None = None, combination: Tensor | None = None):
        self.model = canonical(model)
        self.needs_default = layer is None and self.model.default_layer is None
        whole = next(reversed(self.model.layer_nodes)) if self.needs_default else layer
        self._cut = cut(self.model, whole)
        self.layer = self._cut.layer
        self.combination = combination
        self._folded: dict[bool, fx.GraphModule] = {}
        self._folding = threading.Lock()
        self.weights: Tensor | None = None
        if self._cut.linear is not None:
            linear = self._cut.linear
            self.weights = linear if combination is None else combination.to(linear) @ linear

    def check_layer(self) -> None:
        """Raise InputError where the layer is a default that the family does not have."""
        if self.needs_default:
            checked_layer(self.model, None)

    def check(self, size: int) -> tuple[int, int]:
        """(h, w) of the layer's maps for images of `size` pixels. Raises InputError if it has none."""
        self.check_layer()
        with plainly(), torch.no_grad():
            first = next(self.model.parameters())
            values = self.features(torch.zeros(1, 3, size, size, device=first.device, dtype=first.dtype))
            return tuple(self.spatial(values[0]).shape[2:])

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [N, T]."""
        return self.head(self.features(images))

    def features(self, images: Tensor) -> tuple[Any, ...]:
        """The layer's output, first, and what else the head needs; no graph is kept."""
        with plainly(), torch.no_grad():
            return self._cut.features(images)

    def head(self, values: Sequence[Any]) -> Tensor:
        """Logits [N, T] of what `features` returns; differentiable."""
        with plainly():
            return self._logits(self._cut.head(*values))

    def spatial(self, values: Tensor) -> Tensor:
        """The layer's output, or its gradient, as [N, C, h, w]: of NCHW, NHWC, or tokens of a square grid [N, n, C].

        Raises InputError if it is none of them.
        """
        if not isinstance(values, Tensor):
            raise InputError(f"{self.layer} of {self.model.family} is no feature map; choose another --layer")
        if values.dim() == 4:
            last = values.shape[1] == values.shape[2] != values.shape[3]
            return values.permute(0, 3, 1, 2) if last else values
        if values.dim() == 3:
            for extra in (1, 0):  # the class token comes first
                side = math.isqrt(max(0, values.shape[1] - extra))
                if side > 0 and side * side == values.shape[1] - extra:
                    return values[:, extra:].transpose(1, 2).unflatten(2, (side, side))
        raise InputError(
            f"{self.layer} of {self.model.family} is {list(values.shape[1:])}, not feature maps; choose another --layer"
        )

    def gradients(self, images: Tensor, tasks: Sequence[int]) -> tuple[Tensor, Iterator[Tensor]]:
        """(A, the gradient of each task's logit with respect to A), all [N, C, h, w]: one forward for all tasks.

        The graph reaches from the logits to A and no further.
        """
        first, *rest = (_usable(value) for value in self.features(images))
        return self.spatial(first), self._gradients(first, rest, tasks)

    def _gradients(self, first: Tensor, rest: list, tasks: Sequence[int]) -> Iterator[Tensor]:
        with plainly(), torch.enable_grad():
            leaf = first.detach().requires_grad_()
            logits = self.head((leaf, *rest))
        for place, task in enumerate(tasks, 1):
            with plainly():
                (gradient,) = torch.autograd.grad(logits[:, task].sum(), leaf, retain_graph=place < len(tasks))
            yield self.spatial(gradient)

    def folded(self, forward: bool = False) -> fx.GraphModule:
        """All of the network, BatchNorm folded (see `models.folded`); made once."""
        with self._folding:
            if forward not in self._folded:
                with plainly():
                    self._folded[forward] = folded(self.model, forward=forward)
            return self._folded[forward]

    def whole(self, images: Tensor) -> Tensor:
        """Logits [N, T] without a graph, by the folded network."""
        with plainly(), torch.no_grad():
            return self._logits(self.folded()(images))

    def graph(self, images: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(a leaf that is the images, logits [N, T]): the graph reaches from the logits to the input.

        run: runs the folded network with rules of its own; None for the gradient.
        """
        with plainly(), torch.enable_grad():
            leaf = _usable(images).detach().requires_grad_()
            return leaf, self._logits((run or self.folded())(leaf))

    def _logits(self, outputs: Tensor) -> Tensor:
        if self.combination is None:
            return outputs
        matrix = self.combination.to(outputs.device)
        positive = outputs[:, matrix.argmax(1)]
        negative = outputs[:, matrix.argmin(1)]
        return torch.where((matrix < 0).any(1), positive - negative, positive)


class Once:
    """A network for one batch, whose features are computed once however often they are asked for.

    A method and the scores thus share a forward; made anew for each batch, it leaves nothing behind.
    """

    def __init__(self, network: Network, images: Tensor):
        self._network, self._images = network, images
        self._values: tuple | None = None
        self._known: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def features(self, images: Tensor) -> tuple[Any, ...]:
        if images is not self._images:
            return self._network.features(images)
        if self._values is None:
            self._values = self._network.features(images)
        return self._values

    def gradients(self, images: Tensor, tasks: Sequence[int]) -> tuple[Tensor, Iterator[Tensor]]:
        return Network.gradients(self, images, tasks)

    def _gradients(self, *arguments: Any) -> Iterator[Tensor]:
        return self._network._gradients(*arguments)

    def graph(self, images: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        leaf, logits = self._network.graph(images, run)
        if images is self._images:
            self._known = logits.detach()
        return leaf, logits

    def whole(self, images: Tensor) -> Tensor:
        if images is self._images and self._known is not None:
            return self._known
        return self._network.whole(images)

    def logits(self) -> Tensor:
        """Logits [N, T] of the batch, without a graph."""
        if self._known is not None:
            return self._known
        with plainly(), torch.no_grad():
            return self.head(self.features(self._images))


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Neither inference mode nor autocast, whatever the caller has set; also a decorator."""
    with torch.inference_mode(False), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        yield


def input_gradients(leaf: Tensor, logits: Tensor, tasks: Sequence[int]) -> Iterator[Tensor]:
    """The gradient of each task's logit with respect to the leaf that `graph` returns, [N,3,H,W] each.

    One pass back per task: all of them as one batch took twice as long per task on a CPU.
    """
    for place, task in enumerate(tasks, 1):
        leave_if_stopped()
        with plainly():
            yield torch.autograd.grad(logits[:, task].sum(), leaf, retain_graph=place < len(tasks))[0]


def over_tasks(maps: Iterator[Tensor]) -> Tensor:
    """One map [N, h, w] per task to [N, K, h, w]."""
    return torch.stack(list(maps), dim=1)


def _usable(value: Any) -> Any:
    """A tensor that autograd may save: one made in inference mode may not."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
