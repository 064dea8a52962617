"""Batch norms of a frozen network folded into the convolutions before them: fewer passes over memory, one answer.

A batch norm in eval mode multiplies each channel by a constant and adds another: weights and bias of the convolution
before it can hold both (arXiv 1712.05877, section 3.2). Which convolution comes before which norm is seen from one run
of the network, and whether the result is the same network from another one.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-4  # of the largest output: a thousand times what rounding does to a network of fifty layers


@torch.no_grad()
def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy whose batch norms are folded into the convolutions whose output they alone take.

    Parameters
    ----------
    network : any module in eval mode that takes one tensor and gives one.
    example : (N, C, H, W), values such as the network sees, on its device.

    Returns
    -------
    nn.Module
        The same outputs but for rounding. Where they differ by more on `example` (something else takes a convolution's
        output, or its weights are not used as they are), a plain copy.
    """
    made = copy.deepcopy(network)
    names = {module: name for name, module in made.named_modules()}
    for convolution, norm in _pairs(made, example):
        _fold(convolution, norm)
        parent, _, name = names[norm].rpartition(".")
        setattr(made.get_submodule(parent), name, _rest_of(norm))
    expected, found = network(example), made(example)
    same = bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())  # False with a NaN
    return made if same else copy.deepcopy(network)


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each norm that takes a convolution's output as it is, once and of that convolution alone."""
    outputs: list[tuple[nn.Conv2d, Tensor]] = []  # kept: a tensor that is gone could leave its identity to another
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def leaves(convolution: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        outputs.append((convolution, output))

    def enters(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        found.extend((convolution, norm) for convolution, output in outputs if output is given[0])

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(leaves))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(enters))
    network(example)
    for hook in hooks:
        hook.remove()
    takers = Counter(id(convolution) for convolution, _ in found)
    norms = Counter(id(norm) for _, norm in found)
    return [(c, n) for c, n in found if takers[id(c)] == norms[id(n)] == 1]


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """A norm's constants, in double precision, into a convolution's weight and bias."""

    def exact(values: Tensor | None) -> Any:
        return None if values is None else values.double()

    folded_in = fuse_conv_bn_weights(
        exact(convolution.weight), exact(convolution.bias), exact(norm.running_mean), exact(norm.running_var),
        norm.eps, exact(norm.weight), exact(norm.bias),
    )  # fmt: skip
    dtype = convolution.weight.dtype
    convolution.weight, convolution.bias = (nn.Parameter(values.to(dtype)) for values in folded_in)


def _rest_of(norm: nn.BatchNorm2d) -> nn.Module:
    """What a norm does besides: timm's has the activation in it."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()
