"""The configuration of a fusion head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FusionConfig:
    """`motion` and `picture` are the widths of the features; `pooling` of the `frames` stills is one of `POOLINGS`.

    `temperatures` calibrate the logits of each stream (moclip/evaluation/calibration.py). The head itself does not
    depend on them.
    """

    motion: int
    picture: int
    hidden: int
    classes: int
    dropout: float
    pooling: str = "mean"
    frames: int = 1
    temperatures: Mapping[str, float] = field(default_factory=dict)
