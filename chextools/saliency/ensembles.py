"""Classifiers to be explained: one checkpoint or the mean of several, on a device, for the tasks that are wanted."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from chextools.errors import InputError
from chextools.models import checkpoints, chunks, inference, selection
from chextools.models.checkpoints import Checkpoint
from chextools.saliency.completeness import ROUNDING, TOLERANCE, deltas
from chextools.saliency.methods import UNCOUNTED, Method
from chextools.saliency.network import Network, Once, picked
from chextools.tasks import STUDY, study_order
from chextools.xrays.squares import Square

log = logging.getLogger(__name__)

BATCH = {"cpu": 4, "cuda": 32, "mps": 16}  # images at once, by kind of device


@dataclass
class Member:
    """A checkpoint of an ensemble: which of its logits go to which of the wanted tasks."""

    path: str
    about: Checkpoint  # without its model
    logits: list[int]
    columns: list[int]
    network: Network | None


class Ensemble:
    """Checkpoints, loaded and cut at a layer.

    tasks: in the study's order. identity: what a record's "model" says. squares: how an image becomes an input, smaller
    ones first; the maps are those of the last. layer: None where it is the default of each. differences: tasks whose
    logit is the difference of two outputs, such as positive minus negative.
    """

    def __init__(
        self,
        paths: Sequence[str],
        method: Method,
        requested: Sequence[str] = (),
        layer: str | None = None,
        device: str = "auto",
        check: Callable[[Network], None] | None = None,
    ):
        """paths: checkpoints, or ensemble.json files, which name some per task. requested: tasks; none for the study's
        ten where there are some, else all. layer: for methods that look at one. check: raises InputError for a network
        that the method is not defined for.

        Raises InputError in one line for what cannot be loaded, for an unknown task or layer, and for a network that
        the method cannot explain.
        """
        chosen = checkpoints.select(paths)
        self.layer, self.method, self.check = layer, method, check
        self.device = inference.device(device)
        if method.double and self.device.type == "mps":
            log.warning("%s needs double precision, which this GPU lacks: running on the CPU", method.name)
            self.device = torch.device("cpu")
        inference.exactly()
        loaded: list[tuple[Member, list[str]]] = []
        used = 0
        for path, checkpoint, counts in selection.loaded(chosen):
            network: Network | None = self._network(path, checkpoint)
            used += sum(t.numel() * t.element_size() for t in _model(checkpoint).state_dict().values())
            if used > self._room():  # streamed: loaded again for each batch
                network = None
            about = dataclasses.replace(checkpoint, model=None)
            loaded.append((Member(path, about, [], [], network), counts))
        where = ", ".join(paths)
        self.tasks = _chosen(requested, {task for _, counts in loaded for task in counts}, where)
        self.members = []
        for member, counts in loaded:
            member.columns = [k for k, task in enumerate(self.tasks) if task in counts]
            member.logits = [member.about.tasks.index(self.tasks[k]) for k in member.columns]
            if member.columns:
                self.members.append(member)
        self.identity = checkpoints.identity([m.about for m in self.members], [chosen[m.path] for m in self.members])
        self.squares = sorted({member.about.square for member in self.members})
        if (
            len({(square.fit, square.resize_to / square.size if square.resize_to else 1) for square in self.squares})
            > 1
        ):
            fits = ", ".join(sorted({square.described() for square in self.squares}))
            raise InputError(f"{where}: networks that see different parts of an image ({fits}) have no common heatmap")
        self.differences = {task for m in self.members for task in m.about.differences()} & set(self.tasks)
        if streamed := sum(member.network is None for member in self.members):
            log.warning(
                "%d of %d checkpoints do not fit in memory; they are read anew for each batch",
                streamed,
                len(self.members),
            )

    @property
    def size(self) -> int:
        """The side of the input in pixels that maps refer to."""
        return self.square.size

    @property
    def square(self) -> Square:
        """The input that maps refer to."""
        return self.squares[-1]

    def batch_size(self) -> int:
        if self.method.to_input and self.device.type == "cpu":
            return 1  # per core: a graph back to the input takes a hundred times the memory of an image
        return BATCH.get(self.device.type, 8)

    def workers(self) -> int:
        """Batches to compute at once, unless one takes all cores, or much memory."""
        streamed = any(member.network is None for member in self.members)
        alone = self.method.per_image and not self.method.to_input
        return 1 if streamed or alone else inference.workers(self.device)

    def explain(
        self, images: Mapping[Square, np.ndarray], options: Callable[[Checkpoint], dict]
    ) -> tuple[np.ndarray, ...]:
        """(maps float32 [N, K, h, w], scores float64 [N, K]) of [N, size, size] by square: means over checkpoints.

        With methods whose maps should sum to a change in logit two more float64 [N, K] follow: how far they are from
        it, and that change; and of those that count it, what did not come to the maps. Maps of a method that must meet
        it, and does not, are NaN.

        options: what the method takes beyond images and tasks, by checkpoint. Where memory is not enough, the batch is
        halved.
        """
        return chunks.of_images(images, lambda part: self._explain(part, options))

    def network_of(self, member: Member) -> Network:
        """The network of one of `members`; read anew where it did not fit in memory."""
        return member.network or self._network(member.path, self._again(member))

    def _explain(
        self, images: Mapping[Square, np.ndarray], options: Callable[[Checkpoint], dict]
    ) -> tuple[np.ndarray, ...]:
        maps: list[Tensor] = []
        scores = torch.zeros(len(next(iter(images.values()))), len(self.tasks), dtype=torch.float64)
        deltas = [torch.zeros_like(scores) for _ in range(self.method.complete * 2 + bool(self.method.counted))]
        count = torch.zeros(len(self.tasks))
        attribute = self.method.load_counted() if self.method.counted else self.method.load()
        inputs: dict[tuple, Tensor] = {}
        for member in self.members:
            about = member.about
            key = (about.square, about.mean, about.std)
            if key not in inputs:
                inputs[key] = inference.normalise(images[about.square], about.mean, about.std, self.device)
            network = self.network_of(member)
            once = Once(network, inputs[key])
            given = options(about)
            found, absorbed = attribute(once, inputs[key], member.logits, **given), None
            if self.method.counted:
                found, absorbed = found
            found = found.float()
            if self.method.complete:
                for total, part in zip(deltas, self._completeness(once, inputs[key], member, found, absorbed, given)):
                    total[:, member.columns] += part
            maps.append(found.cpu())
            scores[:, member.columns] += about.probabilities(once.logits().float()).cpu()[:, member.logits]
            count[member.columns] += 1
            del once, network
        return self._mean(maps, count).numpy(), *((total / count).numpy() for total in (scores, *deltas))

    def _completeness(
        self, network: Once, images: Tensor, member: Member, maps: Tensor, absorbed: Tensor | None, given: dict
    ) -> tuple[Tensor, ...]:
        """(delta, change), [N, K], and absorbed where it is counted; maps that must be complete, and miss its
        tolerance, become NaN.
        """
        delta, change = deltas(network, images, member.logits, maps, given.get("baseline"))
        if self.method.exact or (absorbed is not None and given.get("rule") != UNCOUNTED):
            taken = 0 if absorbed is None else absorbed
            delta = delta + taken
            logit = picked(network.logits(), member.logits, 1).double()
            parts = maps.abs().sum((2, 3), dtype=torch.float64) + logit.abs() + (logit - change + taken).abs()
            rounding = ROUNDING * parts
            maps[~(delta.abs() <= torch.maximum(TOLERANCE * change.abs(), rounding))] = torch.nan
        found = (delta, change) if absorbed is None else (delta, change, absorbed)
        return tuple(each.cpu() for each in found)

    def _mean(self, maps: Sequence[Tensor], count: Tensor) -> Tensor:
        """float32 [N, K, h, w]. Maps of several resolutions meet at the input's, where the study has all of its own."""
        if len(maps) == 1:
            return maps[0]
        shapes = {(each.shape[2], each.shape[3]) for each in maps}
        shape = shapes.pop() if len(shapes) == 1 else (self.size, self.size)
        total = torch.zeros(len(maps[0]), len(self.tasks), *shape, dtype=torch.float64)
        for member, each in zip(self.members, maps):
            larger = upsampled(each, shape)
            if self.method.to_input:  # parts of a sum: more pixels have less of it each
                larger = larger * (math.prod(each.shape[2:]) / math.prod(shape))
            total[:, member.columns] += larger
        return (total / count[:, None, None]).float()

    def _network(self, path: str, checkpoint: Checkpoint) -> Network:
        model = inference.place(_model(checkpoint), self.device)
        try:
            network = Network(model, self.layer, checkpoint.by_task())
            if self.method.needs_layer:
                network.check(checkpoint.size, checkpoint.channels)
            if self.check is not None:
                self.check(network)
        except InputError as error:
            raise InputError(f"{path}: {self.method.name}: {error}") from None
        return network

    def _again(self, member: Member) -> Checkpoint:
        checkpoint = checkpoints.load(member.path)
        if checkpoint.sha256 != member.about.sha256:
            raise InputError(f"{member.path}: changed while it was in use")
        return checkpoint

    def _room(self) -> float:
        """Bytes that networks may take: half of what is free."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_properties(self.device).total_memory / 2
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 4
        except (ValueError, OSError):
            return 2**32


def _model(checkpoint: Checkpoint) -> nn.Module:
    assert checkpoint.model is not None
    return checkpoint.model


def upsampled(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """[N, K, h, w] bilinearly to [N, K, *shape], half-pixel centres; as they are where they have that shape."""
    if tuple(maps.shape[2:]) == tuple(shape):
        return maps
    return torch.nn.functional.interpolate(maps, shape, mode="bilinear", align_corners=False)


def _chosen(requested: Sequence[str], available: set[str], where: str) -> list[str]:
    """The wanted tasks: the study's ten by default, where there are any of them, else all."""
    if not requested:
        return [task for task in STUDY if task in available] or study_order(available)
    return selection.tasks(requested, available, where)
