"""The cached features of a split's clips, as the fusion head trains on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # not every stage that reads features needs torch, which takes a second to import
    import torch
    from torch import Tensor


def no_stills(clips: int) -> np.ndarray:
    """Return what stands for the still features of clips where there are none: one 0 each, (clips, 1, 1) float32."""
    return np.zeros((clips, 1, 1), np.float32)


@dataclass(frozen=True)
class FusionData:
    """Features of n clips.

    motion : (n, views, M).
    stills : (n, K, P), of unit length.
    labels : (n,), or with several labels a clip (n, classes), 1 for each of them.
    weights : (n,), how much each clip counts in training; None: all the same.
    """

    motion: Tensor
    stills: Tensor
    labels: Tensor
    weights: Tensor | None = None

    def __getitem__(self, rows: slice) -> FusionData:
        weights = None if self.weights is None else self.weights[rows]
        return FusionData(self.motion[rows], self.stills[rows], self.labels[rows], weights)

    def to(self, device: torch.device) -> FusionData:
        weights = None if self.weights is None else self.weights.to(device)
        return FusionData(self.motion.to(device), self.stills.to(device), self.labels.to(device), weights)
