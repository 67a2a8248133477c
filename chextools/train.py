"""chex-train: a classifier of chest X-rays, from records to tested checkpoints, that can be stopped at any moment.

What a step does is a function of the options, the weights before it and its number: the order of images, augmentation
and dropout are drawn anew from (seed, step). So a state saved between two steps is all it takes to go on to the same
weights, bit for bit on the CPU with equal threads.

Several processes share each batch (`chextools.training.ranks`), and learn what one would, to rounding.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from chextools.errors import InputError, MissingExtra
from chextools.inputs import image_lists
from chextools.metrics import scores
from chextools.models import architectures, checkpoints, inference, weights
from chextools.plumbing import streams
from chextools.plumbing.parallel import default_jobs
from chextools.plumbing.usercode import is_user_code
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tasks import canonical, hint
from chextools.training import augment, board, config, labels, optimiser, own_code
from chextools.training.augment import Augmentation
from chextools.training.folder import RunFolder, better, check_new, is_run
from chextools.training.own_code import OwnCode
from chextools.training.pixels import Ahead, Images, Order, check_images
from chextools.training.ranks import ALONE, Ranks

log = logging.getLogger(__name__)

SELECT = ("auroc", "auprc", "brier", "loss")
_LESS_IS_BETTER = ("brier", "loss")
_SHOWN = 10
_CHECK_EVERY = 100  # steps between looks at the loss, each of which waits for the GPU


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are the study's, but for the rate's fall to 0 and the augmentation.

    arch: torchvision's name; it, augment, loss, optimizer and schedule may be FILE.py:NAME (`training.own_code`), of
    which augment comes in place of the augmentation. weights: a file of weights or "imagenet". size: side of the
    images in pixels.
    tasks: to learn; none for all that can be. uncertain, missing: policies, "POLICY" or "TASK=POLICY".
    class_weights: none, or balanced: the positives of a task weigh as much as its negatives.
    lr: the greatest rate. warmup: steps. batch_size: of all processes together. accumulate: batches per step.
    clip: greatest norm of the gradient. steps: instead of epochs. patience: validations without improvement after
    which training ends.
    checkpoint_every: steps between validations. select: METRIC, TASK or METRIC:TASK that ranks checkpoints.
    ensemble: checkpoints per task in ensemble.json. amp: bf16 or fp16. limit_batches: of training and of validation.
    """

    arch: str = "densenet121"
    weights: str | None = None
    size: int = 320
    tasks: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    class_weights: str = "none"
    optimizer: str = "adam"
    lr: float = 1e-4
    weight_decay: float | None = None
    schedule: str = "cosine"
    warmup: int = 0
    batch_size: int = 16
    accumulate: int = 1
    clip: float | None = None
    epochs: float = 3
    steps: int | None = None
    patience: int | None = None
    checkpoint_every: int = 4800
    keep: int = 10
    select: str = "auroc"
    ensemble: int = 3
    augmentation: Augmentation = Augmentation()
    augment: str | None = None
    loss: str | None = None
    amp: str | None = None
    channels_last: bool = False
    compile: bool = False
    limit_batches: int | None = None
    seed: int = 0


@dataclass
class Data:
    """Records with labels, checked: all can be used and their images are there."""

    records: list[dict]
    where: str

    def digest(self) -> str:
        """Of ids and labels: tells whether a run goes on with the data it began with."""
        told = hashlib.sha256()
        for record in self.records:
            told.update(records.dumps([record["id"], sorted(record.get("labels", {}).items())]).encode())
        return told.hexdigest()


def read(items: Iterable[Located | Failure], where: str, jobs: int = 1, ranks: Ranks = ALONE) -> Data:
    """All records of a data set. Raises InputError, naming up to ten, if any cannot be used, or if there is none.

    `jobs` threads look at the images; of several processes each looks at its share.
    """
    found, failures = [], []
    for item in items:
        if isinstance(item, Failure):
            failures.append(f"{item.where}: {item.reason}")
        else:
            found.append({k: item.record[k] for k in ("id", "image", "labels", "patient", "pack") if k in item.record})
    if failures:
        more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        of = f"{where}: {len(failures)} of {len(failures) + len(found)} records cannot be used: "
        raise InputError((of if len(failures) > 1 else "") + "; ".join(failures[:_SHOWN]) + more)
    if not found:
        raise InputError(f"{where}: no records")
    if not any(record.get("labels") for record in found):
        raise InputError(f"{where}: no labels")
    check_images(found[ranks.rank :: ranks.count], where, jobs)
    return Data(found, where)


