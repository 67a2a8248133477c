"""Where networks come from: what chex-import is given, as an nn.Module, and what is known of it already.

A file of weights needs an architecture: a name of torchvision, `timm/NAME`, `xrv:NAME` (torchxrayvision), or the user's
own `FILE.py:FUNCTION`. The last runs because the user named it; a file of weights runs nothing (`models.inert`).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chextools.errors import InputError
from chextools.models import architectures, inert, weights
from chextools.models.extras import HF, TIMM, XRV, check_pretrained, need
from chextools.models.tracing import quietly
from chextools.plumbing import usercode
from chextools.tasks import hint

log = logging.getLogger(__name__)

SHOWN = 4


@dataclass
class Source:
    """A network, and what its origin says of it.

    name: what it is, for records. module: in evaluation mode; None of a program. program: of torch.export. outputs: of
    each output its task, "" for none; None where nobody says. size, channels, mean, std: of its input, None likewise.
    points: operating points by task. fit, resample, interpolation: how its own library makes squares. crop_pct: which
    share of the resized image's side its crop takes, as timm calls it; resize_to: that side, for `size`.
    """

    name: str
    module: nn.Module | None = None
    program: Any = None
    outputs: list[str] | None = None
    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    points: dict[str, float] = field(default_factory=dict)
    fit: str | None = None
    resample: str | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    resize_to: int | None = None
    about: dict[str, str] = field(default_factory=dict)

    def resized_to(self, size: int) -> int:
        """To what side images are resized before a square of `size` is taken; 0 where it is taken first."""
        if self.resize_to is not None and size == self.size:
            return self.resize_to
        return 0 if self.crop_pct is None else math.floor(size / self.crop_pct)


def open_source(
    source: str, arch: str | None, outputs: int | None, channels: int | None, size: int | None, download: bool
) -> Source:
    """The network that a SOURCE of chex-import is. Raises InputError, in one line, where there is none.

    arch: whose weights a file holds. outputs: how many it has; None to take what the file has. download: whether
    weights may be fetched.
    """
    if usercode.is_user_code(source):
        return _own(source, outputs)
    if source.startswith(XRV):
        return _xrv(source, download)
    if source.startswith(HF):
        return _transformers(source)
    if source.endswith(".pt2"):
        return _program(source)
    if not os.path.exists(source) and (source.startswith(TIMM) or source in _torchvision()):
        return _pretrained(source, download)
    return _from_weights(source, arch, outputs, channels, size)


def _torchvision() -> Sequence[str]:
    from chextools.models.names import TORCHVISION

    return TORCHVISION


# The user's own


def _own(text: str, outputs: int | None) -> Source:
    module, code = _built(text, outputs)
    return Source(text, module, about={"file": code.path, "sha256": code.sha256})


def _built(text: str, outputs: int | None) -> tuple[nn.Module, usercode.UserCode]:
    """FILE.py:FUNCTION's module. A function with an argument is given how many outputs there are."""
    code, call = usercode.load_function(text)
    given: list[int] = []
    with contextlib.suppress(TypeError, ValueError):
        needed = [
            each
            for each in inspect.signature(code.value).parameters.values()
            if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
        if needed and outputs is None:
            raise InputError(f"{code.path}: {code.name} takes {needed[0].name}: say how many outputs with --tasks")
        given = [outputs] if needed and outputs is not None else []
    module = call(*given)
    while isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        module = module.module
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"{code.path}: {code.name} gives TorchScript, which cannot be traced: give what it was made of"
        )
    if not isinstance(module, nn.Module):
        raise InputError(f"{code.path}: {code.name} gives a {type(module).__name__}, not a torch.nn.Module")
    return module.float().eval(), code


# Other libraries


def _xrv(source: str, download: bool) -> Source:
    need("torchxrayvision", "xrv", source)
    name = source.removeprefix(XRV)
    with quietly():
        from torchxrayvision import models as xrv
        from torchxrayvision import utils

        known: Mapping[str, Any] = xrv.model_urls
        if name not in known or not name.startswith(("densenet", "resnet")):
            usable = [each for each in known if each.startswith(("densenet", "resnet"))]
            raise InputError(f"{source}: unknown{hint(name, usable)}; torchxrayvision has {', '.join(usable)}")
        file = Path(os.path.expanduser(utils.get_cache_dir()), os.path.basename(known[name]["weights_url"]))
        if not file.exists() and not download:
            raise InputError(f"{source}: its weights are not in {file.parent}; --download fetches them")
        try:
            module = xrv.get_model(name)
        except MemoryError:
            raise
        except Exception as error:  # no network, a broken file
            raise InputError(f"{source}: {' '.join(str(error).split())[:200]}") from None
    found = _of_xrv(module, source)
    found.size = 512 if name.startswith("resnet") else 224
    return found


