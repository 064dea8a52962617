"""The fusion heads: small networks on the stored features of both frozen streams.

`concat` is the paper's (arXiv 2509.17084):

    concat(motion (B, 1280), picture (B, 512)) -> Linear -> ReLU -> Dropout -> Linear -> logits (B, classes)

`text` scores a class by the CLIP feature of its name, so it can also score classes it was not trained on:

    u = picture + Linear(Dropout(ReLU(Linear(concat(motion, picture)))))
    logits = temperature * cosine(u, text) + Linear(motion) @ text^T

The last term is the motion stream's residual, which maps motion alone into the space of the class names. Both added
terms are zero before training, so the head starts as zero-shot CLIP (arXiv 2103.00020, section 3.1.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moclip.models.weights import PROVENANCE, load_weights, network_config, save_weights


@dataclass(frozen=True)
class FusionConfig:
    """`motion` and `picture` are the widths of the features; `pooling` of the stills is "mean" or "attention".

    `temperatures` calibrate the logits of each stream (moclip/evaluation/calibration.py). The head itself does not
    depend on them.
    """

    motion: int
    picture: int
    hidden: int
    classes: int
    dropout: float
    pooling: str = "mean"
    temperatures: Mapping[str, float] = field(default_factory=dict)


class Pooling(nn.Module):
    """Pool the stills of a clip, (B, K, P) of unit length, into one feature of unit length, (B, P).

    "mean" gives them equal weight. "attention" weights still k by softmax_k((q + W motion) . still_k), so the motion
    chooses the stills. q and W are zero before training, which gives the mean.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.attends = config.pooling == "attention"
        if self.attends:
            self.query = nn.Linear(config.motion, config.picture)
            nn.init.zeros_(self.query.weight)
            nn.init.zeros_(self.query.bias)

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        if not self.attends:
            return functional.normalize(stills.sum(1), dim=-1)
        weights = torch.softmax(torch.einsum("bp,bkp->bk", self.query(motion), stills), dim=1)
        return functional.normalize(torch.einsum("bk,bkp->bp", weights, stills), dim=-1)


class Dropout(nn.Module):
    """nn.Dropout with uniform random numbers; the Bernoulli ones of nn take a sixth of a training step on a CPU."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return values
        kept = torch.rand_like(values) >= self.rate
        return values * kept.to(values.dtype).div_(1 - self.rate)


class Fusion(nn.Module, ABC):
    """A head: motion features (B, motion) and stills (B, K, picture) of unit length -> logits (B, classes)."""

    kind: str

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.pooling = Pooling(config)
        self.hidden = nn.Linear(config.motion + config.picture, config.hidden)
        self.dropout = Dropout(config.dropout)

    @abstractmethod
    def score(self, motion: Tensor, picture: Tensor) -> Tensor:
        """Compute logits (B, classes) from motion features and pooled stills, (B, picture) of unit length."""

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        return self.score(motion, self.pooling(motion, stills))

    def hidden_activations(self, motion: Tensor, picture: Tensor) -> Tensor:
        """Compute the hidden layer, (B, hidden)."""
        return self.dropout(torch.relu(self.hidden(torch.cat([motion, picture], dim=1))))

    def calibrate(self, temperatures: Mapping[str, float]) -> None:
        """Keep the temperature of each stream, to be saved with the head."""
        self.config = replace(self.config, temperatures=dict(temperatures))

    def temperature(self, stream: str) -> float:
        """Return the temperature of a stream; 1.0 if the head holds none."""
        return self.config.temperatures.get(stream, 1.0)

    def save(self, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
        """Write weights, configuration, and what the head was trained with."""
        config = {"kind": self.kind, **asdict(self.config)}
        save_weights(path, self.state_dict(), config | ({PROVENANCE: provenance} if provenance else {}))


class ConcatFusion(Fusion):
    """Head `concat`: 969,829 parameters at 1,280 + 512 features, 512 hidden units and 101 classes."""

    kind = "concat"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.hidden, config.classes)

    def score(self, motion: Tensor, picture: Tensor) -> Tensor:
        return self.head(self.hidden_activations(motion, picture))


class TextFusion(Fusion):
    """Head `text`. Its buffer `text` (classes, picture) holds the classes' text features, of unit length."""

    kind = "text"
    text: Tensor

    def __init__(self, config: FusionConfig, text: Tensor, temperature: float) -> None:
        super().__init__(config)
        self.register_buffer("text", text)
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())
        self.projection = nn.Linear(config.hidden, config.picture)
        self.residual = nn.Linear(config.motion, config.picture, bias=False)
        for layer in (self.projection, self.residual):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.projection.bias)

    def score(self, motion: Tensor, picture: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits (B, classes); with `text` (C, picture) those of other classes, (B, C)."""
        text = self.text if text is None else text
        fused = functional.normalize(picture + self.projection(self.hidden_activations(motion, picture)), dim=-1)
        return (self.log_temperature.exp() * fused + self.residual(motion)) @ text.T


def load_fusion(path: Path) -> Fusion:
    """Load a trained head in eval mode. Raises ModelError."""
    tensors, saved = load_weights(path, "train_fusion")
    config = FusionConfig(**network_config(saved))
    model = TextFusion(config, tensors["text"], 1.0) if saved["kind"] == "text" else ConcatFusion(config)
    model.load_state_dict(tensors)
    return model.eval()