def label(train: Data, valid: Data, settings: Settings) -> labels.Labelling:
    """What is to be learned, said on stderr; checked against the settings. Raises InputError."""
    labelling = labels.choose_labelling(
        train.records, settings.tasks, settings.uncertain, settings.missing, train.where
    )
    labels.say(labels.table(train.records, labelling.tasks), labelling, train.where)
    parse_select(settings.select, labelling.tasks)
    patients = [{records.patient(record) for record in data.records} for data in (train, valid)]
    if both := sorted(patients[0] & patients[1]):
        log.warning(
            "%d patients are in both %s and %s (%s, ...): the metrics will flatter",
            len(both),
            train.where,
            valid.where,
            both[0],
        )
    return labelling


def parse_select(text: str, tasks: Sequence[str]) -> tuple[str, str | None]:
    """(metric, task or None for the mean) of METRIC, TASK or METRIC:TASK. Raises InputError."""
    metric, _, task = text.partition(":")
    if metric not in SELECT:
        metric, task = "auroc", text
    if task and canonical(task) not in tasks:
        raise InputError(f"--rank-by {text!r}: neither one of {', '.join(SELECT)} nor a task{hint(task, tasks)}")
    return metric, canonical(task) if task else None


@dataclass
class Plan:
    """A run of which all is checked that needs no torch."""

    options: Mapping
    settings: Settings
    labelling: labels.Labelling
    train: Data
    valid: Data
    folder: RunFolder
    jobs: int
    resumed: bool
    ranks: Ranks

    @contextlib.contextmanager
    def run(self) -> Iterator[Run]:
        """The run, its folder made and locked. Raises InputError."""
        try:
            if self.resumed:
                self.folder.lock()
            run = Run(
                self.settings,
                self.labelling,
                self.train,
                self.valid,
                self.folder,
                self.options["device"],
                self.jobs,
                self.resumed,
                self.ranks,
            )
            if not self.resumed:
                self.folder.start(config.recorded(self.options, run.own.hashes()))
            else:
                run.own.check_same(config.code_of(self.options["output"]), self.options["output"])
            yield run
        finally:
            self.folder.unlock()


def prepare(options: Mapping, stdin: BinaryIO, ranks: Ranks = ALONE) -> Plan:
    """The plan of a run from its options by name (`chextools.training.config`). Raises InputError."""
    resumed = options["resume"] and is_run(options["output"])
    if not resumed:
        check_new(options["output"])
    own_code.check_files(options)
    if not is_user_code(options["arch"]):
        architectures.check_name(options["arch"])
    elif options["weights"] == "imagenet":
        raise InputError(f"--weights imagenet has none for {options['arch']}; a file may")
    if options["loss"] and options["class_weights"] != "none":
        raise InputError("--class-weights is of the loss that comes with chex-train; --loss has its own")
    if options["tensorboard"] and not board.available():
        raise MissingExtra("--tensorboard needs tensorboard: pip install 'chextools[tensorboard]'")
    if options["weights"] not in (None, "imagenet"):
        streams.open_regular(options["weights"]).close()
    settings = config.settings(options, Settings)
    jobs = options["jobs"] or default_jobs()
    data, valid = (
        read(image_lists.read_image_lists(sources, stdin, root=options["root"]), named(sources), jobs, ranks)
        for sources in (options["inputs"], [options["valid"]])
    )
    folder = RunFolder(options["output"], settings.keep, settings.ensemble, ranks.leads)
    return Plan(options, settings, label(data, valid, settings), data, valid, folder, jobs, resumed, ranks)