def _of_xrv(module: nn.Module, name: str) -> Source:
    """What torchxrayvision's networks know: their tasks, operating points and input."""
    tasks = [str(task) for task in getattr(module, "pathologies", None) or getattr(module, "targets", [])]
    points = getattr(module, "op_threshs", None)
    found = Source(name, module, channels=1, mean=(0.5,), std=(1 / 2048,), fit="shorter-centre-crop")
    found.resample = "skimage"
    found.outputs = tasks or None
    if isinstance(points, Tensor):
        _fill_points(found, points)
    vars(module).setdefault("_buffers", {})["op_threshs"] = None  # the logits are what is wanted
    vars(module)["apply_sigmoid"] = False
    if hasattr(module, "input_resolution"):
        del module.input_resolution  # it looks at the values of its input, to warn
    return found


def _fill_points(found: Source, points: Tensor) -> None:
    """Operating points of torchxrayvision's outputs; one that was not trained has none, and is none of the tasks."""
    numbers = points.flatten().tolist()
    found.outputs = ["" if math.isnan(p) else task for task, p in zip(found.outputs or (), numbers)] or None
    found.points = {task: p for task, p in zip(found.outputs or (), numbers) if task and 0 < p < 1}


class Logits(nn.Module):
    """A transformers classifier as a function of pixels alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.family = type(model).__name__

    def forward(self, images: Tensor) -> Tensor:
        return self.model(pixel_values=images).logits


def _transformers(source: str) -> Source:
    need("transformers", "hf", source)
    folder = source.removeprefix(HF)
    with quietly():
        from transformers import AutoConfig, AutoModelForImageClassification

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            module = AutoModelForImageClassification.from_pretrained(
                folder, config=config, local_files_only=True, trust_remote_code=False
            )
        except MemoryError:
            raise
        except Exception as error:  # a stranger's folder
            raise InputError(f"{folder}: not an image classifier of transformers: {_first(error)}") from None
    found = Source(source, Logits(module.float().eval()), channels=getattr(config, "num_channels", None))
    labels = getattr(config, "id2label", None) or {}
    names = [labels.get(k, "") for k in range(len(labels))]
    if names and not all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        found.outputs = names
    side = getattr(config, "image_size", None)
    found.size = side if isinstance(side, int) else None
    about = Path(folder) / "preprocessor_config.json"
    if about.exists():
        _fill_from_preprocessor(found, about)
    return found


_OF_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers of Pillow's filters


def _fill_from_preprocessor(found: Source, path: Path) -> None:
    """What transformers' preprocessor_config.json says of how an image becomes an input."""
    import json

    try:
        about = json.loads(path.read_text())
        _fill_scale(found, about)
        if not about.get("do_resize", True):
            return
        size, crop = about.get("size"), about.get("crop_size")
        size = {"height": size} if isinstance(size, int) else size or {}
        taken = (crop.get("height") if isinstance(crop, dict) else crop) if about.get("do_center_crop") else None
        shortest, height = size.get("shortest_edge"), size.get("height")
        share = about.get("crop_pct")  # ConvNeXt's, of sides below 384
        if height is not None and height != size.get("width", height):
            raise InputError(f"{path}: images become {size}: no square")
        if shortest is not None and share is not None and shortest < 384:
            taken, shortest = shortest, int(shortest / share)
        side = taken or height or shortest
        if not isinstance(side, int):
            return
        found.size = side
        found.interpolation = _OF_PILLOW.get(about.get("resample", 2), "bilinear")
        found.fit = "squash" if shortest is None or share is not None and taken is None else "shorter-centre-crop"
        found.resize_to = shortest or height
        if found.fit == "squash" and found.resize_to == side:
            found.resize_to = 0
        found.crop_pct = side / found.resize_to if found.resize_to else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"{path}: not how images are prepared") from None


def _fill_scale(found: Source, about: Mapping[str, Any]) -> None:
    """Mean and std of grey levels in [0, 1], of a factor times grey levels up to 255, less a mean, over a std."""
    factor = float(about.get("rescale_factor", 1 / 255)) if about.get("do_rescale", True) else 1.0
    mean, std = [0.0], [1.0]
    if about.get("do_normalize", True):
        mean, std = about.get("image_mean") or [0.5], about.get("image_std") or [0.5]
    by_255 = round(factor * 255, 9)
    found.mean, found.std = tuple(m / by_255 for m in mean), tuple(s / by_255 for s in std)


_FITS_OF_TIMM = {"center": "shorter-centre-crop", "squash": "squash", "border": "pad"}


