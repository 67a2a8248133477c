"""Checkpoints: a network and all that is needed to apply it, in one file that loads without executing anything.

Format 2 carries the network itself, as a graph of operators (`models.graph`): to apply it takes no other library and
none of the code that it was made with. Format 1 names an architecture of torchvision or timm, and is read for ever.

A task that was trained with the policy "multiclass" has three outputs of the network (negative, positive, uncertain),
every other task one, its logit. Either way there is one logit per task: of three outputs it is positive minus negative,
whose sigmoid is the softmax over these two, the uncertain one dropped, as in the study.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import stat
import weakref
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from chextools.errors import InputError
from chextools.models.graph import NetworkGraph, dumps, loads
from chextools.plumbing.files import atomic
from chextools.tasks import canonical
from chextools.xrays.squares import Square

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)

FORMAT_1, FORMAT = "chextools checkpoint 1", "chextools checkpoint 2"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in [0, 1]
MULTICLASS = "multiclass"
CLASSES = ("negative", "positive", "uncertain")  # a multiclass task's outputs, in this order
MAX_SIZE = 1 << 14  # pixels
MAX_TASKS = 10_000

Columns = list[tuple[int, int | None]]
Traced = tuple[NetworkGraph, dict[str, "torch.Tensor"]]

_traced: weakref.WeakKeyDictionary[nn.Module, Traced] = weakref.WeakKeyDictionary()


@dataclass
class Checkpoint:
    """A trained classifier.

    arch: its name, of torchvision or wherever it came from. tasks: in the order of the logits. size: side of the input
    in pixels. model: in eval mode, parameters frozen, on the CPU; None where only the rest is asked for. mean, std: of
    pixels in [0, 1], by channel; there are as many channels. fit, resample, interpolation, resize_to: how an image
    becomes a square, as `xrays.squares` has it. columns: which output of the network is each task's logit, less which
    other, if any; None for what `policy` says. points: by task, the probability that a score of 0.5 stands for. policy,
    missing: by task, how uncertain and blank labels were taken. versions: of what made it. step: optimiser steps.
    metrics: of its validation. traced: the graph and tensors that the file carries; None where the model is still to be
    traced. source: what it was imported from. sha256: of the file, "" where there is none.
    """

    arch: str
    tasks: list[str]
    size: int
    model: nn.Module | None
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    fit: str = "squash"
    resample: str = "draft"
    interpolation: str = "bilinear"
    resize_to: int = 0
    columns: Columns | None = None
    points: dict[str, float] = field(default_factory=dict)
    policy: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    step: int = 0
    metrics: dict = field(default_factory=dict)
    traced: Traced | None = None
    source: dict = field(default_factory=dict)
    sha256: str = ""

    @property
    def network(self) -> nn.Module:
        """The model, where there is one: all but a checkpoint of which only the rest was asked for."""
        assert self.model is not None
        return self.model

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def square(self) -> Square:
        """How an image becomes the network's input."""
        return Square(self.size, self.fit, self.resample, self.interpolation, self.resize_to)

    def by_task(self) -> Columns:
        """(output, output to be subtracted or None) of the network by task."""
        return columns(self.tasks, self.policy) if self.columns is None else self.columns

    def differences(self) -> set[str]:
        """Tasks whose logit is the difference of two outputs."""
        return {task for task, (_, other) in zip(self.tasks, self.by_task()) if other is not None}

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] by task from what the network returns, [N, outputs]; differentiable."""
        return chosen(output, self.by_task())

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities [N, K] by task, float32, of what the network returns."""
        return self.probabilities(self.logits(output.float()))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities [N, K] by task, of logits [N, K].

        With an operating point t, a probability p is p / 2t below it and 1 - (1 - p) / 2(1 - t) above, as in
        torchxrayvision: t becomes 0.5.
        """
        found = logits.sigmoid()
        if not self.points:
            return found
        import torch

        point = found.new_tensor([self.points.get(task, 0.5) for task in self.tasks])
        return torch.where(found < point, found / (2 * point), 1 - (1 - found) / (2 * (1 - point)))


def output_names(tasks: Sequence[str], policy: Mapping[str, str]) -> list[str]:
    """What each output of the network is: a task, or TASK: CLASS."""
    return [
        name
        for task in tasks
        for name in ([f"{task}: {c}" for c in CLASSES] if policy.get(task) == MULTICLASS else [task])
    ]


def columns(tasks: Sequence[str], policy: Mapping[str, str]) -> Columns:
    """`Checkpoint.by_task` of a network that was trained with policies."""
    found: Columns = []
    column = 0
    for task in tasks:
        if policy.get(task) == MULTICLASS:
            found.append((column + 1, column))
            column += len(CLASSES)
        else:
            found.append((column, None))
            column += 1
    return found


def logits(output: torch.Tensor, tasks: Sequence[str], policy: Mapping[str, str]) -> torch.Tensor:
    """Logits [N, K] of outputs [N, outputs]: itself, or positive minus negative."""
    return chosen(output, columns(tasks, policy)) if MULTICLASS in policy.values() else output


def chosen(output: torch.Tensor, by_task: Columns) -> torch.Tensor:
    """Logits [N, K] of outputs [N, outputs], as `Checkpoint.by_task` says."""
    import torch

    if by_task == [(k, None) for k in range(output.shape[1])]:
        return output
    return torch.stack(
        [output[:, column] if other is None else output[:, column] - output[:, other] for column, other in by_task],
        dim=1,
    )


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
    """What a checkpoint's file holds: plain values and tensors.

    A network that was not traced before is now, and from then on remembered: that of a network in training does not
    change. Raises InputError for one that cannot be.
    """
    graph, tensors = program(checkpoint)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return {
        "format": FORMAT,
        "arch": checkpoint.arch,
        "graph": dumps(graph),
        "tasks": list(checkpoint.tasks),
        "outputs": output_names(checkpoint.tasks, checkpoint.policy),
        "columns": [list(pair) for pair in checkpoint.by_task()],
        "points": dict(checkpoint.points),
        "size": checkpoint.size,
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        "fit": checkpoint.fit,
        "resample": checkpoint.resample,
        "interpolation": checkpoint.interpolation,
        "resize_to": checkpoint.resize_to,
        "policy": dict(checkpoint.policy),
        "missing": dict(checkpoint.missing),
        "versions": dict(checkpoint.versions),
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "source": dict(checkpoint.source),
        "state_dict": state,
    }


def program(checkpoint: Checkpoint) -> Traced:
    """The graph and the tensors of a checkpoint's network."""
    if checkpoint.traced is not None:
        return checkpoint.traced
    model = checkpoint.model
    if model is None:
        raise InputError("a checkpoint without a network")
    if model not in _traced:
        log.info("tracing the network, so that its checkpoints carry it")
        _traced[model] = traced(model, checkpoint.channels, checkpoint.size)
    graph, first = _traced[model]
    now = model.state_dict()
    return graph, {key: now.get(key, tensor) for key, tensor in first.items()}