class Run:
    """Training from its state on. `finished` says whether it came to its end."""

    def __init__(
        self,
        settings: Settings,
        labelling: labels.Labelling,
        train: Data,
        valid: Data,
        folder: RunFolder,
        device: str = "auto",
        jobs: int = 1,
        resume: bool = False,
        ranks: Ranks = ALONE,
    ):
        """Raises InputError for whatever can be known before the first step.

        folder: where the run lives; with `resume` its state, if it has one, is taken up. ranks: the processes that
        share the run, who meet here.
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
        self.digest = f"{train.digest()} {self.valid.digest()}"
        self.images, self.valid_images = (Images(data.records, settings.size) for data in (self.train, self.valid))
        per_step = settings.batch_size * settings.accumulate
        self.order = Order(len(train.records), per_step, settings.seed)
        steps = settings.steps or math.ceil(settings.epochs * len(train.records) / per_step)
        self.steps = min(steps, limit or steps)

        codes, valid_codes = (labels.table(data.records, labelling.tasks) for data in (self.train, self.valid))
        self.target, self.weight = map(torch.from_numpy, labels.targets(codes, labelling))
        self.valid_target, self.valid_weight = map(torch.from_numpy, labels.targets(valid_codes, labelling))
        self.positive, self.usable = labels.certain(valid_codes, labelling)
        balanced = settings.class_weights == "balanced"
        importance = labels.class_weights(codes, labelling) if balanced else np.ones((len(labelling.tasks), 3))
        self.loss: Callable = optimiser.Loss(labelling.multiclass, importance.astype(np.float32), self.device)
        if code := self.own.get("loss"):
            self.loss = own_code.OwnLoss(code)

        self.step, self.rows, self.ranked, self.stale, self.finished = 0, [], [], 0, False
        self.failure: InputError | None = None  # of this process
        self.computed = 0.0  # seconds of forward, backward and optimiser
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
        self._build(state)

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
            if devices:
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True))
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
            self._train(*batch)
            self.step += 1
            clock.images += self.order.per_step
            if self.step % _CHECK_EVERY == 0:
                self._check_finite()
            yield None

    def _next(self, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray] | None:
        """The next batch; None where an image cannot be read, of which nobody could have known: a reason to stop."""
        try:
            return next(batches)
        except InputError as error:
            self.failure = error

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

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """Our part of the rows: of each batch."""
        starts = range(0, len(rows), self.settings.batch_size)
        batches = (rows[start : start + self.settings.batch_size] for start in starts)
        return np.concatenate([batch[self.ranks.share(len(batch))] for batch in batches])

    def _is_due(self) -> bool:
        """Whether the weights as they are now want validation."""
        done = self.rows[-1]["step"] if self.rows else 0
        return self.step > done and (self.step % self.settings.checkpoint_every == 0 or self.step >= self.steps)

    def _build(self, state: dict | None) -> None:
        """Network and optimiser, from the seed or from a state."""
        import torch

        settings = self.settings
        outputs = checkpoints.output_names(self.labelling.tasks, self.labelling.policy)
        with torch.random.fork_rng([]):
            torch.manual_seed(settings.seed)
            code = self.own.get("arch")
            self.model = (
                own_code.build(code, len(outputs))
                if code
                else architectures.build(settings.arch, len(outputs), settings.size)
            )
        if settings.weights and state is None:
            weights.load(self.model, settings.weights, settings.arch, outputs)
        if code is None:
            self._try()
        own_code.try_on_zeros(self.own, self.model, self.loss, settings.size, len(outputs), settings.lr, self.steps)
        if code:  # that it can be traced is seen now, not at the first checkpoint
            checkpoints.program(self._checkpoint({}))
        self._describe()
        memory = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model.to(self.device, memory_format=memory)
        if code := self.own.get("optimizer"):
            self.optimizer = own_code.make_optimizer(code, self.model.parameters(), settings.lr)
        else:
            self.optimizer = optimiser.make(
                settings.optimizer, self.model.parameters(), settings.lr, settings.weight_decay
            )
        self.greatest = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler("cuda") if settings.amp == "fp16" else None
        self.loss_sum = torch.zeros((), device=self.device)
        self.loss_count = 0
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scaler:
                self.scaler.load_state_dict(state["scaler"])
            sums = state["loss_sum"].reshape(-1)
            if len(sums) == self.ranks.count:
                self.loss_sum += float(sums[self.ranks.rank])
            elif self.ranks.leads:  # a run of another number of processes
                self.loss_sum += float(sums.sum())
            self.loss_count, self.step, self.stale = state["loss_count"], state["step"], state["stale"]
            self.rows, self.ranked = state["rows"], self.folder.prune(state["ranked"])
        self.network = self.model
        if self.ranks.count > 1:
            # Where unused parameters are looked for, buckets are not cut anew after the first step: a run that is
            # resumed sums in the same order.
            self.network = torch.nn.parallel.DistributedDataParallel(
                self.model, [self.device] if self.device.type == "cuda" else None, find_unused_parameters=True
            )
        if settings.compile:
            self.network = torch.compile(self.network)

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
        def count(module) -> int:
            return sum(parameter.numel() for parameter in module.parameters())

        log.info(
            "%s: %d parameters, %d outputs",
            self.settings.arch,
            count(self.model),
            len(checkpoints.output_names(self.labelling.tasks, self.labelling.policy)),
        )
        for name, child in self.model.named_children():
            log.info("%s: %d parameters in %s", self.settings.arch, count(child), name)
        log.info(
            "%d steps of %d images, %.2f epochs",
            self.steps,
            self.order.per_step,
            self.steps * self.order.per_step / self.order.n,
        )

    # One step

    def _train(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        import torch

        settings = self.settings
        seed = settings.seed * (1 << 31) + self.step
        torch.manual_seed(seed)
        self.network.train()
        rate = self._rate()
        for group, greatest in zip(self.optimizer.param_groups, self.greatest):
            group["lr"] = greatest * rate
        weight = self.weight[rows]
        labels_seen = max(float(weight.sum()), 1.0)
        try:
            for start in range(0, len(rows), settings.batch_size):
                batch = rows[start : start + settings.batch_size]
                mine = self.ranks.share(len(batch))
                ours, pixels = pixels[: len(batch[mine])], pixels[len(batch[mine]) :]
                images = self._images(ours, seed * len(rows) + start, mine, len(batch))
                target, present = (self._there(t[batch[mine]]) for t in (self.target, self.weight))
                last = start + settings.batch_size >= len(rows)
                begun = time.perf_counter()
                with self._among(mine, len(batch), last):
                    with self._autocast():
                        output = self.network(images)
                    loss = self.loss(output, target, present) / labels_seen
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

    def _rate(self) -> float:
        """What the learning rates are multiplied with in this step."""
        warmup = self.settings.warmup
        if (code := self.own.get("schedule")) and self.step >= warmup:
            return own_code.rate(code, self.step - warmup, self.steps - warmup)
        return optimiser.rate(self.settings.schedule, self.step, self.steps, warmup)

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

    def _images(self, pixels: np.ndarray, seed: int | None = None, mine: slice | None = None, batch: int | None = None):
        """The network's input; augmented where there is a seed, as rows `mine` of a batch."""
        import torch

        code = self.own.get("augment") if seed is not None else None
        if code:
            pixels = own_code.augmented(code, pixels, seed % (1 << 63), mine.start if mine else 0)
        moved = self._there(torch.from_numpy(pixels))
        if seed is not None and not code:
            moved = augment.apply(moved, self.settings.augmentation, seed % (1 << 63), mine, batch)
        images = inference.normalise(moved, checkpoints.MEAN, checkpoints.STD)
        return images.to(memory_format=torch.channels_last) if self.settings.channels_last else images

    def _there(self, tensor):
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _autocast(self):
        import torch

        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.amp)
        return torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext()

    def _loss_sums(self):
        """Sums of the losses since the last row, by process."""
        import torch

        sums = torch.zeros(self.ranks.count, device=self.device)
        sums[self.ranks.rank] = self.loss_sum
        return self.ranks.total(sums)

    def _check_finite(self) -> None:
        if not math.isfinite(float(self._loss_sums().sum())):
            raise InputError(f"the loss is not finite by step {self.step}: try a lower --lr, --warmup or --clip")

    # Validation

    def _validate(self, clock: _Clock, stop: Callable[[], bool]) -> dict | None:
        """The row of the weights as they are, with their checkpoint and state written; None if stopped meanwhile."""
        self._check_finite()
        timing = clock.read()
        found = self._measure(stop)
        if found is None:
            return None
        metric, task = parse_select(self.settings.select, self.labelling.tasks)
        value = found["valid_loss"] if metric == "loss" else found[metric][task] if task else _mean(found[metric])
        if value is not None and metric in _LESS_IS_BETTER:
            value = -value
        improved = better(value, self.ranked)
        self.stale = 0 if improved or not self.ranked else self.stale + 1
        head = {
            "step": self.step,
            "epoch": round(self.step * self.order.per_step / self.order.n, 4),
            "loss": float(self._loss_sums().sum()) / max(self.loss_count, 1),
        }
        ranked = self.folder.add(self._checkpoint(head | found), self.ranked, value)
        kept = {entry["step"]: entry["name"] for entry in ranked[: self.folder.keep]}
        name = kept.get(self.step)
        row = head | found | timing | {"best": ranked[0]["step"] == self.step}
        row["checkpoint"] = str(self.folder.path / name) if name else None
        self.rows, self.ranked = [*self.rows, records.finite(row)], ranked
        self.loss_sum.zero_()
        self.loss_count = 0
        early = bool(self.settings.patience) and self.stale >= self.settings.patience
        if early and self.step < self.steps:
            log.warning("no better %s in %d validations: ended at step %d", self.settings.select, self.stale, self.step)
        self.finished = early or self.step >= self.steps
        self._save()
        self.ranked = self.folder.prune(ranked)
        return self.rows[-1]

    def _measure(self, stop: Callable[[], bool]) -> dict | None:
        """Loss and metrics of the validation set, as chex-predict would score it."""
        import torch

        size, n = self.settings.batch_size, len(self.valid.records)
        rows = [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
        self.model.eval()
        columns = len(checkpoints.output_names(self.labelling.tasks, self.labelling.policy))
        output = torch.zeros(n, columns, dtype=torch.float32)
        batches = iter(Ahead(self.valid_images, rows, self.jobs, self._share))
        with torch.inference_mode():
            for batch in rows:
                read = self._next(batches)
                if stop():
                    return None
                self._check_whole()
                if len(read[1]):
                    output[self._share(batch)] = self.model(self._images(read[1])).float().cpu()
            self.ranks.total(output)  # where another has an image we have 0
            target, weight = self._there(self.valid_target), self._there(self.valid_weight)
            loss = float(self.loss(self._there(output), target, weight)) / max(float(self.valid_weight.sum()), 1.0)
            score = checkpoints.logits(output, self.labelling.tasks, self.labelling.policy).sigmoid().numpy()
        found = {"valid_loss": loss}
        for metric in ("auroc", "auprc", "brier"):
            values = {}
            for k, task in enumerate(self.labelling.tasks):
                used = self.usable[:, k]
                value = scores.value(metric, score[used, k], self.positive[used, k])
                values[task] = None if math.isnan(value) else value
            found[metric] = values
        undefined = [task for task, value in found["auroc"].items() if value is None]
        if undefined and not self.rows:
            log.warning("%s: AUROC undefined, as one class is missing: %s", self.valid.where, ", ".join(undefined))
        return found | {"mean": _mean(found["auroc"])}

    def _checkpoint(self, metrics: dict) -> checkpoints.Checkpoint:
        return checkpoints.Checkpoint(
            self.settings.arch,
            list(self.labelling.tasks),
            self.settings.size,
            self.model,
            policy=dict(self.labelling.policy),
            missing=dict(self.labelling.missing),
            versions=checkpoints.versions(),
            step=self.step,
            source={"code": self.own.hashes()} if self.own.by_role else {},
            metrics=records.finite(metrics),
        )

    def _save(self) -> None:
        loss_sum = self._loss_sums().cpu()
        state = {"finished": self.finished, "step": self.step, "rows": self.rows, "data": self.digest}
        if not self.finished:
            state |= {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict() if self.scaler else None,
                "loss_sum": loss_sum,
                "loss_count": self.loss_count,
                "stale": self.stale,
                "ranked": self.ranked,
            }
        self.folder.save(state)
        self.ranks.any(False)  # nobody goes on, or ends, before it is saved


class _Clock:
    """Time since the last validation: images a second, and what share of it was lost waiting for images.

    step_share: of the bare step: forward, backward and optimiser. A GPU works on while we prepare the next step: there
    it is all the time in which we did not wait for images.
    """

    def __init__(self, run: Run, ahead: Ahead):
        self.run, self.ahead, self.images = run, ahead, 0
        self.start, self.waited, self.computed = time.perf_counter(), ahead.waited, run.computed

    def read(self) -> dict:
        seconds = max(time.perf_counter() - self.start, 1e-9)
        wait = (self.ahead.waited - self.waited) / seconds
        share = (self.run.computed - self.computed) / seconds if self.run.device.type == "cpu" else 1 - wait
        return {
            "images_per_second": round(self.images / seconds, 2),
            "data_wait": round(wait, 4),
            "step_share": round(share, 4),
        }


def named(sources: Sequence[str]) -> str:
    """Inputs, for messages."""
    return ", ".join("stdin" if source == "-" else source for source in sources)


def _mean(values: dict[str, float | None]) -> float | None:
    defined = [value for value in values.values() if value is not None]
    return sum(defined) / len(defined) if defined else None