def _fill_from_timm(found: Source, module: nn.Module) -> None:
    """What timm's configuration of a network says of how an image becomes an input."""
    about = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    if side := about.get("input_size"):
        found.size = side[-1]
    if len(about.get("mean") or ()) == 3:
        found.mean, found.std = tuple(about["mean"]), tuple(about["std"])
    found.interpolation = str(about.get("interpolation") or "bilinear")
    found.interpolation = found.interpolation if found.interpolation in _OF_PILLOW.values() else "bicubic"
    found.fit = _FITS_OF_TIMM.get(about.get("crop_mode") or "center", "shorter-centre-crop")
    found.crop_pct = about.get("crop_pct") or 0.875
    if found.fit == "pad" or (found.fit == "squash" and found.crop_pct == 1):
        found.crop_pct = None


def _program(path: str) -> Source:
    if not os.path.isfile(path):
        raise InputError(f"{path}: No such file or directory")
    with quietly():
        try:
            program = torch.export.load(path)
        except MemoryError:
            raise
        except Exception as error:  # a stranger's bytes
            raise InputError(f"{path}: not a program of torch.export: {_first(error)}") from None
    return Source(path, program=program)


def _pretrained(name: str, download: bool) -> Source:
    check_pretrained(name, download)
    found = Source(name, size=224)
    try:
        with quietly():
            if name.startswith(TIMM):
                import timm

                module = timm.create_model(name.removeprefix(TIMM), pretrained=True)
                _fill_from_timm(found, module)
            else:
                from torchvision import models

                weights = models.get_model_weights(name).DEFAULT
                module = models.get_model(name, weights=weights)
                _fill_from_torchvision(found, weights.transforms())
    except MemoryError:
        raise
    except Exception as error:  # no network, no such weights
        raise InputError(f"{name}: {_first(error)}") from None
    found.module = module.float().eval()
    return found


def _fill_from_torchvision(found: Source, about: Any) -> None:
    """What torchvision's weights say of how an image becomes an input."""
    found.size, found.resize_to = about.crop_size[0], about.resize_size[0]
    found.crop_pct = found.size / found.resize_to
    found.mean, found.std = tuple(about.mean), tuple(about.std)
    found.fit, found.interpolation = "shorter-centre-crop", about.interpolation.value


# A file of weights


def _from_weights(path: str, arch: str | None, outputs: int | None, channels: int | None, size: int | None) -> Source:
    if arch is None and not os.path.exists(path):
        raise InputError(f"{path}: No such file or directory")
    state, kind = inert.state_dict(path)
    if arch is None:
        what = f"a pickled {kind}" if kind else "a state dict"
        raise InputError(
            f"{path}: {what} does not say what computes: name its architecture with --arch, such as "
            "densenet121, timm/NAME, xrv:densenet121 or FILE.py:FUNCTION"
        )
    found, module = _empty(arch, state, outputs, channels, size)
    fill(module, state, path, arch)
    if arch.startswith(XRV) and (points := state.get("op_threshs")) is not None:
        _fill_points(found, points)
    found.name = path
    found.module = module.float().eval()
    found.about |= {"arch": arch} | ({"class": kind} if kind else {})
    return found


def _empty(
    arch: str, state: Mapping[str, Tensor], outputs: int | None, channels: int | None, size: int | None
) -> tuple[Source, nn.Module]:
    """(what its library knows, a network of an architecture, for weights to be put into)."""
    if usercode.is_user_code(arch):
        module, code = _built(arch, outputs)
        return Source(arch, about={"file": code.path, "sha256": code.sha256}), module
    count = outputs or _last_size(state)
    if count is None:
        raise InputError("how many outputs there are is not known: name them with --tasks")
    if arch.startswith(XRV):
        return _empty_xrv(arch, count)
    architectures.check_name(arch)
    module = architectures.build(arch, count, size or (None if arch.startswith(TIMM) else 224))
    wanted = channels or _first_channels(state) or 3
    found = Source(arch, channels=wanted)
    if arch.startswith(TIMM):
        _fill_from_timm(found, module)
    if wanted != 3:
        _set_channels(module, wanted)
        found.mean = found.std = None
    return found, module


def _empty_xrv(arch: str, outputs: int) -> tuple[Source, nn.Module]:
    need("torchxrayvision", "xrv", arch)
    name = arch.removeprefix(XRV).partition("-")[0]
    with quietly():
        from torchxrayvision import datasets
        from torchxrayvision import models as xrv

        if name in ("densenet121", "DenseNet"):
            found = _of_xrv(module := xrv.DenseNet(num_classes=outputs), arch)
            if outputs != len(datasets.default_pathologies):
                found.outputs = None
            return found, module
    if name in ("resnet50", "resnet101"):
        module = architectures.build(name, outputs)
        _set_channels(module, 1)
        found = Source(arch, channels=1, mean=(0.5,), std=(1 / 2048,), fit="shorter-centre-crop", resample="skimage")
        return found, module
    raise InputError(f"{arch}: torchxrayvision has xrv:densenet121, xrv:resnet50 and xrv:resnet101")


