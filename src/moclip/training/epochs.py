"""The epochs of a training: the row of each, and the choice of the best one, also over folds.

The best epoch is chosen on the validation split. No training function gets the test split.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn  # the report, which reads the rows of epochs, does not need PyTorch

Row = dict[str, float]
"""Losses and accuracies of an epoch, by name."""

Log = Callable[[Row], None]
"""Called after each epoch with its row: epoch (from 0), train_loss, train_top1, and where there are validation clips
also val_loss and val_top1; if the clips have several labels (`objective.scores`) val_map, too."""


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
