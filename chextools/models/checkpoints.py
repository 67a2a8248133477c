"""Checkpoints: a network and all that is needed to apply it, in one file that loads without executing anything.

A task that was trained with the policy "multiclass" has three outputs of the network (negative, positive, uncertain),
every other task one, its logit. Either way there is one logit per task: of three outputs it is positive minus negative,
whose sigmoid is the softmax over these two, the uncertain one dropped, as in the study.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chextools.errors import InputError
from chextools.models import architectures
from chextools.plumbing.files import atomic
from chextools.tasks import canonical

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)

FORMAT = "chextools checkpoint 1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in [0, 1]
MULTICLASS = "multiclass"
CLASSES = ("negative", "positive", "uncertain")  # a multiclass task's outputs, in this order


@dataclass
class Checkpoint:
    """A trained classifier.

    arch: torchvision's name. tasks: in the order of the logits. size: side of the input in pixels. mean, std: of pixels
    in [0, 1], by channel. policy, missing: by task, how uncertain and blank labels were taken. versions: of what
    trained it. step: optimiser steps. metrics: of its validation. model: in eval mode, parameters frozen, on the CPU.
    sha256: of the file, "" where there is none.
    """

    arch: str
    tasks: list[str]
    size: int
    model: nn.Module
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    policy: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    step: int = 0
    metrics: dict = field(default_factory=dict)
    sha256: str = ""

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] by task from what the network returns, [N, outputs]; differentiable."""
        return logits(output, self.tasks, self.policy)

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities [N, K] by task, float32."""
        return self.logits(output.float()).sigmoid()

    def combination(self) -> torch.Tensor:
        """The matrix [K, outputs] that makes logits of outputs: for methods that use the head's weights."""
        return combination(self.tasks, self.policy)


def output_names(tasks: Sequence[str], policy: Mapping[str, str]) -> list[str]:
    """What each output of the network is: a task, or TASK: CLASS."""
    return [
        name
        for task in tasks
        for name in ([f"{task}: {c}" for c in CLASSES] if policy.get(task) == MULTICLASS else [task])
    ]


def combination(tasks: Sequence[str], policy: Mapping[str, str]) -> torch.Tensor:
    """float32 [K, outputs]: logits = outputs @ combination.T."""
    import torch

    matrix = torch.zeros(len(tasks), len(output_names(tasks, policy)))
    column = 0
    for row, task in enumerate(tasks):
        if policy.get(task) == MULTICLASS:
            matrix[row, column], matrix[row, column + 1] = -1, 1
            column += len(CLASSES)
        else:
            matrix[row, column] = 1
            column += 1
    return matrix


def logits(output: torch.Tensor, tasks: Sequence[str], policy: Mapping[str, str]) -> torch.Tensor:
    """Logits [N, K] of outputs [N, outputs]: itself, or positive minus negative."""
    if MULTICLASS not in policy.values():
        return output
    columns, column = [], 0
    for task in tasks:
        if policy.get(task) == MULTICLASS:
            columns.append(output[:, column + 1] - output[:, column])
            column += len(CLASSES)
        else:
            columns.append(output[:, column])
            column += 1
    import torch

    return torch.stack(columns, dim=1)


def versions() -> dict[str, str]:
    """Of what takes part in training."""
    import platform

    import torch
    import torchvision

    from chextools import __version__

    return {
        "chextools": __version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "python": platform.python_version(),
    }


def save(path: str | os.PathLike, checkpoint: Checkpoint, force: bool = False) -> str:
    """Write a checkpoint, whole or not at all, also on a full disk; the SHA-256 of the file.

    Raises InputError if it cannot be written.
    """
    import torch

    data = packed(content(checkpoint), torch)
    with atomic(path, force, sync=True) as stream:
        stream.write(data)
    return hashlib.sha256(data).hexdigest()


def content(checkpoint: Checkpoint) -> dict:
    """What a checkpoint's file holds: plain values and tensors."""
    state = {name: tensor.detach().cpu() for name, tensor in checkpoint.model.state_dict().items()}
    outputs = output_names(checkpoint.tasks, checkpoint.policy)
    return {
        "format": FORMAT,
        "arch": checkpoint.arch,
        "tasks": list(checkpoint.tasks),
        "outputs": outputs,
        "size": checkpoint.size,
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        "policy": dict(checkpoint.policy),
        "missing": dict(checkpoint.missing),
        "versions": dict(checkpoint.versions),
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "state_dict": state,
    }


