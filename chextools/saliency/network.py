"""A classifier as the saliency methods see it: cut at a layer, one logit per task."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from chextools.errors import InputError
from chextools.models.canonical import Canonical, as_canonical, checked_layer, cut
from chextools.models.checkpoints import Columns, chosen
from chextools.models.folded import fold
from chextools.models.inference import leave_if_stopped
from chextools.models.layers import as_maps


class Network:
    """A network in its canonical form, cut at a layer; the caller's network is left as it is.

    model: from images [N, C, H, W] to outputs [N, outputs]: as `models.assembly` makes it of a checkpoint's graph, or
        any classifier of torchvision.
    layer: whose feature maps the class activation methods look at; None for its last.
    columns: by task the output that is its logit, and one to be subtracted or None; None where outputs are logits.

    Nothing of an image is remembered between calls. Results do not depend on the caller's autograd mode, autocast, or
    on whether the network's parameters are frozen.
    """

    def __init__(self, model: nn.Module, layer: str | None = None, columns: Columns | None = None):
        self.model = model if isinstance(model, Canonical) else as_canonical(model)
        self.needs_default = layer is None and self.model.default_layer is None
        whole = next(reversed(self.model.layer_nodes)) if self.needs_default else layer
        self._cut = cut(self.model, whole)
        self.layer = self._cut.layer
        self.columns = columns
        self._folded: dict[bool, fx.GraphModule] = {}
        self._folding = threading.Lock()
        self.weights: Tensor | None = None
        if self._cut.linear is not None:
            self.weights = self._logits(self._cut.linear.T).T

    def check_layer(self) -> None:
        """Raise InputError where the layer is a default that the family does not have."""
        if self.needs_default:
            checked_layer(self.model, None)

    def check(self, size: int, channels: int = 3) -> tuple[int, int]:
        """(h, w) of the layer's maps for images of `size` pixels. Raises InputError if it has none."""
        self.check_layer()
        with plainly(), torch.no_grad():
            first = next(self.model.parameters(), torch.empty(0))
            values = self.features(torch.zeros(1, channels, size, size, device=first.device, dtype=first.dtype))
            height, width = self.spatial(values[0]).shape[2:]
            return height, width

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
        maps = as_maps(values)
        if maps is not None:
            return maps
        raise InputError(
            f"{self.layer} of {self.model.family} is {list(values.shape[1:])}, not feature maps; choose another --layer"
        )

    def gradients(self, images: Tensor, tasks: Sequence[int]) -> tuple[Tensor, Iterator[Tensor]]:
        """(A, the gradient of each task's logit with respect to A), all [N, C, h, w]: one forward for all tasks.

        The graph reaches from the logits to A and no further.
        """
        return self.gradients_of(self.features(images), tasks)

    def gradients_of(
        self, values: Sequence[Any], tasks: Sequence[int], note: Callable[[Tensor], None] | None = None
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """The same of what `features` has returned. note: is told the logits when the first gradient is taken."""
        first, *rest = (_usable(value) for value in values)
        return self.spatial(first), self._gradients(first, rest, tasks, note)

    def _gradients(
        self, first: Tensor, rest: list, tasks: Sequence[int], note: Callable[[Tensor], None] | None
    ) -> Iterator[Tensor]:
        with plainly(), torch.enable_grad():
            leaf = first.detach().requires_grad_()
            logits = self.head((leaf, *rest))
        if note is not None:
            note(logits.detach())
        for place, task in enumerate(tasks, 1):
            with plainly():
                (gradient,) = torch.autograd.grad(logits[:, task].sum(), leaf, retain_graph=place < len(tasks))
            yield self.spatial(gradient)

    def mean_gradients(self, images: Tensor, tasks: Sequence[int]) -> tuple[Tensor, Iterator[Tensor]]:
        """(A [N, C, h, w], the mean over positions [N, C] of each task's gradient with respect to A), one forward.

        Where A goes into linear layers, as tokens do that are to be keys and values of attention, the mean is taken of
        the gradient of what these make, and then handed through their weights: theirs is a product of vectors instead
        of one of all tokens.
        """
        return self.mean_gradients_of(self.features(images), tasks)

    def mean_gradients_of(
        self, values: Sequence[Any], tasks: Sequence[int], note: Callable[[Tensor], None] | None = None
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """The same of what `features` has returned. note: is told the logits when the first gradient is taken."""
        first, *rest = (_usable(value) for value in values)
        return self.spatial(first), self._mean_gradients(first, rest, tasks, note)

    def _mean_gradients(
        self, first: Tensor, rest: list, tasks: Sequence[int], note: Callable[[Tensor], None] | None
    ) -> Iterator[Tensor]:
        entries = self._cut.entries if first.dim() == 3 else ()
        if not entries:
            yield from (gradient.mean((2, 3)) for gradient in self._gradients(first, rest, tasks, note))
            return
        with plainly(), torch.no_grad():
            leaves = [first, *(entry(first) for entry in entries)]
        with plainly(), torch.enable_grad():
            leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            logits = self._logits(self._cut.tail(leaves[0], *rest, *leaves[1:]))
        if note is not None:
            note(logits.detach())
        for found in gradients_of_several(leaves, logits, tasks):
            own, *means = (None if each is None else self.spatial(each).mean((2, 3)) for each in found)
            total = torch.zeros_like(first[:, 0]) if own is None else own
            for mean, entry in zip(means, entries):
                total = total if mean is None else total + mean @ entry.weight
            yield total

    def folded(self, forward: bool = False) -> fx.GraphModule:
        """All of the network, BatchNorm folded (see `models.folded`); made once."""
        with self._folding:
            if forward not in self._folded:
                with plainly():
                    self._folded[forward] = fold(self.model, forward=forward)
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
        return outputs if self.columns is None else chosen(outputs, self.columns)


class Once:
    """A network for one batch, whose features are computed once however often they are asked for.

    A method and the scores thus share a forward; made anew for each batch, it leaves nothing behind.
    """

    def __init__(self, network: Network, images: Tensor):
        self._network, self._images = network, images
        self._values: tuple | None = None
        self._known: Tensor | None = None
        self._headed: Tensor | None = None  # logits of the features

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
        return self._network.gradients_of(self.features(images), tasks, self._note(images))

    def mean_gradients(self, images: Tensor, tasks: Sequence[int]) -> tuple[Tensor, Iterator[Tensor]]:
        return self._network.mean_gradients_of(self.features(images), tasks, self._note(images))

    def _note(self, images: Tensor) -> Callable[[Tensor], None] | None:
        return functools.partial(setattr, self, "_headed") if images is self._images else None

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
        if self._headed is not None:
            return self._headed
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
    for gradients in gradients_of_several([leaf], logits, tasks):
        yield gradients[0]


def gradients_of_several(leaves: Sequence[Tensor], logits: Tensor, tasks: Sequence[int]) -> Iterator[tuple]:
    """The same with respect to each of several leaves; None for one that does not count."""
    for place, task in enumerate(tasks, 1):
        leave_if_stopped()
        with plainly():
            yield torch.autograd.grad(logits[:, task].sum(), leaves, retain_graph=place < len(tasks), allow_unused=True)


def picked(values: Tensor, places: Sequence[int], dim: int) -> Tensor:
    """`values` at some places of a dimension. A list for an index would make the CPU wait for a GPU."""
    return torch.stack([values.select(dim, place) for place in places], dim)


def over_tasks(maps: Iterator[Tensor]) -> Tensor:
    """One map [N, h, w] per task to [N, K, h, w]."""
    return torch.stack(list(maps), dim=1)


def _usable(value: Any) -> Any:
    """A tensor that autograd may save: one made in inference mode may not."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
