"""One batch on several devices, as if it were on one: what a training loop exchanges between its processes.

All processes draw the same random numbers and each works on its own rows of every batch. What depends on the whole
batch is made the same everywhere: BatchNorm's statistics, dropout's mask, the sums of losses and gradients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from moclip.training.distributed import World


def sum_gradients(world: World, parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all ranks, in one exchange."""
    if world.size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    summed = world.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, summed.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agree(world: World, text: str, device: torch.device) -> bool:
    """Whether all ranks say the same `text`."""
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    said = world.gather(torch.tensor(digest, device=device))
    return bool((said == digest).all())


def own_or_blank(own: Tensor) -> Tensor:
    """`own` (n, ...), or one row of zeros where it has none: a rank without work takes part in the exchanges too."""
    return own if len(own) else own.new_zeros(1, *own.shape[1:])


def global_batch(world: World, clips: int, segments: int, device: torch.device) -> AbstractContextManager[object]:
    """Meanwhile a network in training that is given `own_or_blank` of its rank's share of `clips` sees all of them.

    That goes for BatchNorm and dropout, and for the backward pass of what was calculated meanwhile. Each clip is
    `segments` rows of a layer's input, or a multiple of that.
    """
    return nullcontext() if world.size == 1 else _GlobalBatch(world, clips, segments, device)


class _GlobalBatch(TorchFunctionMode):
    """Gives layers that call PyTorch's BatchNorm and dropout those of the global batch instead."""

    def __init__(self, world: World, clips: int, segments: int, device: torch.device) -> None:
        super().__init__()
        self.world = world
        own = world.share(slice(0, clips))
        self.blank = own.start == own.stop
        self.rows, self.own = clips * segments, slice(own.start * segments, (own.stop + self.blank) * segments)
        parts = [(share.stop - share.start) / clips for share in world.shares(slice(0, clips))]
        self.parts = torch.tensor(parts, device=device)[:, None]  # of the batch, that each rank has

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        if func is functional.dropout:
            return self._dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As `functional.batch_norm`. Without running statistics it is none of a batch: NFNets use it on weights."""
        if not training or running_mean is None or running_var is None:
            return functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        mean, var = self._statistics(x)
        count = self.count(x)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (count / (count - 1)), momentum)
        return _Normalise.apply(x, weight, bias, mean, var, eps, self)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """As `functional.dropout`: this rank's rows of the mask that one process would draw."""
        if not training or p == 0:
            return x
        return x * functional.dropout(x.new_ones(self.rows, *x.shape[1:]), p)[self.own]

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each channel over all ranks, (C,) each, from those of each rank."""
        over, values = _but_channels(x), _precise(x)
        mean = values.mean(over)
        own = torch.stack([mean, (values - _wide(mean, x)).square().mean(over)])
        means, variances = self.world.gather(own).unbind(1)
        mean = (self.parts * means).sum(0)
        return mean, (self.parts * (variances + (means - mean).square())).sum(0)

    def count(self, x: Tensor) -> int:
        """Values a channel of `x`, over all ranks."""
        return x.numel() // x.shape[1] * self.rows // (self.own.stop - self.own.start)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, where `mean` and `var` are functions of all ranks' x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        eps: float,
        batch: _GlobalBatch,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.batch = batch
        return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        given, centred = _precise(gradients[0]), _precise(x) - _wide(mean, x)
        over = _but_channels(x)
        own = torch.stack([(given * centred).sum(over) * scale, given.sum(over)])
        of_weight, of_bias = ctx.batch.world.sum_(own.clone()) / ctx.batch.count(x)
        back = given - _wide(of_bias, x) - centred * _wide(of_weight * scale, x)
        back *= _wide(scale if weight is None else scale * weight, x)
        if ctx.batch.blank:
            back.zero_()  # no part of the mean: what the other ranks' rows did is not its doing
        of_parameters = (None, None) if weight is None else (own[0], own[1])
        return back.to(x.dtype), *of_parameters, None, None, None, None


def _precise(x: Tensor) -> Tensor:
    """`x` in float32 at least: a sum of many bfloat16 is none."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    """(C,) so that it meets the channels of `x`, (N, C, ...)."""
    return channels.view(-1, *[1] * (x.ndim - 2))
