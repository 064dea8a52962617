"""The fusion head (arXiv 2509.17084): a tiny MLP on the cached features of both frozen streams.

concat(motion (B, 1280), picture (B, 512)) -> Linear -> ReLU -> Dropout -> Linear -> logits (B, classes)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from moclip.weights import load_weights, save_weights


@dataclass(frozen=True)
class FusionConfig:
    motion: int
    picture: int
    hidden: int
    classes: int
    dropout: float


class Fusion(nn.Module):
    """Head `concat`, the paper's: 969,829 parameters at 1,280 + 512 features, 512 hidden units and 101 classes."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(config.motion + config.picture, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, config.classes)

    def forward(self, motion: Tensor, picture: Tensor) -> Tensor:
        """Motion features (B, motion) and unit-length picture features (B, picture) -> logits (B, classes)."""
        hidden = torch.relu(self.hidden(torch.cat([motion, picture], dim=1)))
        return self.head(self.dropout(hidden))

    def save(self, path: Path) -> None:
        save_weights(path, self.state_dict(), {"kind": "fusion", **asdict(self.config)})


def load_fusion(path: Path) -> Fusion:
    """A trained head in eval mode. Raises ModelError."""
    tensors, config = load_weights(path, "train_fusion")
    model = Fusion(FusionConfig(**{key: value for key, value in config.items() if key != "kind"}))
    model.load_state_dict(tensors)
    return model.eval()
