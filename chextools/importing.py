"""chex-import: a network made elsewhere becomes a checkpoint, which carries it and says how to use it."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chextools.errors import InputError
from chextools.plumbing import files
from chextools.tasks import CHEXPERT, canonical

if TYPE_CHECKING:
    import torch
    from torch import nn

    from chextools.models.checkpoints import Checkpoint
    from chextools.models.graph import NetworkGraph
    from chextools.models.sources import Source
    from chextools.xrays.squares import Square

log = logging.getLogger(__name__)

# Orders of outputs that many networks have: CheXNet's re-implementations, CheXpert's columns, torchxrayvision.
NIH14 = (
    "Atelectasis,Cardiomegaly,Effusion,Infiltration,Mass,Nodule,Pneumonia,Pneumothorax,Consolidation,Edema,Emphysema,"
    "Fibrosis,Pleural_Thickening,Hernia"
)
XRV18 = (
    "Atelectasis,Consolidation,Infiltration,Pneumothorax,Edema,Emphysema,Fibrosis,Effusion,Pneumonia,"
    "Pleural_Thickening,Cardiomegaly,Nodule,Mass,Hernia,Lung Lesion,Fracture,Lung Opacity,Enlarged Cardiomediastinum"
)
ORDERS = {"NIH14": NIH14.split(","), "CHEXPERT14": list(CHEXPERT), "XRV18": XRV18.split(",")}
HEADS = {
    "sigmoid": 1,
    "softmax2": 2,
    "softmax3": 3,
}  # outputs per task; of several the first is negative, then positive
_SAME_FINDING = {"Effusion": "Pleural Effusion"}
TOLERANCE = 1e-5  # of the greatest output, on any of the images of the proof
_PROOF = (1, 3)  # images at once


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What chex-import is told.

    source: a file of weights, a program, a name of a library, or FILE.py:FUNCTION. arch: whose weights a file holds.
    tasks: names by comma, a file of them, or one of `ORDERS`; None for what the source knows. head: one of `HEADS`.
    size, channels, mean, std, fit, resample, interpolation, resize_to: of the input; None for what the source knows,
    else 224, the mean and standard deviation of ImageNet, "squash", "pil", "bilinear" and no other size. value_range:
    what black and white become, instead of mean and std. layer: where class activation maps are made; None to find it.
    points: operating points by task, a file; None for what the source knows. download: whether weights may be fetched.
    example: an image to score.
    """

    source: str
    arch: str | None = None
    tasks: str | None = None
    head: str = "sigmoid"
    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    fit: str | None = None
    resample: str | None = None
    interpolation: str | None = None
    resize_to: int | None = None
    layer: str | None = None
    points: str | None = None
    download: bool = False
    example: str | None = None


@dataclass
class _Proof:
    """How far the network is from the original, by images at once; which methods can explain it, or why not."""

    differences: dict[str, float]
    methods: list[str] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)
    maps: list[int] | None = None


