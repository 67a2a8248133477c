"""A user's own network, augmentation, loss, optimiser and schedule: FILE.py:NAME, run because the user named it.

    arch        (outputs) -> torch.nn.Module: images [N, 3, size, size], normalised, to logits [N, outputs]
    augment     (uint8 [H, W], numpy.random.Generator) -> uint8 or float [H, W] in 0..255
    loss        (logits [N, K], targets [N, K], weights [N, K]) -> scalar: the mean over labels whose weight is not 0
    optimizer   (parameters, lr) -> torch.optim.Optimizer
    schedule    (step, steps) -> what the learning rate is multiplied with; steps of the warm-up do not count

All are tried on zeros before the first step. Whatever a function draws, it draws from the generator that it is given,
or from torch, so that a run that is resumed draws the same.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chextools.errors import InputError
from chextools.plumbing import usercode
from chextools.plumbing.usercode import UserCode

if TYPE_CHECKING:
    import torch

ROLES = ("arch", "augment", "loss", "optimizer", "schedule")


def check_files(values: Mapping[str, object]) -> None:
    """Raise InputError unless the files that are named are there; nothing of them is run."""
    for role in ROLES:
        value = values.get(role)
        if isinstance(value, str) and usercode.is_user_code(value):
            usercode.split(value)


@dataclass(frozen=True)
class OwnCode:
    """What of a run is the user's, by role."""

    by_role: Mapping[str, UserCode]

    @classmethod
    def load(cls, values: Mapping[str, object]) -> OwnCode:
        """Run the files that options by name say. Raises InputError in one line."""
        named = {role: str(values[role]) for role in ROLES if usercode.is_user_code(str(values.get(role) or ""))}
        return cls({role: usercode.load_function(text)[0] for role, text in named.items()})

    def get(self, role: str) -> UserCode | None:
        return self.by_role.get(role)

    def hashes(self) -> dict[str, str]:
        """By role FILE.py:NAME and the SHA-256 of the file."""
        return {role: f"{code.spec} sha256:{code.sha256}" for role, code in self.by_role.items()}

    def check_same(self, before: Mapping[str, str], where: str) -> None:
        """Raise InputError unless the files are what they were."""
        for role, said in self.hashes().items():
            if role in before and before[role] != said:
                raise InputError(
                    f"{self.by_role[role].path}: is not as it was when {where} began (its SHA-256 differs); put it "
                    "back, or begin another run"
                )


def build(code: UserCode, outputs: int) -> torch.nn.Module:
    """The network that the user's function makes."""
    from torch import nn

    try:
        takes = bool(inspect.signature(code.value).parameters)
    except (TypeError, ValueError):
        takes = True
    module = code.call(outputs) if takes else code.call()
    if not isinstance(module, nn.Module):
        raise InputError(f"{code.path}: {code.name} gives a {type(module).__name__}, not a torch.nn.Module")
    return module.float()


def make_optimizer(code: UserCode, groups: list[dict], lr: float) -> torch.optim.Optimizer:
    """The user's optimiser of all parameters; of groups with rates of their own where there are several."""
    import torch

    found = code.call(groups if len(groups) > 1 else groups[0]["params"], lr)
    if not isinstance(found, torch.optim.Optimizer):
        raise InputError(f"{code.path}: {code.name} gives a {type(found).__name__}, not a torch.optim.Optimizer")
    return found


class OwnLoss:
    """The user's mean over labels, as a sum over them, so that batches and processes add up."""

    def __init__(self, code: UserCode):
        self.code = code

    def __call__(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found = self.code.call(output.float(), target, weight)
        shape = getattr(found, "shape", None)
        if shape is None or tuple(shape) != ():
            said = f"shape {list(shape)}" if shape is not None else type(found).__name__
            raise InputError(f"{self.code.path}: {self.code.name} gives {said}, not a scalar tensor")
        return found * weight.sum()


def rate(code: UserCode, step: int, steps: int) -> float:
    """What the user's schedule says of a step, counted from 0, of `steps`."""
    found = code.call(step, steps)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(
            f"{code.path}: {code.name} gives {str(found)[:40]} at step {step} of {steps}, not a factor >= 0"
        )
    return value


def augmented(code: UserCode, pixels: np.ndarray, seed: int, first: int) -> np.ndarray:
    """uint8 or float32 [N, H, W] of images [N, H, W], each changed by the user's function.

    first: place of the first image in its batch: with the seed it decides what is drawn.
    """
    changed = []
    for place, image in enumerate(pixels, first):
        found = np.asarray(code.call(image.copy(), np.random.default_rng([seed, place])))
        if found.shape != image.shape or found.dtype.kind not in "uf":
            given, wanted = f"{found.dtype} {list(found.shape)}", f"uint8 or float {list(image.shape)}"
            raise InputError(f"{code.path}: {code.name} gives {given}, not {wanted}")
        changed.append(found if found.dtype == np.uint8 else found.astype(np.float32))
    if len({image.dtype for image in changed}) > 1:
        changed = [image.astype(np.float32) for image in changed]
    return np.stack(changed) if changed else pixels


def try_on_zeros(
    own: OwnCode, model: torch.nn.Module, loss: object, size: int, outputs: int, lr: float, steps: int
) -> None:
    """Call everything of the user's once, on copies. Raises InputError, naming the user's line where there is one."""
    import torch

    if code := own.get("augment"):
        augmented(code, np.zeros((2, size, size), np.uint8), 0, 0)
    if code := own.get("schedule"):
        for step in {0, max(steps - 1, 0)}:
            rate(code, step, steps)
    if not {"arch", "loss", "optimizer"} & own.by_role.keys():
        return
    with torch.random.fork_rng([]):
        trial = copy.deepcopy(model).cpu().train()
        code = own.get("arch")
        try:
            output = trial(torch.zeros(2, 3, size, size))
        except Exception as error:  # a stranger's code raises anything
            if code is None:
                raise
            raise InputError(usercode.one_line(error, code.path)) from None
        if code and (not isinstance(output, torch.Tensor) or tuple(output.shape) != (2, outputs)):
            said = list(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
            raise InputError(f"{code.path}: the network of {code.name} gives {said} of 2 images, not {[2, outputs]}")
        if isinstance(loss, OwnLoss):
            value = loss(output, torch.zeros_like(output), torch.ones_like(output))
            if not value.requires_grad:
                raise InputError(f"{loss.code.path}: {loss.code.name} gives a value without a gradient")
        else:
            value = output.float().sum()
        value.backward()
        if code := own.get("optimizer"):
            made = make_optimizer(code, [{"params": [p for p in trial.parameters() if p.requires_grad]}], lr)
            try:
                made.step()
            except Exception as error:
                raise InputError(f"{code.path}: {code.name}: its step fails: {' '.join(str(error).split())}") from None
