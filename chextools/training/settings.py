"""How to train, and what ranks its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chextools.errors import InputError
from chextools.tasks import canonical, hint
from chextools.training.augment import Augmentation

SELECT = ("auroc", "auprc", "brier", "loss")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train; the defaults are the study's, but for the rate's fall to 0 and the augmentation.

    arch: torchvision's name; it, augment, loss, optimizer and schedule may be FILE.py:NAME (`training.own_code`), of
    which augment comes in place of the augmentation. weights: a file of weights or "imagenet". dilate: how many
    times finer the last maps are, "2" or "4". size: side of the images in pixels.
    tasks: to learn; none for all that can be. uncertain, missing: policies, "POLICY" or "TASK=POLICY".
    class_weights: none, or balanced: the positives of a task weigh as much as its negatives.
    lr: the greatest rate. trunk_rate: of all but the head, as a share of it; 0 freezes. layer_decay: of the first
    layer, as a share of the trunk's last. warmup: steps. batch_size: of all processes together. accumulate: batches
    per step.
    mix: SET[:SHARE], further sets that a share of each batch comes from. mix_loss: label, each label counts the same,
    or set, each set as its share.
    clip: greatest norm of the gradient. steps: instead of epochs. patience: validations without improvement after
    which training ends.
    checkpoint_every: steps between validations. select: METRIC, TASK or METRIC:TASK that ranks checkpoints.
    outlines: [SET=]FILE, outlines of findings. outline_weight: what the share of maps outside of them counts, beside
    the loss per label.
    ensemble: checkpoints per task in ensemble.json. amp: bf16 or fp16. channels_last: lay images out by pixel; None for
    what suits the device. limit_batches: of training and of validation.
    """

    arch: str = "densenet121"
    weights: str | None = None
    dilate: str | None = None
    size: int = 320
    tasks: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    class_weights: str = "none"
    optimizer: str = "adam"
    lr: float = 1e-4
    trunk_rate: float = 1.0
    layer_decay: float = 1.0
    weight_decay: float | None = None
    schedule: str = "cosine"
    warmup: int = 0
    batch_size: int = 16
    mix: tuple[str, ...] = ()
    mix_loss: str = "label"
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
    outlines: tuple[str, ...] = ()
    outline_weight: float = 1.0
    amp: str | None = None
    channels_last: bool | None = None
    compile: bool = False
    limit_batches: int | None = None
    seed: int = 0


def parse_select(text: str, tasks: Sequence[str]) -> tuple[str, str | None]:
    """(metric, task or None for the mean) of METRIC, TASK or METRIC:TASK. Raises InputError."""
    metric, _, task = text.partition(":")
    if metric not in SELECT:
        metric, task = "auroc", text
    if task and canonical(task) not in tasks:
        raise InputError(f"--rank-by {text!r}: neither one of {', '.join(SELECT)} nor a task{hint(task, tasks)}")
    return metric, canonical(task) if task else None
