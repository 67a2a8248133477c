"""Weights from elsewhere into our networks: which keys fitted is said, and none of the backbone is an error.

Understood are state dicts as they are, inside a training checkpoint (`state_dict`, as Lightning writes it, `model`,
...), with any prefix (`module.`, `model.`, `net.module.`), and with the names that DenseNets had before torchvision 0.3
(`norm.1` for `norm1`). The head is taken over only from our own checkpoint of the same outputs: in any other file,
which output is which task is not known.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chextools.errors import InputError
from chextools.models import architectures

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)

_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_SHOWN = 10


class HoldsMore(InputError):
    """A file of torch.save with objects of classes in it, as trainers write: none is made."""


@dataclass(frozen=True)
class Fit:
    """Keys of the network that were loaded, those that keep what they had, and keys of the file without use."""

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]


def load(model: nn.Module, source: str, arch: str, outputs: Sequence[str] = ()) -> Fit:
    """Load a state dict's file, or torchvision's "imagenet" weights, into `model`, and say which keys fitted.

    outputs: names of the network's outputs, as a checkpoint of ours has them. "imagenet" is downloaded by torch.hub
    unless it is in TORCH_HOME. Raises InputError if the file cannot be read or fits none of the backbone.
    """
    if source == "imagenet":
        state, same_head = _imagenet(arch), False
    else:
        whole = read(source)
        if whole.get("format") and whole.get("arch", arch) != arch:  # ours: others do not say
            raise InputError(f"{source}: a checkpoint of {whole['arch']}, not of {arch}")
        state = state_of(whole, source)
        same_head = bool(outputs) and tuple(whole.get("outputs") or ()) == tuple(outputs)
    fitted = fit(model, state, same_head, source)
    _say(fitted, source)
    return fitted


def read(path: str) -> dict:
    """What torch.save wrote, tensors and plain values only. Raises InputError, in one line, for anything else."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except MemoryError:
        raise
    except Exception as error:  # a stranger's bytes: torch raises nearly anything
        reason = str(error)
        if "WeightsUnpickler" in reason or "weights_only" in reason.lower():
            told = re.search(r"GLOBAL ([\w.]+)", reason)
            asks = f" ({told[1]})" if told else ""
            raise HoldsMore(f"{path}: holds more than tensors and plain values{asks}; it is not loaded") from None
        raise InputError(f"{path}: not a file of torch.save, or truncated") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, not a state dict")
    return found


def state_of(found: Mapping, source: str) -> dict[str, torch.Tensor]:
    """The state dict in what a file holds."""
    import torch

    for key in _NESTED:
        if isinstance(found.get(key), Mapping):
            return state_of(found[key], source)
    state = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise InputError(f"{source}: no state dict in it; it has {', '.join(map(str, list(found)[:5])) or 'nothing'}")
    return state


def fit(model: nn.Module, state: Mapping[str, torch.Tensor], same_head: bool, source: str) -> Fit:
    """Copy every tensor of `state` whose key and shape fit into `model`."""
    own = model.state_dict()
    head = architectures.head(model)[0] + "."
    chosen = {}
    for name, original in matched(state, own).items():
        if same_head or not name.startswith(head):
            value = _fitted(model, name, state[original], own[name])
            if value is not None:
                chosen[name] = (original, value)
    backbone = [name for name in own if not name.startswith(head) and not name.endswith("num_batches_tracked")]
    if not any(name in chosen for name in backbone):
        example = next(iter(state))
        raise InputError(
            f"{source}: none of the backbone's {len(backbone)} weights is in it: it has, for example, "
            f"{example!r}, the network {backbone[0]!r}; another architecture?"
        )
    model.load_state_dict({name: value for name, (_, value) in chosen.items()}, strict=False)
    kept = tuple(name for name in own if name not in chosen and not name.endswith("num_batches_tracked"))
    used = {original for original, _ in chosen.values()}
    return Fit(tuple(chosen), kept, tuple(key for key in state if key not in used))


def matched(state: Mapping[str, torch.Tensor], own: Mapping) -> dict[str, str]:
    """Which key of a file's state dict is each of a network's own, whatever its shape: {own key: the file's}."""
    renamed = {_OLD_DENSENET.sub(r"\1\2", key): key for key in state}
    prefix = _prefix(renamed, own)
    found = {key[len(prefix) :]: original for key, original in renamed.items() if key.startswith(prefix)}
    return {name: original for name, original in found.items() if name in own}


def _prefix(names: Mapping[str, str], own: Mapping) -> str:
    """What stands before most of the network's keys."""
    votes: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        votes.update(".".join([*parts[:i], ""]) if i else "" for i in range(len(parts)) if ".".join(parts[i:]) in own)
    return votes.most_common(1)[0][0] if votes else ""


def _fitted(model: nn.Module, name: str, value: torch.Tensor, own: torch.Tensor) -> torch.Tensor | None:
    if value.shape == own.shape:
        return value
    if name == "encoder.pos_embedding" and value.shape[2:] == own.shape[2:]:  # a ViT made for another image size
        from torchvision.models.vision_transformer import interpolate_embeddings

        try:
            return interpolate_embeddings(model.image_size, model.patch_size, {name: value})[name]
        except ValueError:
            return None
    return None


def _imagenet(arch: str) -> dict[str, torch.Tensor]:
    import torch
    from torchvision import models as torchvision_models

    architectures.check_architecture(arch)
    available = list(torchvision_models.get_model_weights(arch))
    if not available:
        raise InputError(f"torchvision has no ImageNet weights of {arch}")
    log.warning("imagenet: torchvision's weights of %s, kept in %s", arch, torch.hub.get_dir())
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # torch.hub says so, too, whatever --quiet says
            return torchvision_models.get_model_weights(arch).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a file that is not what its name says
        raise InputError(f"imagenet: the weights of {arch} cannot be downloaded: {error}") from None


def _say(fitted: Fit, source: str) -> None:
    total = len(fitted.loaded) + len(fitted.kept)
    log.warning("%s: loaded %d of %d weights", source, len(fitted.loaded), total)
    for what, names in (("not in it, so left as drawn", fitted.kept), ("in it but of no use", fitted.unused)):
        if names:
            more = f", and {len(names) - _SHOWN} more (-v names them)" if len(names) > _SHOWN else ""
            log.warning("%s: %s: %s%s", source, what, ", ".join(names[:_SHOWN]), more)
    log.info("%s: loaded: %s", source, ", ".join(fitted.loaded))
    for names in (fitted.kept, fitted.unused):
        if len(names) > _SHOWN:
            log.info("%s: all of them: %s", source, ", ".join(names))
