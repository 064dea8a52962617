"""What the fusion heads share: configuration, hidden layer, saving, and settings that are chosen on validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from moclip.data.fusion_data import FusionData
from moclip.errors import ModelError
from moclip.models.heads.config import SETTINGS, FusionConfig
from moclip.models.heads.pooling import POOLINGS
from moclip.models.weights import PROVENANCE, save_weights

MULTI_LABEL = ("label_shifts", "label_thresholds")
"""Keys of a saved head's configuration that are only there with several labels a clip."""

Settings = dict[str, float]


@dataclass(frozen=True)
class HeadInputs:
    """What a new head can be made from.

    text : the classes' text features, (classes, picture) of unit length; None if the encoder has no text tower.
    temperature : the encoder's scale of the cosine. Its bias is left out: it is the same for every class.
    train : the cached features of the training clips.
    options : the keys of the group `fusion` of params.yaml.
    """

    text: Tensor | None
    temperature: float
    train: FusionData
    options: Mapping[str, Any]

    def needed_text(self, option: str) -> Tensor:
        """Return the text features. Raises ModelError that names the option which needs them."""
        if self.text is None:
            what = f"{option} compares with class texts, but clip.model encodes no texts"
            raise ModelError(what, fix="set fusion.head=concat and fusion.blend=false, or clip.model to a CLIP")
        return self.text


class Choice(NamedTuple):
    """Settings that a head can use, and its logits (n, classes) under them. A lower `level` is more cautious."""

    level: float
    settings: Settings
    logits: Tensor


class Dropout(nn.Module):
    """nn.Dropout with uniform random numbers; the Bernoulli ones of nn take a sixth of a training step on a CPU.

    They are drawn from `generator`; None: PyTorch's own, which all threads share.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return values
        kept = torch.empty_like(values).uniform_(generator=self.generator) >= self.rate
        return values * kept.to(values.dtype).div_(1 - self.rate)


class Fusion(nn.Module, ABC):
    """A head: motion features (B, motion) and stills (B, K, picture) of unit length -> logits (B, classes).

    `settings` are numbers that are not trained but chosen on validation among those of `choices`.
    """

    kind: str

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.settings: Settings = {}
        self.pooling = POOLINGS[config.pooling](config)

    @classmethod
    @abstractmethod
    def create(cls, config: FusionConfig, inputs: HeadInputs) -> Self:
        """Make a head that is not trained yet."""

    @classmethod
    def restore(cls, config: FusionConfig, tensors: Mapping[str, Tensor]) -> Self:
        """Make a head that can load saved `tensors`."""
        return cls(config)

    @abstractmethod
    def score(self, motion: Tensor, picture: Tensor) -> Tensor:
        """Compute logits (B, classes) from motion features and pooled stills, (B, picture) of unit length."""

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        return self.score(motion, self.pooling(motion, stills))

    def draw_from(self, generator: torch.Generator) -> None:
        """Draw the random numbers of the dropout from a generator of this head's own."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def score_texts(self, motion: Tensor, stills: Tensor, text: Tensor) -> Tensor | None:
        """Compute the logits (B, C) of other classes from their text features (C, picture); None if it cannot."""
        return None

    def choices(self, motion: Tensor, stills: Tensor) -> Iterator[Choice]:
        """Yield the settings to choose from, with the logits of clips. The first gives zero-shot CLIP's order."""
        yield from ()

    @property
    def trains(self) -> bool:
        """Whether the head has weights to train."""
        return any(weight.requires_grad for weight in self.parameters())

    def calibrate(self, temperatures: Mapping[str, float]) -> None:
        """Keep the temperature of each stream, to be saved with the head."""
        self.config = replace(self.config, temperatures=dict(temperatures))

    def calibrate_labels(
        self,
        temperatures: Mapping[str, float],
        shifts: Mapping[str, float],
        thresholds: Mapping[str, Sequence[float]],
    ) -> None:
        """Keep the temperature, the shift and the classes' thresholds of each stream, for clips with several labels."""
        self.config = replace(
            self.config,
            temperatures=dict(temperatures),
            label_shifts=dict(shifts),
            label_thresholds={stream: list(values) for stream, values in thresholds.items()},
        )

    def probabilities(self, stream: str, logits: Tensor) -> Tensor:
        """Return the calibrated probabilities of a stream's logits (..., classes).

        They add up to 1; with several labels a clip each is by itself.
        """
        if self.config.multi_label:
            shift = self.config.label_shifts.get(stream, 0.0)
            return torch.sigmoid((logits - shift) / self.temperature(stream))
        return torch.softmax(logits / self.temperature(stream), dim=-1)

    def temperature(self, stream: str) -> float:
        """Return the temperature of a stream; 1.0 if the head holds none."""
        return self.config.temperature(stream)

    def save(self, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
        """Write weights, configuration, settings, and what the head was trained with."""
        config = {"kind": self.kind, **asdict(self.config)}
        config = {name: value for name, value in config.items() if value or name not in MULTI_LABEL}
        settings = {SETTINGS: self.settings} if self.settings else {}
        save_weights(path, self.state_dict(), config | settings | ({PROVENANCE: provenance} if provenance else {}))


class HiddenFusion(Fusion):
    """A head with a hidden layer on both features."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.hidden = nn.Linear(config.motion + config.picture, config.hidden)
        self.dropout = Dropout(config.dropout)

    def hidden_activations(self, motion: Tensor, picture: Tensor) -> Tensor:
        """Compute the hidden layer, (B, hidden)."""
        return self.dropout(torch.relu(self.hidden(torch.cat([motion, picture], dim=1))))


def zero_shot_logits(stills: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Compute zero-shot CLIP's logits (B, classes) from stills (B, K, picture) and text (classes, picture)."""
    return temperature * functional.normalize(stills.sum(1), dim=-1) @ text.T