def fill(module: nn.Module, state: Mapping[str, Tensor], path: str, arch: str) -> None:
    """Put weights into a network. Raises InputError unless every one of its weights is there, and has its shape.

    Keys may have a prefix (`module.`, `model.net.`), old names of DenseNets, and a head that is a Sequential of its
    own (`classifier.0.weight`, as CheXNet's).
    """
    own = module.state_dict()
    by_name = weights.matched(state, own)
    for name in own:
        if name not in by_name and (other := _in_sequential(name, state, own[name])):
            by_name[name] = other
    missing = [name for name in own if name not in by_name and not name.endswith("num_batches_tracked")]
    if len(missing) > len(own) // 2:
        raise InputError(
            f"{path}: its weights are not those of {arch}: it has, for example, {next(iter(state))!r}, "
            f"the network {missing[0]!r}"
        )
    wrong = [
        f"{name} is {list(state[by_name[name]].shape)}, not {list(own[name].shape)}"
        for name in own
        if name in by_name and state[by_name[name]].shape != own[name].shape
    ]
    used = set(by_name.values())
    unused = [key for key in state if key not in used and not key.endswith("num_batches_tracked")]
    if missing or wrong:
        problems = [f"{name} is missing" for name in missing] + wrong
        more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        advice = _in_place_of(missing, [f"{key} {list(state[key].shape)}" for key in unused])
        if not missing:
            advice = _of_other_outputs([(state[by_name[name]], own[name]) for name in own if name in by_name])
        raise InputError(f"{path}: its weights do not fit {arch}: {'; '.join(problems[:SHOWN])}{more}{advice}")
    module.load_state_dict({name: state[key] for name, key in by_name.items()}, strict=False)
    if unused:
        log.warning("%s: %d tensors of no use to %s, such as %s", path, len(unused), arch, ", ".join(unused[:SHOWN]))


def _in_place_of(missing: Sequence[str], unused: Sequence[str]) -> str:
    """What a file has instead of weights that are missing."""
    if unused:
        return f"; of no use in it: {', '.join(unused[-SHOWN:])}"
    return "; a backbone without its head?" if len({name.rpartition(".")[0] for name in missing}) == 1 else ""


def _of_other_outputs(pairs: Sequence[tuple[Tensor, Tensor]]) -> str:
    """What to do where the last layer alone differs, and in its outputs alone."""
    differing = [(theirs, own) for theirs, own in pairs if theirs.shape != own.shape]
    counts = {theirs.shape[:1] for theirs, _ in differing}
    if len(counts) != 1 or any(theirs.shape[1:] != own.shape[1:] for theirs, own in differing) or len(differing) > 2:
        return ""
    return f"; it has {differing[0][0].shape[0]} outputs: name the task of each, an empty name for one of no use"


def _in_sequential(name: str, state: Mapping[str, Tensor], own: Tensor) -> str | None:
    """The key of a head's weight where the user's head is a Sequential: `fc.1.weight` for `fc.weight`."""
    path, _, kind = name.rpartition(".")
    pattern = re.compile(rf"(?:.*\.)?{re.escape(path)}\.\d+\.{kind}")
    found = [key for key, value in state.items() if pattern.fullmatch(key) and value.dim() == own.dim()]
    return found[0] if len(found) == 1 else None


def _last_size(state: Mapping[str, Tensor]) -> int | None:
    """How many outputs the last layer has."""
    last = [value for key, value in state.items() if key.endswith("weight") and value.dim() in (2, 4)]
    return last[-1].shape[0] if last else None


def _first_channels(state: Mapping[str, Tensor]) -> int | None:
    first = next((value for value in state.values() if value.dim() == 4), None)
    return None if first is None or first.shape[1] not in (1, 3) else first.shape[1]


def _set_channels(module: nn.Module, channels: int) -> None:
    """Another number of channels for the first convolution."""
    for name, each in module.named_modules():
        if isinstance(each, nn.Conv2d):
            other = nn.Conv2d(
                channels,
                each.out_channels,
                each.kernel_size,  # type: ignore[arg-type]
                each.stride,  # type: ignore[arg-type]
                each.padding,  # type: ignore[arg-type]
                each.dilation,  # type: ignore[arg-type]
                bias=each.bias is not None,
            )
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, other)
            return


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
