"""A batch that several processes share is still one batch: to batch normalisation, dropout and stochastic depth.

torch.nn.SyncBatchNorm serves GPUs only, and nothing makes processes draw the random numbers of one. Imports torch.
"""

from __future__ import annotations

import torch
from torch import distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Batchwide(TorchFunctionMode):
    """While this is entered, a network that is given rows `mine` of a batch of `n` does with them what it would do
    with them among all: statistics are over all processes, and random numbers are drawn for the whole batch by each,
    from the same seed, of which it uses its own.
    """

    def __init__(self, mine: slice, n: int):
        super().__init__()
        self.mine, self.n, self.rows = mine, n, mine.stop - mine.start
        self._ours = {
            functional.batch_norm: self._batch_norm,
            functional.dropout: self._dropout,
            torch.Tensor.bernoulli_: self._bernoulli,
        }

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self._ours.get(function, function)(*args, **(kwargs or {}))

    def _batch_norm(self, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
        if not training:
            return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        count = x.numel() // x.shape[1] * self.n // self.rows  # values per channel; equal rows have equal many
        if count == 1:
            raise ValueError("Expected more than 1 value per channel when training")
        y, mean, var = _Normalise.apply(x, weight, bias, eps, count)
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
            running_var.mul_(1 - momentum).add_(var, alpha=momentum * count / (count - 1))
        return y

    def _dropout(self, x, p=0.5, training=True, inplace=False):  # noqa: ARG002 - as functional.dropout is called
        if not training or not 0 < p < 1:
            return functional.dropout(x, p, training)
        return x * self._bernoulli(torch.empty_like(x), 1 - p).div_(1 - p)

    def _bernoulli(self, x, *args, **kwargs):
        per_row, rest = divmod(len(x), self.rows) if x.dim() else (0, 0)
        if not per_row or rest:
            return x.bernoulli_(*args, **kwargs)
        whole = x.new_empty(self.n * per_row, *x.shape[1:]).bernoulli_(*args, **kwargs)
        return x.copy_(whole[self.mine.start * per_row : self.mine.stop * per_row])


class _Normalise(torch.autograd.Function):
    """Batch normalisation (Ioffe and Szegedy 2015) of [N, C, ...] by mean and variance over all processes."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps, count):
        """(y, mean, var); count: values per channel in all processes together."""
        mean, var = _Normalise._sum(x) / count, None
        distributed.all_reduce(mean)
        var = _Normalise._sum((_wide(x) - _column(mean, x)).square()) / count
        distributed.all_reduce(var)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.count = count
        ctx.mark_non_differentiable(mean, var)
        return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    def backward(ctx, gradient, *_):
        x, weight, mean, scale = ctx.saved_tensors
        normal = (_wide(x) - _column(mean, x)) * _column(scale, x)
        ours = torch.stack([_Normalise._sum(gradient), _Normalise._sum(_wide(gradient) * normal)])
        everyones = ours / ctx.count
        distributed.all_reduce(everyones)
        change = _wide(gradient) - _column(everyones[0], x) - normal * _column(everyones[1], x)
        change = change * _column(scale if weight is None else scale * weight, x)
        return change.to(x.dtype), None if weight is None else ours[1], None if weight is None else ours[0], None, None

    @staticmethod
    def _sum(x):
        return _wide(x).sum([0, *range(2, x.dim())])


def _wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _column(values, x):
    return values.view(1, -1, *[1] * (x.dim() - 2))