def import_network(
    settings: ImportSettings,
    output: str | os.PathLike,
    force: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the checkpoint to `output`, and give a row that says what it is and proves that it is the same network.

    on_step: told what begins, in a few words. Raises InputError, in one line, for what cannot be imported; then nothing
    is written.
    """
    from chextools.models.extras import check_source

    files.check_target(output, force)
    names = None if settings.tasks is None else task_names(settings.tasks)
    for given in (settings.example, settings.points):
        if given not in (None, "none") and not os.path.isfile(given):
            raise InputError(f"{given}: No such file or directory")
    check_source(settings.source, settings.arch, settings.download)
    on_step(f"reading {settings.source}")

    from chextools.models import checkpoints, inference
    from chextools.models.sources import open_source

    outputs = None if names is None else len(names) * HEADS[settings.head]
    with inference.one_thread():  # a few small batches: on a busy machine helpers would be waited for most of the time
        source = open_source(
            settings.source, settings.arch, outputs, settings.channels, settings.size, settings.download
        )
        checkpoint, removed, proof = _imported(settings, source, names, on_step)
    on_step(f"writing {os.fspath(output)}")
    digest = checkpoints.save(output, checkpoint, force)
    row = _row(settings, checkpoint, removed, proof) | {"checkpoint": os.fspath(output), "sha256": digest}
    if settings.example is not None:
        row["example"] = {"image": settings.example, "scores": _scores(checkpoint, settings.example)}
    return row


def task_names(text: str) -> list[str]:
    """The task of each output, "" for none, of names by comma, a file of them line by line, or one of `ORDERS`.

    Raises InputError for a name twice, and for none at all.
    """
    if text in ORDERS:
        names: Iterable[str] = ORDERS[text]
    elif os.path.isfile(text):
        try:
            with open(text, encoding="utf-8-sig") as stream:
                names = stream.read().removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{text}: not a text file of tasks ({type(error).__name__})") from None
    elif text.endswith((".txt", ".csv", ".tsv", ".json")) and "," not in text:
        raise InputError(f"{text}: No such file or directory")
    else:
        names = text.split(",")
    found = [_task(name) for name in names]
    return _checked(found, text)


def _task(name: str) -> str:
    name = name.strip()
    return canonical(_SAME_FINDING.get(name, name))


def _checked(names: list[str], where: str) -> list[str]:
    named = [name for name in names if name]
    if not named:
        raise InputError(f"{where}: no task is named")
    if twice := [name for k, name in enumerate(named) if name in named[:k]]:
        raise InputError(f"{where}: {twice[0]} is named twice")
    return names


def _imported(
    settings: ImportSettings, source: Source, names: list[str] | None, on_step: Callable[[str], None]
) -> tuple[Checkpoint, str | None, _Proof]:
    """The checkpoint, what was taken off its end, and the proof."""
    import torch

    from chextools.models import checkpoints
    from chextools.models.assembly import assemble
    from chextools.models.heads import without_activation
    from chextools.models.layers import find_layer

    size, mean, std = _input(settings, source)
    on_step("tracing the network")
    graph, tensors = _traced(source, len(mean), size)
    graph, removed = without_activation(graph)
    if removed in ("softmax", "log_softmax") and settings.head == "sigmoid":
        raise InputError(
            f"{settings.source}: ends in a {removed}, so its outputs are classes: say --head softmax2 or softmax3"
        )
    tensors = {key: tensor.cpu() for key, tensor in tensors.items() if key in graph.keys()}
    try:
        network = assemble(graph, tensors, len(mean), size)
    except InputError as error:
        raise InputError(f"{settings.source}: {error}") from None
    noise = torch.randn(1, len(mean), size, size, generator=torch.Generator().manual_seed(0))
    layer = settings.layer
    if layer is not None and layer not in network.layer_nodes:
        from chextools.models.canonical import checked_layer

        checked_layer(network, layer)
    if layer is None:
        with torch.random.fork_rng(devices=[]):
            layer = find_layer(network, noise)
    graph = dataclasses.replace(graph, layer=layer)
    network.default_layer = layer
    tasks, columns = _columns(settings, source, names, network.outputs)
    square = _square(settings, source, size)
    checkpoint = checkpoints.Checkpoint(
        arch=settings.arch or source.name,
        tasks=tasks,
        size=size,
        model=network,
        mean=mean,
        std=std,
        fit=square.fit,
        resample=square.resample,
        interpolation=square.interpolation,
        resize_to=square.resize_to,
        columns=columns,
        points=_points(settings, source, tasks),
        versions={"torch": str(torch.__version__)},
        traced=(graph, tensors),
        source={"source": settings.source, **source.about},
    )
    original = source.module if source.module is not None else source.program.module()
    on_step("comparing it with the original")
    proof = _proof(settings.source, original, checkpoint, removed, HEADS[settings.head])
    on_step("trying the methods of chex-cam")
    _note_methods(proof, checkpoint)
    return checkpoint, removed, proof


def _traced(source: Source, channels: int, size: int) -> tuple[NetworkGraph, dict[str, torch.Tensor]]:
    from chextools.models import tracing

    if source.program is not None:
        return tracing.of_program(source.program, "the program")
    assert source.module is not None
    return tracing.trace(source.module, channels, size)


def _input(settings: ImportSettings, source: Source) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """(side in pixels, mean, std by channel) of the input."""
    from chextools.models.checkpoints import MEAN, STD

    size, channels = settings.size or source.size or 224, settings.channels or source.channels
    shape = _program_shape(source)
    if shape is not None:
        channels, size = shape
        if settings.size not in (None, size) or settings.channels not in (None, channels):
            raise InputError(f"{settings.source}: a program of {channels} channels and {size} pixels, as it was traced")
    if settings.value_range is not None:
        low, high = settings.value_range
        mean: tuple[float, ...]
        std: tuple[float, ...]
        mean, std = ((0 - low) / (high - low),), (1 / (high - low),)
    else:
        mean, std = settings.mean or source.mean or MEAN, settings.std or source.std or STD
        if channels == 1 and len(mean) == 3 and settings.mean is None and source.mean is None:
            raise InputError(
                f"{settings.source}: a network of one channel: say how grey levels are scaled, by --range LOW,HIGH or "
                "--mean and --std"
            )
    count = channels or max(len(mean), len(std), 3 if settings.value_range or settings.mean else 1)
    return size, _widened(mean, count, "--mean"), _widened(std, count, "--std")


def _square(settings: ImportSettings, source: Source, size: int) -> Square:
    """How an image becomes the input. Raises InputError for what does not go together."""
    from chextools.xrays.squares import Square

    fit, resize_to = settings.fit or source.fit, settings.resize_to
    if resize_to is None:
        resize_to = source.resized_to(size) if settings.fit in (None, source.fit) else 0
    if fit is None:
        fit = "shorter-centre-crop" if resize_to else "squash"
    resample = settings.resample or source.resample or "pil"
    interpolation = settings.interpolation or source.interpolation or "bilinear"
    square = Square(size, fit, resample, interpolation, resize_to)
    square.check()
    return square


def _widened(values: tuple[float, ...], count: int, name: str) -> tuple[float, ...]:
    if len(values) not in (1, count):
        raise InputError(f"{name}: {len(values)} numbers for {count} channels")
    return tuple(values) if len(values) == count else tuple(values) * count


def _program_shape(source: Source) -> tuple[int, int] | None:
    """(channels, side) that a program of torch.export was traced for."""
    if source.program is None:
        return None
    stored = set(source.program.graph_signature.inputs_to_parameters) | set(
        source.program.graph_signature.inputs_to_buffers
    )
    stored |= set(source.program.graph_signature.inputs_to_lifted_tensor_constants)
    for node in source.program.graph.nodes:
        if node.op == "placeholder" and node.name not in stored:
            shape = node.meta["val"].shape
            if len(shape) == 4 and all(isinstance(side, int) for side in shape[1:]) and shape[2] == shape[3]:
                return shape[1], shape[2]
            raise InputError(f"{source.name}: takes {[str(side) for side in shape]}, not square images of one size")
    raise InputError(f"{source.name}: takes no images")


def _columns(
    settings: ImportSettings, source: Source, names: list[str] | None, outputs: int
) -> tuple[list[str], list[tuple[int, int | None]]]:
    """(tasks, the outputs of each), blanks dropped."""
    per_task = HEADS[settings.head]
    if names is None and source.outputs is not None:
        names = _checked([_task(name) for name in source.outputs], settings.source)
    if names is None:
        raise InputError(
            f"{settings.source}: say what its {outputs} outputs are: --tasks NAMES, FILE or one of {', '.join(ORDERS)}"
        )
    if len(names) * per_task != outputs:
        raise InputError(
            f"{settings.source}: has {outputs} outputs, but {len(names)} tasks were named"
            + (f", of {per_task} outputs each" if per_task > 1 else "")
            + _advice(len(names), outputs, settings.head)
        )
    tasks = [name for name in names if name]
    starts = [k * per_task for k, name in enumerate(names) if name]
    return tasks, [(start, None) if per_task == 1 else (start + 1, start) for start in starts]


def _advice(tasks: int, outputs: int, head: str) -> str:
    fitting = [name for name, per_task in HEADS.items() if tasks * per_task == outputs and name != head]
    if fitting:
        return f": --head {fitting[0]}?"
    return "; an output of no use is an empty name" if tasks < outputs else ""


def _points(settings: ImportSettings, source: Source, tasks: Sequence[str]) -> dict[str, float]:
    """Operating points by task: of a file (chex-tune's, or {task: probability}), or what the source knows."""
    if settings.points is None:
        return {_task(name): float(point) for name, point in source.points.items() if _task(name) in tasks}
    if settings.points == "none":
        return {}
    import json

    try:
        with open(settings.points, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) else "not JSON of a probability by task"
        raise InputError(f"{settings.points}: {said}") from None
    usable = isinstance(found, dict) and all(
        isinstance(point, (int, float)) and not isinstance(point, bool) and 0 < point < 1 for point in found.values()
    )
    if not usable:
        raise InputError(f"{settings.points}: expected a probability between 0 and 1 by task, in JSON")
    points = {_task(name): float(point) for name, point in found.items()}
    if stray := [name for name in points if name not in tasks]:
        raise InputError(f"{settings.points}: {stray[0]!r} is none of the tasks ({', '.join(tasks)})")
    return points


# The proof


def _proof(source: str, original: nn.Module, checkpoint: Checkpoint, removed: str | None, each: int) -> _Proof:
    """Both networks on noise and on grey levels as images have them; each: outputs of a task.

    Raises InputError where they differ.
    """
    import torch

    from chextools.models import inference

    model, size = checkpoint.model, checkpoint.size
    assert model is not None
    differences = {}
    why = "does it draw at random, or keep a state"
    if removed in ("softmax", "log_softmax"):
        why = f"is its {removed} over the {each} outputs of each task"
    for count in _PROOF:
        generator = torch.Generator().manual_seed(count)
        coarse = torch.rand(count, 1, 8, 8, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[:, 0]
        grey = (255 * (0.7 * smooth + 0.3 * torch.rand(count, size, size, generator=generator))).round()
        images = inference.normalise(grey, checkpoint.mean, checkpoint.std)
        with torch.no_grad():
            wanted = _flat_outputs(original(images))
            found = model(images)
            if removed == "sigmoid":
                found = found.sigmoid()
            elif removed and found.shape == wanted.shape:
                found, wanted = found.unflatten(1, (-1, each)).softmax(2), _shares(wanted, each, removed)
        if not torch.isfinite(wanted).all():
            raise InputError(f"{source}: its outputs are not finite numbers: are these its weights?")
        difference = float((found - wanted).abs().max()) if found.shape == wanted.shape else math.inf
        if difference > TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise InputError(
                f"{source}: what was imported differs from the original by {difference:.2g}; nothing is "
                f"written ({why}?)"
            )
        differences[str(count)] = difference
    return _Proof(differences)


def _shares(outputs: torch.Tensor, each: int, kind: str) -> torch.Tensor:
    """Of a softmax over at least the `each` outputs of a task, the share [N, tasks, each] that each has of these."""
    shares = outputs.unflatten(1, (-1, each))
    shares = shares.exp() if kind == "log_softmax" else shares
    return shares / shares.sum(2, keepdim=True).clamp_min(1e-30)


def _flat_outputs(value: Any) -> torch.Tensor:
    import torch

    if isinstance(value, torch.Tensor):
        return value.float().flatten(1)
    parts = value.values() if isinstance(value, dict) else value
    return torch.cat([part.float() for part in parts if isinstance(part, torch.Tensor)], 1)


def _note_methods(proof: _Proof, checkpoint: Checkpoint) -> None:
    """Which saliency methods are defined for the network, and why others are not."""
    from chextools.saliency.methods import METHODS
    from chextools.saliency.network import Network
    from chextools.saliency.settings import MethodSettings

    model = checkpoint.model
    assert model is not None
    network = Network(model, None, checkpoint.by_task())
    for name, method in METHODS.items():
        try:
            if method.needs_layer:
                proof.maps = list(network.check(checkpoint.size, checkpoint.channels))
            MethodSettings(method=name).check(network)
            proof.methods.append(name)
        except InputError as error:
            proof.without[name] = str(error)


def _row(settings: ImportSettings, checkpoint: Checkpoint, removed: str | None, proof: _Proof) -> dict[str, Any]:
    assert checkpoint.traced is not None
    graph = checkpoint.traced[0]
    row: dict[str, Any] = {
        "import": settings.source,
        "arch": checkpoint.arch,
        "tasks": checkpoint.tasks,
        "head": settings.head,
        "removed": removed,
        "size": checkpoint.size,
        "channels": checkpoint.channels,
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        "resize": checkpoint.fit,
        "resize_to": checkpoint.resize_to or None,
        "antialias": checkpoint.resample,
        "interpolation": checkpoint.interpolation,
        "nodes": len(graph.nodes),
        "layer": graph.layer,
        "maps": proof.maps,
        "methods": proof.methods,
        "difference": proof.differences,
    }
    if proof.without:
        row["without"] = proof.without
    if checkpoint.points:
        row["points"] = checkpoint.points
    return row


def _scores(checkpoint: Checkpoint, path: str) -> dict[str, float]:
    """The scores of one image, as chex-predict would give them."""
    import torch

    from chextools.models import inference

    pixels = checkpoint.square.pixels({"image": path})
    model = checkpoint.model
    assert model is not None
    with torch.no_grad():
        output = model(inference.normalise(pixels[None], checkpoint.mean, checkpoint.std))
    found = checkpoint.scores(output)[0].tolist()
    return {task: score for task, score in zip(checkpoint.tasks, found) if math.isfinite(score)}
