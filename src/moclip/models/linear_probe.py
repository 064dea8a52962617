"""A linear probe: one linear layer on a network's frozen features, which says how much of the class they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moclip.models.weights import PROVENANCE, load_weights, save_weights


@dataclass(frozen=True)
class LinearProbe:
    """`weight` (classes, width) and `bias` (classes,), float32; `strength` of the regularisation in its training."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Compute logits (n, classes) float32 of features (n, width)."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)

    def save(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write the weights, and what the probe was trained with."""
        tensors = {"weight": torch.from_numpy(self.weight), "bias": torch.from_numpy(self.bias)}
        save_weights(path, tensors, {"kind": "linear_probe", "strength": self.strength, PROVENANCE: provenance})


def load_linear_probe(path: Path) -> LinearProbe:
    """Load a trained probe. Raises ModelError."""
    tensors, config = load_weights(path, "train_probe")
    return LinearProbe(tensors["weight"].numpy(), tensors["bias"].numpy(), config["strength"])
