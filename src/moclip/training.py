"""What both trainings share: the best epoch and a generator of random numbers for each epoch.

The best epoch is chosen on the validation part of train; no training function ever sees the test split.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from torch import nn

Log = Callable[[dict[str, float]], None]
"""Takes one mapping an epoch: epoch (from 0), train_loss, train_top1, val_loss, val_top1."""


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
