"""What all encoders share. A family is a subclass in a file of its own, listed in `registry`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from moclip.models.encoders.preparing import Preparer
from moclip.models.encoders.source import EncoderSource
from moclip.models.text_scores import text_scores
from moclip.store.features import to_unit_length

BLANK = np.zeros((32, 32, 3), np.uint8)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def picked_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of the weights for `clip.precision`; auto: float16 on a GPU, float32 on a CPU."""
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return PRECISIONS[precision]


class Encoder(ABC):
    """A frozen network that turns pictures into features, in eval mode on `device`.

    Subclasses load `model` and pass it to `_place`, and set `preparer`.
    """

    pictures_per_feature = 1
    """How many pictures of a clip go through the network together and give one feature."""

    text_parts: tuple[str, ...] = ()
    """First parts of the names of weights that are not the image tower's."""

    model: nn.Module

    preparer: Preparer
    """Turns pictures into what the image tower takes."""

    def __init__(self, source: EncoderSource, device: torch.device) -> None:
        self.source, self.device = source, device
        self.dtype = picked_precision(source.precision, device)

    def _place(self, model: nn.Module) -> None:
        self.model = model.to(self.device, self.dtype).eval().requires_grad_(False)

    @abstractmethod
    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        """Compute the features (n, width) of prepared pictures."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the encoder into a folder in its hub's format; `load_encoder` loads it from there."""

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the features of RGB pictures, each (h, w, 3) uint8 of any size, not normalised.

        Returns (n, width) float32, a row for every `pictures_per_feature` pictures.
        """
        return self.encode_prepared(self.preparer(images))

    def encode_prepared(self, prepared: Mapping[str, Tensor]) -> np.ndarray:
        """Compute the features (n, width) float32 of pictures that `preparer` prepared, not normalised."""
        with torch.inference_mode():
            return self.picture_features(self._placed(prepared)).float().cpu().numpy()

    @cached_property
    def width(self) -> int:
        """Dimension of the features."""
        return int(self.encode_images([BLANK] * self.pictures_per_feature).shape[1])

    def cost(self) -> dict[str, int]:
        """Count the parameters of the image tower, and its multiply-adds for one picture."""
        from torch.nn.attention import SDPBackend, sdpa_kernel  # for a count only
        from torch.utils.flop_counter import FlopCounterMode

        prepared = self._placed(self.preparer([BLANK] * self.pictures_per_feature))
        # the counter does not know the CPU's fused attention
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.picture_features(prepared)
        adds = int(counter.get_total_flops()) // 2 // self.pictures_per_feature
        return {"parameters": self.image_parameters(), "multiply_adds": adds}

    def image_parameters(self) -> int:
        """Count the parameters of the image tower."""
        named = self.model.named_parameters()
        return sum(weight.numel() for name, weight in named if not name.startswith(self.text_parts))

    def _placed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move inputs to the device; those that are not whole numbers get the type of the weights."""
        return {
            name: values.to(self.device, self.dtype if values.is_floating_point() else None)
            for name, values in inputs.items()
        }


class TextEncoder(Encoder):
    """An encoder of pictures and texts into one space.

    A picture's score of a text is `scale` times the cosine of their features, plus `bias`. `bias` is 0 for models that
    were trained with a softmax. Zero-shot classification is a softmax over these scores, also with models that were
    trained with a sigmoid: the bias is the same for every class, so it does not change the probabilities.
    """

    scale: float
    bias: float = 0.0
    max_tokens: int
    """How many tokens of a text the text tower reads; the rest is cut off."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return what the text tower takes: "input_ids" (n, tokens) and what else the family needs."""

    @abstractmethod
    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        """Compute the features (n, width) of tokenized texts."""

    def encode_text(self, texts: Sequence[str], batch: int = 256) -> np.ndarray:
        """Compute the features of texts: (n, width) float32, not normalised."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), batch):
                tokens = self._placed(self.tokenize(texts[start : start + batch]))
                parts.append(self.text_features(tokens).float().cpu().numpy())
        return np.concatenate(parts)

    def tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids that the text tower reads of each text, padding included."""
        return [tuple(ids) for text in texts for ids in self.tokenize([text])["input_ids"].tolist()]

    def score(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Compute the scores (n, m) float32 of pictures (n, width) with texts (m, width), features of any length."""
        return text_scores(to_unit_length(images), to_unit_length(texts), self.scale, self.bias)
