"""What a video costs: parameters and multiply-adds, counted by PyTorch's own counter (half of its FLOPs)."""

from __future__ import annotations

import torch
from torch import nn

from moclip.fusion import Fusion


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-adds of one forward pass."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*inputs)
    return int(counter.get_total_flops() // 2)


def fusion_cost(model: Fusion, stills: int) -> int:
    """Multiply-adds of the head on one video of so many stills."""
    config = model.config
    motion, pictures = torch.zeros(1, config.motion), torch.ones(1, stills, config.picture)
    return multiply_adds(model.eval().cpu(), motion, pictures)
