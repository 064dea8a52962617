"""Fold the batch norms of a frozen network into the convolutions before them, which saves passes over memory.

A batch norm in eval mode multiplies each channel by a constant and adds another. Weights and bias of the convolution
before it can hold both (arXiv 1712.05877, section 3.2). One run of the network shows which convolution comes before
which norm. Another run checks that the result is the same network.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-4  # of the largest output: a thousand times the rounding of a network of fifty layers


@torch.no_grad()
def fold_batch_norms(network: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy with each batch norm folded into the convolution whose output only that norm takes.

    Parameters
    ----------
    network : any module in eval mode that takes one tensor and returns one.
    example : (N, C, H, W), values such as the network sees, on its device.

    Returns
    -------
    nn.Module
        The same outputs except for rounding. Where they differ by more on `example` (another layer uses the
        convolution's output, or its weights are not used as they are), a plain copy.
    """
    result = copy.deepcopy(network)
    names = {module: name for name, module in result.named_modules()}
    for convolution, norm in _foldable_pairs(result, example):
        _fold(convolution, norm)
        parent, _, name = names[norm].rpartition(".")
        setattr(result.get_submodule(parent), name, _activation_of(norm))
    expected, found = network(example), result(example)
    same = bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())  # False with a NaN
    return result if same else copy.deepcopy(network)


def _foldable_pairs(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each norm that runs once, on the unchanged output of one convolution, together with that convolution."""
    outputs: list[tuple[nn.Conv2d, Tensor]] = []  # kept alive: a new tensor could get the identity of a freed one
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def record_output(convolution: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        outputs.append((convolution, output))

    def record_pairs(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        pairs.extend((convolution, norm) for convolution, output in outputs if output is inputs[0])

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(record_output))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(record_pairs))
    network(example)
    for hook in hooks:
        hook.remove()
    convolution_uses = Counter(id(convolution) for convolution, _ in pairs)
    norm_uses = Counter(id(norm) for _, norm in pairs)
    return [pair for pair in pairs if convolution_uses[id(pair[0])] == norm_uses[id(pair[1])] == 1]


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a norm's constants, in double precision, into a convolution's weight and bias."""
    assert norm.running_mean is not None  # see `_foldable_pairs`
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight.double(),
        None if convolution.bias is None else convolution.bias.double(),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        None if norm.weight is None else norm.weight.double(),
        None if norm.bias is None else norm.bias.double(),
    )
    dtype = convolution.weight.dtype
    convolution.weight, convolution.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))


def _activation_of(norm: nn.BatchNorm2d) -> nn.Module:
    """Return the activation that timm's batch norm contains, if any."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()