def traced(model: nn.Module, channels: int, size: int) -> Traced:
    """The graph of any nn.Module [N, channels, size, size] -> [N, outputs], its default layer found, and its tensors.

    With these `Checkpoint(..., traced=...)` can be saved. Raises InputError for a network that cannot be traced.
    """
    import dataclasses

    import torch

    from chextools.models.assembly import assemble
    from chextools.models.layers import find_layer
    from chextools.models.tracing import trace

    graph, tensors = trace(model, channels, size)
    tensors = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
    network = assemble(graph, tensors, channels, size)
    noise = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(graph, layer=find_layer(network, noise)), tensors


def packed(value: object, torch: Any) -> memoryview:
    """The bytes of torch.save; made in memory, so that a disk that is full is an error of ours and not of torch."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getbuffer()


_MADE = "chex-import makes a checkpoint of any network"


def check_file(path: str | os.PathLike) -> None:
    """Raise InputError unless the file may be a checkpoint: what can be known without torch."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a FIFO would wait for a writer
            raise InputError(f"{path}: not a regular file, so not a checkpoint")
        with open(path, "rb") as stream:
            start = stream.read(4)
            if start != b"PK\3\4":
                raise InputError(f"{path}: {f'not a checkpoint; {_MADE}' if start else 'an empty file'}")
            if not zipfile.is_zipfile(stream):
                raise InputError(f"{path}: a truncated checkpoint")
            with zipfile.ZipFile(stream) as archive:
                if any(name.endswith(("/constants.pkl", "/archive_format")) for name in archive.namelist()):
                    raise InputError(f"{path}: a program of torch.export or TorchScript, not a checkpoint; {_MADE}")
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise InputError(f"{path}: not as torch.save writes: something in it is compressed")
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError):
        raise InputError(f"{path}: a damaged checkpoint") from None
    except OSError as error:
        library = isinstance(error, FileNotFoundError) and os.fspath(path).startswith(("xrv:", "hf:", "timm/"))
        raise InputError(f"{path}: {error.strerror}{f'; {_MADE}' if library else ''}") from None


