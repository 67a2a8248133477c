"""A training step hands a GPU its work and waits for nothing: it asks for no value, nor for what has no known size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu import need_gpu, unwaited
from torch.utils._python_dispatch import TorchDispatchMode

from chextools.models import inference
from chextools.training.augment import Augmentation
from chextools.training.labels import Labelling
from chextools.training.learner import Learner
from chextools.training.own_code import OwnCode
from chextools.training.ranks import ALONE
from chextools.training.settings import TrainSettings

SIZE, IMAGES = 32, 4
WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "unique", "equal"}


class Noted(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def stepped(device: str, step: int, **options) -> tuple[Learner, tuple]:
    """A learner, and what `learn` takes for a step."""
    settings = TrainSettings(
        arch="resnet18",
        size=SIZE,
        batch_size=IMAGES,
        clip=1.0,
        augmentation=Augmentation(rotate=5, shift=0.1, contrast=0.1, flip=True),
        **options,
    )
    labelling = Labelling(("Edema", "Pneumonia"), {"Edema": "ones", "Pneumonia": "multiclass"}, {})
    learner = Learner(
        settings, labelling, OwnCode.load({}), torch.device(device), ALONE, np.ones((2, 3), np.float32), 10, None
    )
    rng = np.random.default_rng(0)
    labels = torch.tensor([[1.0, 2], [0, 1], [1, 0], [0, 0]]), torch.ones(IMAGES, 2)
    pixels = rng.integers(0, 256, (IMAGES, SIZE, SIZE), np.uint8)
    return learner, (step, np.arange(IMAGES), pixels, labels)


def test_a_step_asks_for_no_value():
    learner, arguments = stepped("cpu", 0)
    with Noted() as noted:
        learner.learn(*arguments)
    assert "_fused_adam_" in noted.names and not noted.names & WAITING


@pytest.mark.parametrize("options", [{}, {"amp": "bf16", "channels_last": True}])
def test_a_gpu_is_never_waited_for_in_a_step(options):
    need_gpu()
    learner, arguments = stepped("cuda", 0, **options)
    learner.learn(*arguments)  # the first one chooses its kernels
    with unwaited():
        learner.learn(1, *arguments[1:])
    assert torch.isfinite(learner.loss_sum)


def test_a_gpu_trains_as_a_cpu_does():
    need_gpu()
    losses = []
    for device in ("cpu", "cuda"):
        learner, arguments = stepped(device, 0)
        inference.exactly()
        learner.learn(*arguments)
        losses.append(learner.mean_loss())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
