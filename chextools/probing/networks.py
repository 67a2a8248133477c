"""An ensemble as probes use it: scores of altered images in full batches, and heatmaps made anew."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chextools.models import inference
from chextools.models.checkpoints import Checkpoint
from chextools.models.chunks import in_chunks
from chextools.probing.subject import Plan, Subject
from chextools.saliency import baselines
from chextools.saliency.ensembles import Ensemble
from chextools.saliency.network import Network
from chextools.saliency.settings import MethodSettings
from chextools.xrays.squares import Square

BATCH = {"cpu": 16, "cuda": 128, "mps": 32}  # altered images at once, by kind of device
FULL_BATCHES = 8  # that what is scored together fills at least, so that a last one that is not full costs little


class Networks:
    """The networks of an ensemble, and the method that made the heatmaps.

    method: None where heatmaps need not be made anew. batch_size: None for what suits the device. A last batch is
    filled up with copies, so that an image's numbers do not depend, to the bit, on which others stand after it.
    """

    def __init__(self, ensemble: Ensemble, method: MethodSettings | None = None, batch_size: int | None = None):
        self.ensemble, self.method = ensemble, method
        self.batch_size = batch_size or BATCH.get(ensemble.device.type, 16)
        self.forwards = 0  # altered images that went through each network
        self.kept: dict[str, Any] = {}  # what a probe makes once, under a lock
        self.lock = threading.Lock()

    def scores(self, plans: Sequence[tuple[Subject, Plan]], score: str) -> list[np.ndarray]:
        """The scores of each plan's images, float64 [count, K], in full batches.

        A plan that fills `FULL_BATCHES` has its own, and numbers that are to the bit those it has alone. Smaller ones
        share batches: where an image stands in one may round its numbers otherwise.
        """
        many = [plan.count >= FULL_BATCHES * self.batch_size for _, plan in plans]
        shared = [pair for pair, alone in zip(plans, many) if not alone]
        together = iter(self._scores_together(shared, score) if shared else ())
        return [self._scores_together([p], score)[0] if alone else next(together) for p, alone in zip(plans, many)]

    def _scores_together(self, plans: Sequence[tuple[Subject, Plan]], score: str) -> list[np.ndarray]:
        """All plans' images in turn, cut into full batches."""
        ends = np.cumsum([plan.count for _, plan in plans])
        starts = ends - [plan.count for _, plan in plans]
        known: dict[tuple, Tensor] = {}

        def work(part: slice) -> Tensor:
            some = [
                (subject, plan, slice(max(part.start - start, 0), min(part.stop, end) - start))
                for (subject, plan), start, end in zip(plans, starts.tolist(), ends.tolist())
                if start < part.stop and end > part.start
            ]
            made = [plan.make(rows) for _, plan, rows in some]

            def images(about: Checkpoint) -> Tensor:
                pairs = zip(some, made)
                cut = torch.cat([self._input(subject, plan, rows, about, known) for (subject, plan, _), rows in pairs])
                return _filled_up(cut, self.batch_size) if part.stop == ends[-1] else cut

            return self._scored(images, score)[: part.stop - part.start]

        found = torch.cat(list(in_chunks(int(ends[-1]), self.batch_size, work))).numpy()
        return [found[start:end] for start, end in zip(starts, ends)]

    def maps(self, images: Mapping[Square, np.ndarray], ensemble: Ensemble | None = None) -> np.ndarray:
        """Heatmaps float32 [N, K, h, w] of grey levels [N, size, size] by square, made as the method says."""
        assert self.method is not None
        method, ensemble = self.method, ensemble or self.ensemble
        count = len(next(iter(images.values())))

        def work(part: slice) -> Tensor:
            cut = {square: torch.tensor(pixels[part]) for square, pixels in images.items()}
            if part.stop == count:
                cut = {square: _filled_up(pixels, size) for square, pixels in cut.items()}
            batch = {square: pixels.numpy() for square, pixels in cut.items()}
            made = ensemble.explain(batch, lambda about: method.options(about, self.batch_size))[0]
            return torch.from_numpy(made[: part.stop - part.start])

        size = 1 if ensemble.method.per_image else min(self.batch_size, ensemble.batch_size())
        return torch.cat(list(in_chunks(count, size, work))).numpy()

    def altered(self, networks: Sequence[Network]) -> Ensemble:
        """The ensemble with other networks for its members'."""
        other = copy.copy(self.ensemble)
        other.members = [
            dataclasses.replace(member, network=network) for member, network in zip(self.ensemble.members, networks)
        ]
        return other

    def _input(
        self, subject: Subject, plan: Plan, made: Tensor, about: Checkpoint, known: dict[tuple, Tensor]
    ) -> Tensor:
        """The plan's images as a checkpoint takes them: float32 [n, C, size, size]."""
        square = about.square
        if plan.baseline is None:
            return inference.normalise(_resized(made, square.size), about.mean, about.std)
        key = (id(subject), square, about.mean, about.std)
        filled = (*key, plan.baseline)
        if key not in known:
            grey = torch.tensor(subject.images[square])[None]
            known[key] = inference.normalise(grey, about.mean, about.std, self.ensemble.device)
        image = known[key]
        if filled not in known:
            known[filled] = baselines.of(_filled(plan.baseline, about), image)
        stays = _resized(made.to(torch.float32), square.size) >= 0.5
        return torch.where(stays[:, None], image, known[filled])

    def _scored(self, images: Callable[[Checkpoint], Tensor], score: str) -> Tensor:
        """float64 [n, K]: the mean over the checkpoints of each task."""
        total, count = None, torch.zeros(len(self.ensemble.tasks), dtype=torch.float64)
        for member in self.ensemble.members:
            batch = images(member.about)
            with self.lock:
                self.forwards += len(batch)
            if batch.device.type == "cpu":
                batch = batch.contiguous(memory_format=torch.channels_last)
            logits = self.ensemble.network_of(member).whole(batch).float()
            found = logits if score == "logit" else member.about.probabilities(logits)
            if total is None:
                total = torch.zeros(len(batch), len(self.ensemble.tasks), dtype=torch.float64)
            total[:, member.columns] += found.cpu()[:, member.logits].double()
            count[member.columns] += 1
        assert total is not None
        return total / count


def _filled(baseline: str, about: Checkpoint) -> baselines.Baseline:
    if baseline == "zero":
        return 0.0
    return [-mean / std for mean, std in zip(about.mean, about.std)] if baseline == "black" else baseline


def _filled_up(batch: Tensor, size: int) -> Tensor:
    """A batch with copies of its first image up to a size."""
    missing = size - len(batch)
    return torch.cat([batch, batch[:1].expand(missing, *batch.shape[1:])]) if missing > 0 else batch


def _resized(values: Tensor, size: int) -> Tensor:
    """[n, S, S] to [n, size, size]: for networks that take a smaller input than that which maps refer to."""
    if values.shape[-1] == size:
        return values
    return functional.interpolate(values[:, None], (size, size), mode="bilinear", antialias=True)[:, 0]
