"""A run of chex-train: steps, validations, checkpoints, and the state from which it goes on."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from chextools.errors import InputError
from chextools.models import inference
from chextools.plumbing import jsontext
from chextools.training import labels, mixing
from chextools.training.data import Data
from chextools.training.folder import RunFolder, better
from chextools.training.learner import Learner
from chextools.training.outlines import Outlines
from chextools.training.own_code import OwnCode
from chextools.training.pixels import Ahead, Images
from chextools.training.ranks import ALONE, Ranks
from chextools.training.settings import TrainSettings, parse_select
from chextools.training.validation import Validation, mean_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Batch = tuple[np.ndarray, np.ndarray]  # rows, and the pixels of our share of them

_LESS_IS_BETTER = ("brier", "loss")
_CHECK_EVERY = 100  # steps between looks at the loss, each of which waits for the GPU


class Run:
    """Training from its state on. `finished` says whether it came to its end."""

    def __init__(
        self,
        settings: TrainSettings,
        labelling: labels.Labelling,
        train: Data,
        valid: Data,
        folder: RunFolder,
        device: str = "auto",
        jobs: int = 1,
        resume: bool = False,
        ranks: Ranks = ALONE,
        mixed: Sequence[Data] = (),
        outlines: Outlines | None = None,
    ):
        """Raises InputError for whatever can be known before the first step.

        folder: where the run lives; with `resume` its state, if it has one, is taken up. ranks: the processes that
        share the run, who meet here. mixed: the sets of settings.mix. outlines: of all sets.
        """
        import torch

        self.settings, self.labelling, self.folder, self.jobs, self.ranks = settings, labelling, folder, jobs, ranks
        self.device = ranks.device(inference.device(device))
        if settings.amp == "fp16" and self.device.type != "cuda":
            raise InputError("--amp fp16 needs a CUDA GPU; bf16 runs anywhere")
        if settings.compile and self.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise InputError("--compile on a CPU needs a C++ compiler, g++ or what CXX names")
        if settings.batch_size < ranks.count:
            raise InputError(
                f"--batch-size {settings.batch_size} leaves nothing to do for some of {ranks.count} "
                "processes, which share each batch"
            )
        self.own = OwnCode.load(vars(settings))
        if settings.loss and labelling.multiclass.any():
            raise InputError("--loss takes one logit a task: not with --uncertain multiclass")
        ranks.join(self.device)
        ranks.agree(
            (settings, folder.path.absolute().name, self.device.type),
            "the processes of one run must have the "
            "same options, output and kind of device; start each run by an srun of its own",
        )
        limit = settings.limit_batches
        self.train = train
        self.valid = Data(valid.records[: limit and limit * settings.batch_size], valid.where)
        sets = [train, *mixed]
        told = [data.digest() for data in [*sets, self.valid]]
        self.digest = " ".join([*told, outlines.digest()] if outlines else told)
        images = [Images(data.records, settings.size) for data in sets]
        self.images = mixing.ImagesOfSets(images) if mixed else images[0]
        self.counts, sizes = mixing.counts(settings.mix, settings.batch_size), [len(data.records) for data in sets]
        self.order = mixing.Mixture(sizes, self.counts, settings.accumulate, settings.seed)
        steps = settings.steps or math.ceil(settings.epochs * sizes[0] / (self.counts[0] * settings.accumulate))
        self.steps = min(steps, limit or steps)
        for data, count in zip(sets, self.counts) if mixed else ():
            log.warning("%s: %d of the %d images of each batch", data.where, count, settings.batch_size)

        codes = labels.table_of_sets([data.records for data in sets], labelling.tasks)
        self.labels = tuple(map(torch.from_numpy, labels.targets(codes, labelling)))
        self.validation = Validation(self.valid, labelling, settings.size, jobs, bool(mixed))
        often = np.repeat(np.array(self.counts) / sizes, sizes) if mixed else None
        balanced = settings.class_weights == "balanced"
        importance = labels.class_weights(codes, labelling, often) if balanced else np.ones((len(labelling.tasks), 3))

        self.step, self.rows, self.ranked, self.stale, self.finished = 0, [], [], 0, False
        self.failure: InputError | None = None  # of this process
        state = folder.load() if resume else None
        ranks.agree(
            (self.digest, state and state["step"]),
            f"{folder.path}, or the records, are not the same to all processes: all must see one file system",
        )
        if state is not None and state["data"] != self.digest:
            raise InputError(f"{folder.path}: was trained on other records or labels than these")
        if state is not None and state["finished"]:
            self.step, self.rows, self.finished = state["step"], state["rows"], True
            return
        importance = importance.astype(np.float32)
        own = self.own
        self.learner = Learner(settings, labelling, own, self.device, ranks, importance, self.steps, state, outlines)
        log.info("%d steps of %d images, %.2f epochs", self.steps, self.order.per_step, self.order.epochs(self.steps))
        if state is not None:
            self.step, self.stale, self.rows = state["step"], state["stale"], state["rows"]
            self.ranked = folder.prune(state["ranked"])

    def events(self, stop: Callable[[], bool] = lambda: False) -> Iterator[dict | None]:
        """Train; after each step a row of results, where it was validated, else None. First the rows of a run resumed.

        stop: asked after each step, and each batch of a validation: True, in any process, saves the state and ends.
        While this runs, torch's random state and number of threads are its own. Rows come to the first process only.
        """
        for row in self._all_events(lambda: self.ranks.any(stop() or self.failure is not None)):
            yield row if self.ranks.leads else None

    def _all_events(self, stop: Callable[[], bool]) -> Iterator[dict | None]:
        import torch

        yield from self.rows
        if self.finished:
            return
        with contextlib.ExitStack() as stack:
            devices = [self.device] if self.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices))
            stack.enter_context(inference.threads())
            if devices:  # to choose kernels by their speed would make other bits each time
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True))
            yield from self._events(stop)

    def _events(self, stop: Callable[[], bool]) -> Iterator[dict | None]:
        rows = (self.order.rows(step) for step in range(self.step, self.steps))
        ahead = Ahead(self.images, rows, self.jobs, self._share)
        batches = iter(ahead)
        clock, begun = _Clock(self, ahead), self.step
        while True:
            if self._is_due():
                # What a run resumed begins with is not put off again: a limit that is too tight still comes to an end.
                row = self._validate(clock, stop if self.step > begun else lambda: False)
                if row is None:
                    return self._stopped()
                yield row
                if self.finished:
                    return
                clock = _Clock(self, ahead)
            batch = self._next(batches)
            if self.step > begun and stop():
                return self._stopped()
            self._check_whole()
            self.learner.learn(self.step, *batch, self._labels(batch[0]))
            self.step += 1
            clock.images += self.order.per_step
            if self.step % _CHECK_EVERY == 0:
                self.learner.check_finite(self.step)
            yield None

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; an empty one where an image cannot be read, of which nobody could have known."""
        try:
            return next(batches)
        except InputError as error:
            self.failure = error
            return np.zeros(0, np.int64), np.zeros((0, 0, 0), np.uint8)

    def _stopped(self) -> None:
        """Nothing done is lost."""
        self._save()
        if self.failure:
            raise self.failure

    def _check_whole(self) -> None:
        """Raise what kept a batch from being read where no process is asked whether to stop: in a first step."""
        if self.failure:
            if self.ranks.count == 1:
                self._save()
            raise self.failure

    def _labels(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(target, weight), float32 [n, K], of the rows of a step."""
        target, weight = (of[rows] for of in self.labels)
        if self.settings.mix_loss == "set" and len(self.counts) > 1:
            weight = mixing.by_set(weight, self.order.set_of(rows), self.counts)
        return target, weight

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """Our part of the rows: of each batch."""
        starts = range(0, len(rows), self.settings.batch_size)
        batches = (rows[start : start + self.settings.batch_size] for start in starts)
        return np.concatenate([batch[self.ranks.share(len(batch))] for batch in batches])

    def _is_due(self) -> bool:
        """Whether the weights as they are now want validation."""
        done = self.rows[-1]["step"] if self.rows else 0
        return self.step > done and (self.step % self.settings.checkpoint_every == 0 or self.step >= self.steps)

    def _validate(self, clock: _Clock, stop: Callable[[], bool]) -> dict | None:
        """The row of the weights as they are, with their checkpoint and state written; None if stopped meanwhile."""
        self.learner.check_finite(self.step)
        timing = clock.read()
        found = self.validation.measure(
            self.learner, self._share, lambda batches: self._unless(stop, batches), self.settings.batch_size
        )
        if found is None:
            return None
        if not self.rows:
            self.validation.say_undefined(found)
        metric, task = parse_select(self.settings.select, self.labelling.tasks)
        value = found["valid_loss"] if metric == "loss" else found[metric][task] if task else mean_of(found[metric])
        if value is not None and metric in _LESS_IS_BETTER:
            value = -value
        improved = better(value, self.ranked)
        self.stale = 0 if improved or not self.ranked else self.stale + 1
        head: dict = {
            "step": self.step,
            "epoch": round(self.order.epochs(self.step), 4),
            "loss": self.learner.mean_loss(),
        }
        if self.learner.guide:
            head["outline_loss"] = self.learner.mean_outline_loss()
        checkpoint = self.learner.checkpoint(self.step, cast(dict, jsontext.finite(head | found)))
        ranked = self.folder.add(checkpoint, self.ranked, value)
        kept = {entry["step"]: entry["name"] for entry in ranked[: self.folder.keep]}
        name = kept.get(self.step)
        row = head | found | timing | {"best": ranked[0]["step"] == self.step}
        row["checkpoint"] = str(self.folder.path / name) if name else None
        self.rows, self.ranked = [*self.rows, jsontext.finite(row)], ranked
        self.learner.forget_loss()
        early = self.settings.patience is not None and self.stale >= self.settings.patience
        if early and self.step < self.steps:
            log.warning("no better %s in %d validations: ended at step %d", self.settings.select, self.stale, self.step)
        self.finished = early or self.step >= self.steps
        self._save()
        self.ranked = self.folder.prune(ranked)
        return self.rows[-1]

    def _unless(self, stop: Callable[[], bool], batches: Iterator[Batch]) -> Batch | None:
        """The next batch, None to stop."""
        batch = self._next(batches)
        if stop():
            return None
        self._check_whole()
        return batch

    def _save(self) -> None:
        learned = self.learner.state()  # all processes take part in it
        state = {"finished": self.finished, "step": self.step, "rows": self.rows, "data": self.digest}
        if not self.finished:
            state |= learned | {"stale": self.stale, "ranked": self.ranked}
        self.folder.save(state)
        self.ranks.any(False)  # nobody goes on, or ends, before it is saved


class _Clock:
    """Time since the last validation: images a second, and what share of it was lost waiting for images.

    step_share: of the bare step: forward, backward and optimiser. A GPU works on while we prepare the next step: there
    it is all the time in which we did not wait for images.
    """

    def __init__(self, run: Run, ahead: Ahead):
        self.run, self.ahead, self.images = run, ahead, 0
        self.start, self.waited, self.computed = time.perf_counter(), ahead.waited, run.learner.computed

    def read(self) -> dict:
        seconds = max(time.perf_counter() - self.start, 1e-9)
        wait = (self.ahead.waited - self.waited) / seconds
        share = (self.run.learner.computed - self.computed) / seconds if self.run.device.type == "cpu" else 1 - wait
        return {
            "images_per_second": round(self.images / seconds, 2),
            "data_wait": round(wait, 4),
            "step_share": round(share, 4),
        }
