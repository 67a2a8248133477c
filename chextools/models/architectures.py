"""Networks: any classification model of torchvision, by its name, with a head of as many outputs as asked for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from typing import TYPE_CHECKING, Any

from chextools.errors import InputError, MissingExtra
from chextools.models import names
from chextools.tasks import hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

# Auxiliary heads serve training on ImageNet only; with them these two return tuples when training.
_EXTRA = {"inception_v3": {"aux_logits": False}, "googlenet": {"aux_logits": False}}


_TIMM = "timm/"  # before the names of timm's models, such as the study's inception_v4


def classifiers() -> list[str]:
    """Names that `build` knows."""
    from torchvision import models

    return models.list_models(module=models)


def check_name(arch: str) -> None:
    """`check_architecture`, as far as it can be known without importing torchvision: a newer one may know more."""
    if arch.startswith(_TIMM):
        _check_timm(arch)
    elif arch not in names.TORCHVISION and _installed("torchvision") <= names.VERSION:
        raise _unknown(arch, names.TORCHVISION)


def check_architecture(arch: str) -> None:
    """Raise InputError, with the closest name, for one that torchvision does not know."""
    if arch.startswith(_TIMM):
        _timm(arch)
    elif arch not in (known := classifiers()):
        raise _unknown(arch, known)


def _unknown(arch: str, known: Sequence[str], whose: str = "classifier of torchvision") -> InputError:
    return InputError(f"unknown architecture {arch!r}{hint(arch.removeprefix(_TIMM), known)}; expected a {whose}")


def _installed(package: str) -> tuple[int, ...]:
    """Major and minor version; of a package that is not installed that of a future one, so that its import speaks."""
    try:
        return tuple(map(int, re.findall(r"\d+", importlib.metadata.version(package))[:2]))
    except importlib.metadata.PackageNotFoundError:
        return (1 << 20,)


def build(arch: str, outputs: int, size: int | None = 224) -> nn.Module:
    """A network from images [N, 3, size, size] to [N, outputs], its weights drawn from torch's random state.

    Only transformers care for `size`, the side of the images in pixels; None for timm's own. State-dict keys are
    torchvision's. Raises InputError for an unknown name, or for a size that the network cannot take.
    """
    from torchvision import models

    check_architecture(arch)
    if arch.startswith(_TIMM):
        return _of_timm(arch, outputs, size)
    options: dict = dict(_EXTRA.get(arch, {}), num_classes=outputs)
    if arch in _EXTRA:
        options["init_weights"] = True
    if arch.startswith("vit_"):
        options["image_size"] = size
    if arch.startswith("maxvit_"):
        options["input_size"] = (size, size)
    try:
        return models.get_model(arch, weights=None, **options)
    except (AssertionError, ValueError) as error:
        raise InputError(f"{arch} cannot take images of {size} x {size}: {' '.join(str(error).split())}") from None


def _of_timm(arch: str, outputs: int, size: int | None) -> nn.Module:
    timm, name = _timm(arch), arch.removeprefix(_TIMM)
    made = timm.create_model(name, num_classes=outputs)
    embed = getattr(made, "patch_embed", None)
    if size is None or getattr(embed, "img_size", None) in (None, (size, size)):
        return made
    try:  # a transformer of other images than its own
        return timm.create_model(name, num_classes=outputs, img_size=size)
    except TypeError:
        return made
    except (AssertionError, ValueError, RuntimeError) as error:
        raise InputError(f"{arch} cannot take images of {size} x {size}: {' '.join(str(error).split())}") from None


def build_empty(arch: str, outputs: int, size: int, state: dict[str, torch.Tensor]) -> nn.Module:
    """The network with the weights of a state dict, without the time it takes to draw others first.

    Raises InputError if the keys or shapes differ.
    """
    import torch

    try:
        with torch.device("meta"):
            model = build(arch, outputs, size)
    except NotImplementedError:  # RegNets read their own weights as they are made
        model = build(arch, outputs, size)
    try:
        model.load_state_dict(state, assign=True)
        stray = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
        if stray:
            model = build(arch, outputs, size)
            model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError):
        raise InputError(f"its weights are not those of {arch} with {outputs} outputs at {size} pixels") from None
    return model


def _timm(arch: str) -> Any:
    """The module timm. Raises MissingExtra where it is not installed, InputError for a name that it does not know."""
    _check_timm(arch)
    import timm

    known = timm.list_models()
    if arch.removeprefix(_TIMM) not in known:
        raise _unknown(arch, known, "model of timm")
    return timm


def _check_timm(arch: str) -> None:
    if importlib.util.find_spec("timm") is None:
        raise MissingExtra(f"{arch} needs timm: pip install 'chextools[timm]'")


def head(model: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the layer whose outputs are the network's: the last that is linear or a convolution."""
    from torch import nn

    return [(name, module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