def load(path: str | os.PathLike, arch: str | None = None) -> Checkpoint:
    """Read a checkpoint. Raises InputError, in one line, if it is missing, truncated, none of ours, or of an
    architecture other than `arch`.
    """
    from chextools.models.weights import HoldsMore, read

    path = os.fspath(path)
    check_file(path)
    try:
        found = read(path)
    except HoldsMore as error:
        raise InputError(f"{error}; {_MADE}") from None
    if found.get("format") not in (FORMAT, FORMAT_1):
        what = "a file for chex-train --weights?" if "state_dict" in found else "some other file of torch.save"
        raise InputError(f"{path}: not a checkpoint ({what}); {_MADE}")
    try:
        return _checkpoint(found, path, arch)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_ensemble(path: str | os.PathLike) -> dict[str, list[str]]:
    """Paths of checkpoints by task, from the ensemble.json of a run: relative ones are taken against its folder."""
    from chextools.plumbing import jsontext

    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    try:
        found = jsontext.loads(text)
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
                    if (tasks := chosen.setdefault(member, [])) is not None:
                        tasks.append(task)
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


_KINDS: dict[str, type] = {
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
_KINDS_2: dict[str, type] = {"columns": list, "points": dict, "fit": str, "resample": str, "source": dict}


def _checkpoint(found: Mapping, path: str, arch: str | None) -> Checkpoint:
    second = found["format"] == FORMAT
    for name, kind in (_KINDS | (_KINDS_2 if second else {})).items():
        if not isinstance(found.get(name), kind):
            raise InputError(f"a checkpoint without a usable {name!r}")
    if arch is not None and found["arch"] != arch:
        raise InputError(f"a checkpoint of {found['arch']}, not of {arch}")
    tasks = found["tasks"]
    if not tasks or not all(isinstance(task, str) for task in tasks) or len(set(tasks)) < len(tasks):
        raise InputError("a checkpoint without usable tasks")
    if len(tasks) > MAX_TASKS or not 1 <= found["size"] <= MAX_SIZE:
        raise InputError(f"a checkpoint of {len(tasks)} tasks for images of {found['size']} pixels")
    common = {name: found[name] for name in _KINDS if name not in ("tasks", "mean", "std", "state_dict")}
    checkpoint = Checkpoint(
        **common,
        tasks=[canonical(task) for task in tasks],
        mean=_by_channel(found, "mean"),
        std=_by_channel(found, "std"),
        model=None,
        sha256=_sha256(path),
    )
    if len(checkpoint.mean) != len(checkpoint.std) or len(checkpoint.mean) not in (1, 3) or 0 in checkpoint.std:
        raise InputError("a checkpoint without a usable 'mean' and 'std'")
    if second:
        _fill(checkpoint, found)
    else:
        from chextools.models import architectures

        outputs = output_names(tasks, found["policy"])
        model = architectures.build_empty(found["arch"], len(outputs), found["size"], found["state_dict"])
        checkpoint.model = model.eval().requires_grad_(False)
    return checkpoint


def _fill(checkpoint: Checkpoint, found: Mapping) -> None:
    """What format 2 adds: the network from its graph, and what goes before and after it."""
    from chextools.models.assembly import assemble

    checkpoint.fit, checkpoint.resample, checkpoint.source = found["fit"], found["resample"], found["source"]
    if "interpolation" in found:
        if not isinstance(found["interpolation"], str) or type(found.get("resize_to")) is not int:
            raise InputError("a checkpoint without a usable 'interpolation' and 'resize_to'")
        checkpoint.interpolation, checkpoint.resize_to = found["interpolation"], found["resize_to"]
    elif checkpoint.resample == "pil":  # before there was a name for it
        checkpoint.resample = "draft"
    checkpoint.square.check()
    points = found["points"].items()
    if not all(task in found["tasks"] and isinstance(point, float) and 0 < point < 1 for task, point in points):
        raise InputError("a checkpoint without usable operating points")
    checkpoint.points = {canonical(task): point for task, point in points}
    graph = loads(found.get("graph"))
    checkpoint.traced = graph, found["state_dict"]
    network = assemble(graph, found["state_dict"], checkpoint.channels, checkpoint.size)
    checkpoint.columns = _columns(found["columns"], len(checkpoint.tasks), network.outputs)
    checkpoint.model = network


def _columns(found: list, tasks: int, outputs: int) -> Columns:
    pairs = [tuple(pair) for pair in found if isinstance(pair, (list, tuple))]
    usable = all(
        len(pair) == 2
        and type(pair[0]) is int
        and 0 <= pair[0] < outputs
        and (pair[1] is None or (type(pair[1]) is int and 0 <= pair[1] < outputs and pair[1] != pair[0]))
        for pair in pairs
    )
    if len(pairs) != len(found) or len(pairs) != tasks or not usable:
        raise InputError(f"a checkpoint whose tasks are not among its network's {outputs} outputs")
    return [(pair[0], pair[1]) for pair in pairs]


def _by_channel(found: Mapping, name: str) -> tuple[float, ...]:
    values = found[name]
    if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in values):
        raise InputError(f"a checkpoint without a usable {name!r}")
    return tuple(map(float, values))


def _sha256(path: str) -> str:
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else _digest(stream)
    return digest.hexdigest()


def _digest(stream: BinaryIO) -> Any:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest
