"""Finer last stages: strides of a network's last stages become dilation, so that its maps have more cells.

A stage that halves its maps keeps their side, and what follows looks as far as before by dilated kernels (Yu et al.
2017, "Dilated residual networks"; Chen et al. 2017, "Rethinking atrous convolution"). Weights fit as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chextools.errors import InputError

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_PROBED = 128  # side in pixels of the image that finds where maps are halved


def dilate(model: nn.Module, stages: int, channels: int = 3) -> None:
    """Keep the side of maps where a network halves it for the last times, `stages` of them; changes it in place.

    Raises InputError for a network that halves its maps less often, or by what is no module that is convolution or
    pool, or that takes images of one size only.
    """
    for stage in range(stages):
        halving, after = _last_halving(model, channels)
        if not halving:
            raise InputError(
                f"the last {stages} stages cannot be dilated: the network halves its maps {stage} times only"
            )
        for module in halving:
            _keep_side(model, module)
        for module in halving + after:
            if isinstance(module, nn.Conv2d):
                _double_reach(module, halving)
    _run(model, channels)


def _last_halving(model: nn.Module, channels: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """(the modules that last halve maps, the convolutions that see what they made), in the order in which they run."""
    seen: list[tuple[nn.Module, int, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((module, inputs[0].shape[-1], output.shape[-1]))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, (nn.Conv2d, *_POOLS))]
    try:
        _run(model, channels)
    finally:
        for hook in hooks:
            hook.remove()
    halved = [before for _, before, after in seen if after * 2 in (before, before + 1, before - 1) and after > 1]
    if not halved:
        return [], []
    side = min(halved)
    halving = [module for module, before, after in seen if before == side and after < side]
    return halving, [module for module, before, _ in seen if before < side and isinstance(module, nn.Conv2d)]


def _run(model: nn.Module, channels: int) -> None:
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, channels, _PROBED, _PROBED))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise InputError(f"the last stages cannot be dilated: {' '.join(str(error).split())}") from None
    finally:
        model.train(training)


def _keep_side(model: nn.Module, module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
        return
    window: Any = module.kernel_size
    kernel = window if isinstance(window, int) else window[0]
    kept = nn.Identity() if kernel == 2 else type(module)(kernel, stride=1, padding=kernel // 2)
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is module:
                setattr(parent, name, kept)


def _double_reach(module: nn.Conv2d, halving: list[nn.Module]) -> None:
    """Kernels that run on maps of twice the side look as far as before; the halving one itself looks as it did."""
    if module in halving or max(module.kernel_size) == 1:
        return
    if isinstance(module.padding, str):
        raise InputError(f'the last stages cannot be dilated: a convolution has the padding "{module.padding}"')
    module.dilation = tuple(2 * step for step in module.dilation)
    module.padding = tuple(2 * side for side in module.padding)
