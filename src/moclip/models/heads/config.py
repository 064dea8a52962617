"""The configuration of a fusion head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moclip.models.weights import network_config, read_config

SETTINGS = "settings"
"""Key of a saved head's configuration: the settings that were chosen on validation."""


@dataclass(frozen=True)
class FusionConfig:
    """`motion` and `picture` are the widths of the features; `pooling` of the `frames` stills is one of `POOLINGS`.

    `temperatures` calibrate the logits of each stream (moclip/evaluation/calibration.py). The head itself does not
    depend on them. With several labels a clip, `label_shifts` are what is subtracted of a stream's logits before, and
    `label_thresholds` the probability of each class from which on it is predicted (moclip/evaluation/multi_label.py).
    """

    motion: int
    picture: int
    hidden: int
    classes: int
    dropout: float
    pooling: str = "mean"
    frames: int = 1
    temperatures: Mapping[str, float] = field(default_factory=dict)
    label_shifts: Mapping[str, float] = field(default_factory=dict)
    label_thresholds: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        """Whether clips have several labels, each with a probability of its own."""
        return bool(self.label_thresholds)

    def temperature(self, stream: str) -> float:
        """Return the temperature of a stream; 1.0 if there is none."""
        return self.temperatures.get(stream, 1.0)


def read_head_config(path: Path) -> FusionConfig:
    """Read the configuration of a saved head, without importing PyTorch. Raises ModelError."""
    return head_config(read_config(path, "train_fusion"))


def head_config(saved: Mapping[str, Any]) -> FusionConfig:
    """Return the configuration of a head from all that its file says."""
    return FusionConfig(**{key: value for key, value in network_config(saved).items() if key != SETTINGS})
