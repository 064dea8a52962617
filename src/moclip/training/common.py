"""What both trainings share: the best epoch, a random generator for each epoch, mixed precision.

The best epoch is chosen on the validation part of train; no training function ever sees the test split.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from moclip.errors import ModelError

Log = Callable[[dict[str, float]], None]
"""Takes one mapping an epoch: epoch (from 0), train_loss, train_top1, val_loss, val_top1."""


class LossError(ModelError):
    """The loss is no longer a number; `rows` are the clips of the step, by their numbers in the training split."""

    rows: Sequence[int] = ()

    @classmethod
    def at(cls, epoch: int, step: int, rows: Sequence[int], fix: str) -> LossError:
        """`epoch` and `step` count from 0."""
        error = cls(f"the loss is no longer a number in epoch {epoch + 1}, step {step + 1}", fix=fix)
        error.rows = rows
        return error


class BestEpoch:
    """Keeps the weights of the best epoch: highest val_top1, of equals the lowest val_loss, then the earliest."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.row: dict[str, float] = {}
        self.state = copy.deepcopy(model.state_dict())

    def offer(self, row: dict[str, float]) -> None:
        rank = (row["val_top1"], -row["val_loss"])
        if not self.row or rank > (self.row["val_top1"], -self.row["val_loss"]):
            self.row = row
            self.state = copy.deepcopy(self.model.state_dict())

    def restore(self) -> None:
        self.model.load_state_dict(self.state)


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def autocast_type(precision: str, device: torch.device, dense: bool = False) -> torch.dtype:
    """The type that matrix products and convolutions of a training run in.

    "auto" is bfloat16 on a GPU that calculates in it and float16 on another: one of compute capability 7.x emulates
    bfloat16, slowly. On a CPU "auto" is float32: bfloat16 is faster there for some networks and slower for others
    (docs/experiments.md). A `dense` network, of matrix products alone, gains wherever the CPU multiplies bfloat16
    itself, and has it there. "fp16" is float32 on a CPU.
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
