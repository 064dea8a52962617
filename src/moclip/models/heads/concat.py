"""The head `concat`, the paper's (arXiv 2509.17084).

    concat(motion (B, 1280), picture (B, 512)) -> Linear -> ReLU -> Dropout -> Linear -> logits (B, classes)

With `fusion.blend` its probabilities are mixed with zero-shot CLIP's. The head itself learns nothing of the class
texts, so with few clips it can be worse than zero-shot CLIP; the mixture's weight is chosen on validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from moclip.models.heads.base import Choice, HeadInputs, HiddenFusion, zero_shot_logits
from moclip.models.heads.config import FusionConfig

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the head to choose from; zero-shot CLIP has the rest."""

LEAST_PROBABILITY = 1e-30


class ConcatFusion(HiddenFusion):
    """Head `concat`: 969,829 parameters at 1,280 + 512 features, 512 hidden units and 101 classes.

    With `text` (classes, picture) it can be blended: settings `weight`, of the head, and `temperature`, CLIP's.
    """

    kind = "concat"
    text: Tensor | None

    def __init__(self, config: FusionConfig, text: Tensor | None = None, temperature: float = 1.0) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.hidden, config.classes)
        self.register_buffer("text", text)
        if text is not None:
            self.settings = {"weight": 1.0, "temperature": temperature}

    @classmethod
    def create(cls, config: FusionConfig, inputs: HeadInputs) -> Self:
        if not inputs.options["blend"]:
            return cls(config)
        return cls(config, inputs.needed_text("fusion.blend"), inputs.temperature)

    @classmethod
    def restore(cls, config: FusionConfig, tensors: Mapping[str, Tensor]) -> Self:
        return cls(config, tensors.get("text"))

    def score(self, motion: Tensor, picture: Tensor) -> Tensor:
        """Compute the logits (B, classes) of the head alone."""
        return self.head(self.hidden_activations(motion, picture))

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        logits = super().forward(motion, stills)
        if self.training or self.text is None:
            return logits
        zero_shot = zero_shot_logits(stills, self.text, self.settings["temperature"])
        return _mixed(zero_shot, logits, self.settings["weight"])

    def choices(self, motion: Tensor, stills: Tensor) -> Iterator[Choice]:
        if self.text is None:
            return
        zero_shot = zero_shot_logits(stills, self.text, self.settings["temperature"])
        logits = super().forward(motion, stills)
        for weight in WEIGHTS:
            yield Choice(weight, self.settings | {"weight": weight}, _mixed(zero_shot, logits, weight))


def _mixed(zero_shot: Tensor, logits: Tensor, weight: float) -> Tensor:
    """Mix probabilities, and return the mixture as logits (B, classes)."""
    mixture = (1 - weight) * torch.softmax(zero_shot, dim=1) + weight * torch.softmax(logits, dim=1)
    return mixture.clamp_min(LEAST_PROBABILITY).log()
