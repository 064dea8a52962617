"""Count what a video costs: parameters, and multiply-adds by PyTorch's own counter (half of its FLOPs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from moclip.models.fusion import Fusion
    from moclip.models.mv_tsn import MvTsn


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Count the multiply-adds of one forward pass."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*inputs)
    return int(counter.get_total_flops() // 2)


def fusion_cost(model: Fusion) -> dict[str, int]:
    """Count the parameters of the head, and its multiply-adds on one video."""
    config = model.config
    motion, pictures = torch.zeros(1, config.motion), torch.ones(1, config.frames, config.picture)
    return {
        "parameters": count_parameters(model),
        "multiply_adds": multiply_adds(model.eval().cpu(), motion, pictures),
    }


def segment_cost(model: MvTsn) -> dict[str, int]:
    """Count the parameters of a network, and its multiply-adds on one segment."""
    device = next(model.parameters()).device
    segment = torch.zeros(1, 1, 2 * model.config.stack, model.config.size, model.config.size, device=device)
    return {"parameters": count_parameters(model), "multiply_adds": multiply_adds(model.eval(), segment)}
