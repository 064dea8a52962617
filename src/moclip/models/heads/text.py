"""The head `text` scores a class by the CLIP feature of its name, so it can also score classes it was not trained on.

    u = picture + s * Linear(Dropout(ReLU(Linear(concat(motion, picture)))))
    logits = temperature * cosine(u, text) + s * Linear(motion) @ text^T

The last term is the motion stream's residual, which maps motion alone into the space of the class names. Both added
terms are zero before training, so the head starts as zero-shot CLIP (arXiv 2103.00020, section 3.1.2). The scale s is
1 in training. Afterwards it is chosen on validation; at 0 the head is zero-shot CLIP again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from moclip.models.heads.base import Choice, HeadInputs, HiddenFusion
from moclip.models.heads.config import FusionConfig

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Scales of the learnt parts to choose from."""


class TextFusion(HiddenFusion):
    """Head `text`. Its buffer `text` (classes, picture) holds the classes' text features, of unit length.

    Settings: `scale` of all that is learnt, and `temperature`, CLIP's, which a scale of 0 brings back.
    """

    kind = "text"
    text: Tensor

    def __init__(self, config: FusionConfig, text: Tensor, temperature: float) -> None:
        super().__init__(config)
        self.settings = {"scale": 1.0, "temperature": float(temperature)}
        self.register_buffer("text", text)
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())
        self.projection = nn.Linear(config.hidden, config.picture)
        self.residual = nn.Linear(config.motion, config.picture, bias=False)
        for layer in (self.projection, self.residual):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.projection.bias)

    @classmethod
    def create(cls, config: FusionConfig, inputs: HeadInputs) -> Self:
        return cls(config, inputs.needed_text("fusion.head: text"), inputs.temperature)

    @classmethod
    def restore(cls, config: FusionConfig, tensors: Mapping[str, Tensor]) -> Self:
        return cls(config, tensors["text"], 1.0)

    def score(self, motion: Tensor, picture: Tensor) -> Tensor:
        return self._scaled_score(motion, picture, self.text)

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        return self.score_texts(motion, stills, self.text)

    def score_texts(self, motion: Tensor, stills: Tensor, text: Tensor) -> Tensor:
        picture, scale = self.pooling(motion, stills), self.settings["scale"]
        if self.pooling.learns and scale < 1:
            mean = functional.normalize(stills.sum(1), dim=-1)
            picture = functional.normalize(torch.lerp(mean, picture, scale), dim=-1)
        return self._scaled_score(motion, picture, text)

    def choices(self, motion: Tensor, stills: Tensor) -> Iterator[Choice]:
        chosen = self.settings
        for scale in SCALES:
            self.settings = chosen | {"scale": scale}
            yield Choice(scale, self.settings, self(motion, stills))
        self.settings = chosen

    def _scaled_score(self, motion: Tensor, picture: Tensor, text: Tensor) -> Tensor:
        scale = self.settings["scale"]
        learnt = self.projection(self.hidden_activations(motion, picture))
        fused = functional.normalize(picture + scale * learnt, dim=-1)
        log_temperature = scale * self.log_temperature + (1 - scale) * math.log(self.settings["temperature"])
        return (log_temperature.exp() * fused + scale * self.residual(motion)) @ text.T
