"""The cached features of a split's clips, as the fusion head trains on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FusionData:
    """Features of n clips.

    motion : (n, views, M).
    stills : (n, K, P), of unit length.
    labels : (n,).
    """

    motion: Tensor
    stills: Tensor
    labels: Tensor

    def __getitem__(self, rows: slice) -> FusionData:
        return FusionData(self.motion[rows], self.stills[rows], self.labels[rows])

    def to(self, device: torch.device) -> FusionData:
        return FusionData(self.motion.to(device), self.stills.to(device), self.labels.to(device))
