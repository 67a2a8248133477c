"""What learns: a network, its loss and optimiser, and what one step does.

What a step does is a function of the settings, the weights before it and its number: augmentation and dropout are drawn
anew from (seed, step).
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from chextools.errors import InputError
from chextools.models import architectures, checkpoints, inference, weights
from chextools.training import augment, optimiser, own_code
from chextools.training.labels import Labelling
from chextools.training.outlines import Outlines
from chextools.training.own_code import OwnCode
from chextools.training.ranks import Ranks
from chextools.training.settings import TrainSettings

if TYPE_CHECKING:
    import torch

    from chextools.training.guidance import Guide

log = logging.getLogger(__name__)


class Learner:
    """A network in training.

    model: the network, on its device. loss, loss_sum, loss_count: what a step lessens, and its sum over the steps since
    the last row. computed: seconds of forward, backward and optimiser.
    """

    def __init__(
        self,
        settings: TrainSettings,
        labelling: Labelling,
        own: OwnCode,
        device: torch.device,
        ranks: Ranks,
        importance: np.ndarray,
        steps: int,
        state: Mapping | None,
        outlines: Outlines | None = None,
    ):
        """importance: float32 [K, 3], what labels weigh. steps: of the whole run. state: to go on from. outlines: to
        look at beside labels.

        Raises InputError for whatever can be known before the first step.
        """
        self.settings, self.labelling, self.own, self.device, self.ranks = settings, labelling, own, device, ranks
        self.outputs = checkpoints.output_names(labelling.tasks, labelling.policy)
        self.steps, self.outlines = steps, outlines
        self.computed = 0.0
        self.loss: Callable = optimiser.Loss(labelling.multiclass, importance, device)
        if code := own.get("loss"):
            self.loss = own_code.OwnLoss(code)
        self._build(state)

    def learn(self, step: int, rows: np.ndarray, pixels: np.ndarray, labels: tuple) -> None:
        """One step, of number `step`, on the images of `rows`, of which `pixels` are our share.

        labels: (target, weight), float32 [n, K] of these rows, also those of others.
        """
        import torch

        settings = self.settings
        seed = settings.seed * (1 << 31) + step
        torch.manual_seed(seed)
        self.network.train()
        for module in self.frozen:
            module.eval()
        rate = self._rate(step)
        for group, greatest in zip(self.optimizer.param_groups, self.greatest):
            group["lr"] = greatest * rate
        labels_seen = max(float(labels[1].numpy().sum()), 1.0)
        outlines_seen = len(self.outlines.pairs(rows)) if self.outlines else 0
        try:
            for start in range(0, len(rows), settings.batch_size):
                batch = rows[start : start + settings.batch_size]
                mine = self.ranks.share(len(batch))
                ours, pixels = pixels[: len(batch[mine])], pixels[len(batch[mine]) :]
                drawn = (seed * len(rows) + start) % (1 << 63)
                images = self.images(ours, drawn, mine, len(batch))
                target, present = (self.there(of[start : start + len(batch)][mine]) for of in labels)
                last = start + settings.batch_size >= len(rows)
                begun = time.perf_counter()
                with self._among(mine, len(batch), last):
                    with self._autocast(), self._watching(outlines_seen):
                        output = self.network(images)
                    loss = self.loss(output, target, present) / labels_seen
                    if outlines_seen:
                        outside = self._outside(output, batch, mine, drawn) / outlines_seen
                        loss = loss + settings.outline_weight * outside
                        self.outline_sum += outside.detach()
                    everyones = loss * self.ranks.count  # of which the mean over processes is taken
                    (self.scaler.scale(everyones) if self.scaler else everyones).backward()
                self.loss_sum += loss.detach()
                if last:
                    self._update()
                self.computed += time.perf_counter() - begun
        except torch.cuda.OutOfMemoryError:
            raise InputError(
                f"out of GPU memory at --batch-size {settings.batch_size}; --accumulate N takes N smaller "
                "batches per step"
            ) from None
        except RuntimeError as error:
            if not (settings.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))):
                raise
            raise InputError(
                f"torch cannot compile {settings.arch} here ({str(error).splitlines()[0]}); leave out --compile"
            ) from None
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "one image of this size per batch leaves batch normalisation nothing to average; raise "
                "--batch-size or --size"
            ) from None
        self.loss_count += 1
        self.outline_count += bool(outlines_seen)

    def images(
        self, pixels: np.ndarray, seed: int | None = None, mine: slice | None = None, batch: int | None = None
    ) -> torch.Tensor:
        """The network's input; augmented where there is a seed, as rows `mine` of a batch."""
        import torch

        code = self.own.get("augment")
        if code and seed is not None:
            pixels = own_code.augmented(code, pixels, seed, mine.start if mine else 0)
        how = self.settings.augmentation
        if seed is not None and not code:
            pixels = augment.scanned(pixels, how, seed, mine, batch)
        moved = self.there(torch.from_numpy(pixels))
        if seed is not None and not code:
            moved = augment.apply(moved, how, seed, mine, batch)
        images = inference.normalise(moved, checkpoints.MEAN, checkpoints.STD)
        return images.to(memory_format=self._layout)

    def _watching(self, outlines: int) -> contextlib.AbstractContextManager:
        return self.guide.watching() if self.guide and outlines else contextlib.nullcontext()

    def _outside(self, output: torch.Tensor, batch: np.ndarray, mine: slice, seed: int) -> torch.Tensor:
        """The sum of the losses of our images' outlines, which are changed as the images are."""
        import torch

        assert self.outlines and self.guide
        pairs, masks = self.outlines.pairs(batch[mine]), self.outlines.masks(batch[mine])
        if not pairs:
            return output.sum() * 0
        places = [place + mine.start for place, _ in pairs]
        how = self.settings.augmentation
        edges = augment.edges(how, seed, self.settings.size, len(batch))
        for mask, place in zip(masks, places):
            augment.paint(mask, edges[place], 0)
        moved = augment.moved(self.there(torch.from_numpy(masks)), places, how, seed, len(batch))
        return self.guide.outside(output, pairs, moved)

    def there(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on our device."""
        return inference.there(tensor, self.device)

    def loss_sums(self) -> torch.Tensor:
        """Sums of the losses since the last row, by process."""
        return self._by_process(self.loss_sum)

    def _by_process(self, ours: torch.Tensor) -> torch.Tensor:
        import torch

        sums = torch.zeros(self.ranks.count, device=self.device)
        sums[self.ranks.rank] = ours
        return self.ranks.total(sums)

    def mean_loss(self) -> float:
        """Per label, of the steps since the last row."""
        return float(self.loss_sums().sum()) / max(self.loss_count, 1)

    def mean_outline_loss(self) -> float | None:
        """The mean share of maps outside of outlines, of the steps since the last row that had any."""
        return float(self._by_process(self.outline_sum).sum()) / self.outline_count if self.outline_count else None

    def check_finite(self, step: int) -> None:
        """Raise InputError where the loss has become infinite or none by a step."""
        if not math.isfinite(float(self.loss_sums().sum())):
            raise InputError(f"the loss is not finite by step {step}: try a lower --lr, --warmup or --clip")

    def checkpoint(self, step: int, metrics: dict) -> checkpoints.Checkpoint:
        """The network as it is."""
        return checkpoints.Checkpoint(
            self.settings.arch,
            list(self.labelling.tasks),
            self.settings.size,
            self.model,
            policy=dict(self.labelling.policy),
            missing=dict(self.labelling.missing),
            versions=checkpoints.versions(),
            step=step,
            source={"code": self.own.hashes()} if self.own.by_role else {},
            metrics=metrics,
        )

    def state(self) -> dict:
        """All that the next step depends on but its number."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "loss_sum": self.loss_sums().cpu(),
            "loss_count": self.loss_count,
        } | self._outline_state()

    def _outline_state(self) -> dict:
        if not self.guide:
            return {}
        return {"outline_sum": self._by_process(self.outline_sum).cpu(), "outline_count": self.outline_count}

    def forget_loss(self) -> None:
        """Begin a new row."""
        self.loss_sum.zero_()
        self.outline_sum.zero_()
        self.loss_count = self.outline_count = 0

    def _build(self, state: Mapping | None) -> None:
        """Network and optimiser, from the seed or from a state."""
        import torch

        from chextools.training import rates

        settings = self.settings
        with torch.random.fork_rng([]):
            torch.manual_seed(settings.seed)
            code = self.own.get("arch")
            self.model = (
                own_code.build(code, len(self.outputs))
                if code
                else architectures.build(settings.arch, len(self.outputs), settings.size)
            )
        if settings.dilate:
            self._dilate(settings.dilate)
        if settings.weights and state is None:
            weights.load(self.model, settings.weights, settings.arch, self.outputs)
        if code is None:
            self._try()
        own_code.try_on_zeros(
            self.own, self.model, self.loss, settings.size, len(self.outputs), settings.lr, self.steps
        )
        if code:  # that it can be traced is seen now, not at the first checkpoint
            checkpoints.program(self.checkpoint(0, {}))
        self._describe()
        self.guide = self._make_guide() if self.outlines else None
        self.frozen = rates.freeze_trunk(self.model) if settings.trunk_rate == 0 else []
        groups = rates.groups(self.model, settings.lr, settings.trunk_rate or 1, settings.layer_decay, settings.size)
        by_pixel = self.device.type != "mps" if settings.channels_last is None else settings.channels_last
        self._layout = torch.channels_last if by_pixel else torch.contiguous_format
        self.model.to(device=self.device, memory_format=self._layout)  # type: ignore[call-overload]
        if code := self.own.get("optimizer"):
            self.optimizer = own_code.make_optimizer(code, groups, settings.lr)
        else:
            self.optimizer = optimiser.make(settings.optimizer, groups, settings.lr, settings.weight_decay)
        self.greatest = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler("cuda") if settings.amp == "fp16" else None
        self.loss_sum, self.outline_sum = (torch.zeros((), device=self.device) for _ in range(2))
        self.loss_count = self.outline_count = 0
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scaler:
                self.scaler.load_state_dict(state["scaler"])
            self.loss_sum += self._ours(state["loss_sum"])
            self.loss_count = state["loss_count"]
            if self.guide:
                self.outline_sum += self._ours(state["outline_sum"])
                self.outline_count = state["outline_count"]
        self.network: Any = self.model
        if self.ranks.count > 1:
            # Where unused parameters are looked for, buckets are not cut anew after the first step: a run that is
            # resumed sums in the same order.
            self.network = torch.nn.parallel.DistributedDataParallel(
                self.model, [self.device] if self.device.type == "cuda" else None, find_unused_parameters=True
            )
        if settings.compile:
            self.network = torch.compile(self.network)

    def _ours(self, sums: torch.Tensor) -> float:
        """Our part of the sums by process; all is the first's where they were of another number of processes."""
        sums = sums.reshape(-1)
        if len(sums) == self.ranks.count:
            return float(sums[self.ranks.rank])
        return float(sums.sum()) if self.ranks.leads else 0.0

    def _make_guide(self) -> Guide:
        from chextools.training.guidance import Guide

        columns = checkpoints.columns(self.labelling.tasks, self.labelling.policy)
        try:
            return Guide(self.model, columns, self.settings.size)
        except InputError as error:
            raise InputError(f"{self.settings.arch} {error}") from None

    def _dilate(self, finer: str) -> None:
        from chextools.models.dilation import dilate

        try:
            dilate(self.model, int(finer).bit_length() - 1)
        except InputError as error:
            raise InputError(f"--dilate {finer}: {self.settings.arch}: {error}") from None

    def _try(self) -> None:
        """One image through the network: what a size is too small for comes to light here."""
        import torch

        size = self.settings.size
        try:
            with torch.inference_mode():
                self.model.eval()(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(
                f"{self.settings.arch} cannot take images of {size} pixels: {' '.join(str(error).split())}"
            ) from None

    def _describe(self) -> None:
        def count(module: torch.nn.Module) -> int:
            return sum(parameter.numel() for parameter in module.parameters())

        log.info("%s: %d parameters, %d outputs", self.settings.arch, count(self.model), len(self.outputs))
        for name, child in self.model.named_children():
            log.info("%s: %d parameters in %s", self.settings.arch, count(child), name)

    def _rate(self, step: int) -> float:
        """What the learning rates are multiplied with in this step."""
        warmup = self.settings.warmup
        if (code := self.own.get("schedule")) and step >= warmup:
            return own_code.rate(code, step - warmup, self.steps - warmup)
        return optimiser.rate(self.settings.schedule, step, self.steps, warmup)

    def _update(self) -> None:
        import torch

        if self.settings.clip:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @contextlib.contextmanager
    def _among(self, mine: slice, batch: int, last: bool) -> Iterator[None]:
        """Where several processes share a batch: what they do is what one would do, and gradients meet at the last."""
        if self.ranks.count == 1:
            yield
            return
        from chextools.training.batchwide import Batchwide

        with Batchwide(mine, batch), contextlib.nullcontext() if last else self.network.no_sync():
            yield

    def _autocast(self) -> contextlib.AbstractContextManager:
        import torch

        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.amp or "")
        return torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext()
