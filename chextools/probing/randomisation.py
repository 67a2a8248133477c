"""Randomisation of weights (Adebayo et al. 2018): a map that stays as it is does not explain what the network learned.

The network's blocks are re-initialised from the last to the first, each time leaving those before as random as they
are (cascading), and then each alone; the method that made the heatmap is run on each network. The value is the mean
over the cascade of Spearman's correlation with the map as it was; "randomisation_end" that with all blocks random,
"randomisation_alone" the mean over blocks alone, and "randomisation_ssim" the mean structural similarity of |m| over
the cascade, each map scaled to its greatest value and upsampled to the network's input. A flat map has no correlation,
and is left out of means.

A block is what its parameters' names have in common, such as layer4.1; weights are drawn as torch initialises layers,
norms become the identity.
"""

from __future__ import annotations

import copy
import math
import threading
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from chextools.errors import InputError
from chextools.metrics.similarity import WINDOW, spearman, ssim
from chextools.models.canonical import Canonical
from chextools.probing.networks import Networks
from chextools.probing.probes import ProbeSettings
from chextools.probing.subject import Curves, Subject, Values, signed
from chextools.saliency.ensembles import Ensemble
from chextools.saliency.network import Network

FEWEST = 8  # blocks: names are compared as far as it takes to have so many
_CARRIED = ("layer_nodes", "family", "default_layer", "outputs")  # what a copy of a graph module forgets


def of_weights(subjects: Sequence[Subject], networks: Networks, settings: ProbeSettings) -> list[tuple[Values, Curves]]:
    """Values and curves of each subject; curves hold Spearman's correlation and SSIM after each block, last first."""
    images = {square: np.stack([subject.images[square] for subject in subjects]) for square in subjects[0].images}
    before = networks.maps(images)
    likeness: dict[str, list[list[np.ndarray]]] = {"cascade": [], "alone": []}  # of each network [subjects, tasks, 2]
    for kind, ensemble in variants(networks, settings.seed):
        after = networks.maps(images, ensemble)
        likeness[kind].append(_likeness(subjects, before, after))
    found = []
    for row, subject in enumerate(subjects):
        values: Values = {
            key: {} for key in ("randomisation", *(f"randomisation_{k}" for k in ("ssim", "end", "alone")))
        }
        curves: Curves = {key: {} for key in ("randomisation", "randomisation_ssim", "randomisation_alone")}
        for place, task in enumerate(subject.tasks):
            cascade, alone = (np.array([each[row][place] for each in likeness[kind]]) for kind in ("cascade", "alone"))
            values["randomisation"][task] = _mean(cascade[:, 0])
            values["randomisation_ssim"][task] = _mean(cascade[:, 1])
            values["randomisation_end"][task] = float(cascade[-1, 0])
            values["randomisation_alone"][task] = _mean(alone[:, 0])
            curves["randomisation"][task], curves["randomisation_ssim"][task] = cascade.T.tolist()
            curves["randomisation_alone"][task] = alone[:, 0].tolist()
        found.append((values, curves))
    return found