def packed(value: object, torch) -> memoryview:
    """The bytes of torch.save; made in memory, so that a disk that is full is an error of ours and not of torch."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getbuffer()


def check_file(path: str | os.PathLike) -> None:
    """Raise InputError unless the file may be a checkpoint: what can be known without torch."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(4)
            if start != b"PK\3\4":
                raise InputError(f"{path}: {'not a checkpoint' if start else 'an empty file'}")
            if not zipfile.is_zipfile(stream):
                raise InputError(f"{path}: a truncated checkpoint")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def load(path: str | os.PathLike, arch: str | None = None) -> Checkpoint:
    """Read a checkpoint. Raises InputError, in one line, if it is missing, truncated, none of ours, or of an
    architecture other than `arch`.
    """
    from chextools.models.weights import read

    path = os.fspath(path)
    check_file(path)
    found = read(path)
    if found.get("format") != FORMAT:
        what = "a file for chex-train --weights?" if "state_dict" in found else "some other file of torch.save"
        raise InputError(f"{path}: not a checkpoint of chex-train ({what})")
    try:
        return _checkpoint(found, path, arch)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_ensemble(path: str | os.PathLike) -> dict[str, list[str]]:
    """Paths of checkpoints by task, from the ensemble.json of a run: relative ones are taken against its folder."""
    from chextools.records import records

    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    try:
        found = records.loads(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    by_task = found.get("tasks") if isinstance(found, dict) else None
    if not isinstance(by_task, dict) or not by_task:
        raise InputError(f'{path}: not an ensemble of chex-train: no "tasks"')
    folder = Path(path).parent
    result = {}
    for task, names in by_task.items():
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise InputError(f"{path}: {task}: expected a list of checkpoints")
        result[canonical(task)] = [os.fspath(folder / name) for name in names]
    return result


def write_ensemble(path: str | os.PathLike, by_task: Mapping[str, Sequence[str]]) -> None:
    """Write ensemble.json: by task the names of its checkpoints, best first."""
    with atomic(path, force=True, sync=True) as stream:
        stream.write(json.dumps({"tasks": by_task}, indent=2).encode() + b"\n")


def select(paths: Sequence[str]) -> dict[str, list[str] | None]:
    """Which checkpoints are named, each once, and for which of its tasks: None for all.

    A path is a checkpoint, or an ensemble.json, which names some per task. Raises InputError for a file that cannot
    be either; nothing is loaded.
    """
    chosen: dict[str, list[str] | None] = {}
    for path in paths:
        if path.endswith(".json"):
            for task, members in read_ensemble(path).items():
                for member in members:
                    if chosen.setdefault(member, []) is not None:
                        chosen[member].append(task)
        else:
            chosen[path] = None
    for path in chosen:
        check_file(path)
    return chosen


def identity(checkpoints: Sequence[Checkpoint], wanted: Sequence[Collection[str] | None]) -> str:
    """What a record's "model" says: the file's SHA-256; of several, that of theirs and of what each is wanted for.

    wanted: the tasks that an ensemble.json names a checkpoint for; None for all that it has.
    """
    parts = [
        checkpoint.sha256 + "".join(f"\0{task}" for task in sorted(set(tasks or ())))
        for checkpoint, tasks in zip(checkpoints, wanted)
    ]
    return parts[0] if parts == [checkpoints[0].sha256] else hashlib.sha256("".join(parts).encode()).hexdigest()


def _checkpoint(found: Mapping, path: str, arch: str | None) -> Checkpoint:
    names = {
        "arch": str,
        "tasks": list,
        "size": int,
        "mean": list,
        "std": list,
        "policy": dict,
        "missing": dict,
        "versions": dict,
        "step": int,
        "metrics": dict,
        "state_dict": dict,
    }
    for name, kind in names.items():
        if not isinstance(found.get(name), kind):
            raise InputError(f"a checkpoint without a usable {name!r}")
    if arch is not None and found["arch"] != arch:
        raise InputError(f"a checkpoint of {found['arch']}, not of {arch}")
    tasks = found["tasks"]
    if not tasks or not all(isinstance(task, str) for task in tasks) or len(set(tasks)) < len(tasks):
        raise InputError("a checkpoint without usable tasks")
    if not 1 <= found["size"] <= 1 << 14:
        raise InputError(f"a checkpoint for images of {found['size']} pixels")
    outputs = output_names(tasks, found["policy"])
    model = architectures.build_empty(found["arch"], len(outputs), found["size"], found["state_dict"])
    model.eval().requires_grad_(False)
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else _digest(stream)
    return Checkpoint(
        found["arch"],
        [canonical(task) for task in tasks],
        found["size"],
        model,
        tuple(found["mean"]),
        tuple(found["std"]),
        found["policy"],
        found["missing"],
        found["versions"],
        found["step"],
        found["metrics"],
        digest.hexdigest(),
    )


def _digest(stream) -> object:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest
