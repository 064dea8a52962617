"""What the training of MV-TSN and of the fusion head share: the error of a loss, random generators, mixed precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moclip.errors import ModelError


class LossError(ModelError):
    """The loss is NaN or infinite. `rows` are the clips of the step, as row numbers of the training split."""

    rows: Sequence[int] = ()

    @classmethod
    def at(cls, epoch: int, step: int, rows: Sequence[int], fix: str) -> LossError:
        """Return the error for a step. `epoch` and `step` count from 0."""
        error = cls(f"the loss is NaN or infinite in epoch {epoch + 1}, step {step + 1}", fix=fix)
        error.rows = rows
        return error


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def autocast_type(precision: str, device: torch.device, dense: bool = False) -> torch.dtype:
    """Return the type that a training runs matrix products and convolutions in.

    "auto" is bfloat16 on a GPU that supports it in hardware, and float16 on other GPUs (those of compute capability 7.x
    emulate bfloat16 slowly). On a CPU "auto" is float32, because bfloat16 is faster for some networks and slower for
    others (docs/experiments.md); for a `dense` network, which only has matrix products, it is bfloat16 if the CPU
    has instructions for it. "fp16" is float32 on a CPU.
    """
    cpu = device.type == "cpu"
    if precision == "auto":
        if cpu:
            able = torch.cpu.get_capabilities()
            native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
            precision = "bf16" if dense and native else "fp32"
        else:
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision == "fp32" or (precision == "fp16" and cpu):
        return torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float16