def blocks(names: Sequence[str]) -> list[list[str]]:
    """Names of parameters and buffers, in order, by block: modules whose names begin alike."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    depth = 1
    while depth < max((module.count(".") + 1 for module in modules), default=1):
        if len({tuple(module.split(".")[:depth]) for module in modules}) >= FEWEST:
            break
        depth += 1
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(".".join(name.rpartition(".")[0].split(".")[:depth]), []).append(name)
    return list(found.values())


def reinitialised(name: str, tensor: Tensor, sibling: Tensor | None, seed: int) -> Tensor:
    """A parameter or buffer as torch initialises it; sibling: the weight of a bias's own layer.

    Uniform within 1 / sqrt(fan in), as torch's linear and convolution layers (He et al. 2015, with a = sqrt 5); a
    norm's weight and variance are 1, its bias and mean 0.
    """
    leaf = name.rpartition(".")[2]
    weight = tensor if tensor.dim() > 1 else sibling
    if not tensor.is_floating_point():
        return tensor
    if weight is None or weight.dim() < 2:
        return torch.full_like(tensor, 1.0 if leaf in ("weight", "running_var") else 0.0)
    bound = 1 / math.sqrt(max(1, weight[0].numel()))
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    drawn = (torch.rand(tensor.shape, generator=generator) * 2 - 1) * bound
    return drawn.to(tensor).contiguous(memory_format=_format(tensor))


def variants(networks: Networks, seed: int) -> Iterator[tuple[str, Ensemble]]:
    """("cascade" or "alone", the ensemble) of each network with random blocks: last to first, twice.

    They share what they have in common. Raises InputError for an ensemble of networks of several kinds.
    """
    with networks.lock:
        kept = networks.kept.setdefault("variants", None) or _Variants(networks, seed)
        networks.kept["variants"] = kept
    yield from kept


class _Variants:
    """The networks with random blocks, made when first asked for, and kept where methods need nothing else of them."""

    def __init__(self, networks: Networks, seed: int):
        self.networks, self.seed = networks, seed
        self._lock = threading.Lock()
        self._made: dict[int, Ensemble] = {}
        self.members = [networks.ensemble.network_of(member) for member in networks.ensemble.members]
        self.states = [_state(network.model) for network in self.members]
        parts = [blocks(list(state)) for state in self.states]
        if len({len(part) for part in parts}) > 1:
            raise InputError("randomisation is of networks of one architecture: name fewer checkpoints")
        self.parts = [list(reversed(part)) for part in parts]
        self.random = [
            {
                name: reinitialised(name, tensor, state.get(f"{name.rpartition('.')[0]}.weight"), seed + place)
                for name, tensor in state.items()
            }
            for place, state in enumerate(self.states)
        ]

    def __iter__(self) -> Iterator[tuple[str, Ensemble]]:
        count = len(self.parts[0])
        for number in range(2 * count):
            with self._lock:
                made = self._made.get(number) or self._make(number % count, alone=number >= count)
                if not self.networks.ensemble.method.to_input:  # else each would keep a folded copy of its weights
                    self._made[number] = made
            yield ("alone" if number >= count else "cascade"), made

    def _make(self, last: int, alone: bool) -> Ensemble:
        made = []
        for network, parts, drawn in zip(self.members, self.parts, self.random):
            names = [name for part in (parts[last : last + 1] if alone else parts[: last + 1]) for name in part]
            model = replaced(network.model, {name: drawn[name] for name in names})
            made.append(Network(model, self.networks.ensemble.layer, network.columns))
        return self.networks.altered(made)


def replaced(model: Canonical, tensors: dict[str, Tensor]) -> Canonical:
    """A copy of a network that shares its weights, but for those that are given by name."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    clone = copy.deepcopy(model, shared)
    for name in _CARRIED:
        if hasattr(model, name):
            setattr(clone, name, getattr(model, name))
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        module = clone.get_submodule(path)
        if leaf in module._parameters:  # noqa: SLF001 - no public way sets a tensor without copying into the shared one
            setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))
        else:
            setattr(module, leaf, tensor)
    return clone.eval()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, module by module, in the order of the graph where modules stand in it."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    order = {name: place for place, name in enumerate(_in_order(model))}
    return dict(sorted(tensors.items(), key=lambda item: order.get(item[0].rpartition(".")[0], -1)))


def _in_order(model: nn.Module) -> list[str]:
    graph = getattr(model, "graph", None)
    return [] if graph is None else [str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")]


def _likeness(subjects: Sequence[Subject], before: np.ndarray, after: np.ndarray) -> list[np.ndarray]:
    """Of each subject float64 [tasks, 2]: Spearman's correlation and SSIM."""
    found = []
    for row, subject in enumerate(subjects):
        rows = []
        for column in subject.columns:
            own, other = (signed(maps[row, column], subject.sign) for maps in (before, after))
            is_flat = own.min() == own.max()
            alike = float("nan") if is_flat else ssim(_scaled(own, subject.size), _scaled(other, subject.size))
            rows.append((spearman(own, other), alike))
        found.append(np.array(rows, np.float64))
    return found


def _scaled(values: np.ndarray, size: int) -> np.ndarray:
    """|m| over its greatest value, at the input's pixels."""
    values = np.abs(values)
    shape = (max(size, WINDOW), max(size, WINDOW))
    larger = functional.interpolate(torch.from_numpy(values)[None, None], shape, mode="bilinear")[0, 0].numpy()
    greatest = larger.max()
    return larger / greatest if greatest > 0 else larger


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _format(tensor: Tensor) -> torch.memory_format:
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
