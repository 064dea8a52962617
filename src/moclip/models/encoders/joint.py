"""Several encoders side by side, as one: its features are the concatenation of theirs.

Each encoder's feature is scaled to unit length and divided by sqrt(n) for n encoders, so their concatenation has unit
length. A text's feature is the concatenation of its features under the encoders that encode texts, each weighted by
that encoder's scale, and then scaled to unit length. So a score, `scale` times the cosine plus `bias`, is the mean of
the scores of these encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moclip.errors import ModelError
from moclip.models.encoders.base import Encoder, TextEncoder
from moclip.models.encoders.source import EncoderSource
from moclip.store.features import to_unit_length


def join_pictures(features: Sequence[np.ndarray]) -> np.ndarray:
    """Join the features of pictures by each encoder, each (..., width): (..., sum of widths), of unit length."""
    return np.concatenate(
        [to_unit_length(part) / np.sqrt(len(features)) for part in features], axis=-1, dtype=np.float32
    )


class JointEncoder(Encoder):
    """Encoders of single pictures, in the order of `clip.model`, `clip.models`."""

    def __init__(self, source: EncoderSource, device: torch.device, encoders: Sequence[Encoder]) -> None:
        super().__init__(source, device)
        self.encoders = list(encoders)
        if together := [one.source.model for one in encoders if one.pictures_per_feature > 1]:
            what = "it encodes several frames together, so it cannot be joined with other encoders"
            raise ModelError(what, where=together[0], fix="set clip.models=[]")

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return join_pictures([encoder.encode_images(images) for encoder in self.encoders])

    def cost(self) -> dict[str, int]:
        costs = [encoder.cost() for encoder in self.encoders]
        return {name: sum(cost[name] for cost in costs) for name in costs[0]}

    def save(self, folder: Path) -> None:
        """Write each encoder into a folder named by its number."""
        for number, encoder in enumerate(self.encoders):
            encoder.save(folder / str(number))

    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError("each encoder computes its own features")


class JointTextEncoder(JointEncoder, TextEncoder):
    """Encoders of which at least one encodes texts."""

    def __init__(self, source: EncoderSource, device: torch.device, encoders: Sequence[Encoder]) -> None:
        super().__init__(source, device, encoders)
        self.readers = [encoder for encoder in encoders if isinstance(encoder, TextEncoder)]
        # |(scale_1 t_1, scale_2 t_2, ...)| for t_i of unit length; the pictures' parts have the length 1 / sqrt(n)
        length = float(np.linalg.norm([reader.scale for reader in self.readers]))
        self.scale = length * float(np.sqrt(len(encoders))) / len(self.readers)
        self.bias = float(np.mean([reader.bias for reader in self.readers]))
        self.max_tokens = min(reader.max_tokens for reader in self.readers)

    def encode_text(self, texts: Sequence[str], batch: int = 256) -> np.ndarray:
        parts = [
            encoder.scale * to_unit_length(encoder.encode_text(texts, batch))
            if isinstance(encoder, TextEncoder)
            else np.zeros((len(texts), encoder.width), np.float32)
            for encoder in self.encoders
        ]
        return to_unit_length(np.concatenate(parts, axis=1))

    def tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids of each text, those of the encoders in a row."""
        ids = zip(*(reader.tokens(texts) for reader in self.readers), strict=True)
        return [tuple(number for part in parts for number in (*part, -1)) for parts in ids]

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        raise NotImplementedError("each encoder tokenizes its own texts")

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError("each encoder computes its own features")


def join_encoders(source: EncoderSource, device: torch.device, encoders: Sequence[Encoder]) -> JointEncoder:
    """Return encoders as one. `source` names them all."""
    reads = any(isinstance(encoder, TextEncoder) for encoder in encoders)
    return (JointTextEncoder if reads else JointEncoder)(source, device, encoders)
