"""What the training of MV-TSN and of the fusion head share: the best epoch, random generators, mixed precision.

The best epoch is chosen on the validation split. No training function gets the test split.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from moclip.errors import ModelError

Row = dict[str, float]
"""Losses and accuracies of an epoch, by name."""

Log = Callable[[Row], None]
"""Called after each epoch with its row: epoch (from 0), train_loss, train_top1, and where there are validation clips
also val_loss and val_top1; if the clips have several labels (`objective.scores`) val_map, too."""


class LossError(ModelError):
    """The loss is NaN or infinite. `rows` are the clips of the step, as row numbers of the training split."""

    rows: Sequence[int] = ()

    @classmethod
    def at(cls, epoch: int, step: int, rows: Sequence[int], fix: str) -> LossError:
        """Return the error for a step. `epoch` and `step` count from 0."""
        error = cls(f"the loss is NaN or infinite in epoch {epoch + 1}, step {step + 1}", fix=fix)
        error.rows = rows
        return error


class BestEpoch:
    """Keeps the weights of the best epoch: the highest val_top1, then the lowest val_loss, then the earliest.

    If rows have val_map, it counts in place of val_top1. Rows without val_top1 are those of a training without
    validation clips. Then the last epoch is kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.row: dict[str, float] = {}
        self.state = copy.deepcopy(model.state_dict())

    def offer(self, row: dict[str, float]) -> None:
        if not self.row or "val_top1" not in row or epoch_rank(row) > epoch_rank(self.row):
            self.row = row
            self.state = copy.deepcopy(self.model.state_dict())

    def restore_into(self, model: nn.Module) -> None:
        model.load_state_dict(self.state)


def epoch_rank(row: Mapping[str, float]) -> tuple[float, float]:
    """Return what is larger for a better epoch: val_map or else val_top1, then the negative val_loss."""
    return row.get("val_map", row["val_top1"]), -row["val_loss"]


def best_of_folds(histories: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Return the best row of the folds' mean: each history holds a fold's rows, one per epoch.

    It is the earliest of the epochs with the highest mean val_top1, or val_map, and among these the lowest mean
    val_loss.
    """
    rows = mean_rows(histories)
    return max(rows, key=epoch_rank)  # the first of equal ones


def mean_rows(histories: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Return the mean of the folds' rows, one per epoch."""
    return [
        {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} for rows in zip(*histories, strict=True)
    ]


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
