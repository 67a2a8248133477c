"""Learning rates by layer: a trunk that learns more slowly than the head, the earlier the slower, or not at all.

Layer-wise rates keep what was learned elsewhere (Howard and Ruder 2018, "Universal language model fine-tuning").
Imports torch.
"""

from __future__ import annotations

import torch
from torch import nn

from chextools.models import architectures


def freeze_trunk(model: nn.Module) -> list[nn.Module]:
    """Let nothing but the head learn; the modules whose running statistics are to be kept as well, by `eval()`."""
    head = architectures.head(model)[1]
    model.requires_grad_(False)
    head.requires_grad_(True)
    return [module for module in model.modules() if module is not head and hasattr(module, "running_mean")]


def groups(model: nn.Module, lr: float, trunk: float, decay: float, size: int) -> list[dict]:
    """The groups that torch's optimisers take, with the rate of each: of all that can learn, in one or by layer.

    The head has `lr`, the layer before it `lr * trunk`, the first layer `lr * trunk * decay`, and those between fall
    geometrically with their place in the order in which layers with weights see an image of `size` pixels.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if trunk == decay == 1:
        return [{"params": learning, "lr": lr}]
    places = _places(model, size) if decay != 1 else {name: 0 for name, _ in model.named_parameters()}
    head = {id(parameter) for parameter in architectures.head(model)[1].parameters()}
    order = sorted({places[name] for name, parameter in model.named_parameters() if id(parameter) not in head})
    found: dict[int | None, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        place = None if id(parameter) in head else order.index(places[name])
        depth = 0.0 if place is None or len(order) < 2 else 1 - place / (len(order) - 1)
        rate = lr if place is None else lr * trunk * decay**depth
        found.setdefault(place, {"params": [], "lr": rate})["params"].append(parameter)
    return list(found.values())


def _places(model: nn.Module, size: int) -> dict[str, int]:
    """The place of each parameter's module in the order in which they are called; of one that is not its folder's."""
    order: dict[str, int] = {}
    paths = {module: path for path, module in model.named_modules()}

    def note(module: nn.Module, _: object) -> None:
        order.setdefault(paths[module], len(order))

    hooks = [module.register_forward_pre_hook(note) for module in paths]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {name: _place(order, name.rpartition(".")[0]) for name, _ in model.named_parameters()}


def _place(order: dict[str, int], path: str) -> int:
    while path and path not in order:
        path = path.rpartition(".")[0]
    return order.get(path, 0)
