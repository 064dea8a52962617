"""Image models of `transformers` without a text tower: DINOv2, DINOv3, ViT, ConvNeXt, others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoImageProcessor

from moclip.models.encoders.base import Encoder
from moclip.models.encoders.checks import load_checked, report_load_errors
from moclip.models.encoders.preparing import ProcessedPictures
from moclip.models.encoders.source import EncoderSource

POOLER = ("pooler.",)
"""Weights of a layer that classification checkpoints lack; it is then not used."""

HEADS = ("classifier.", "head.", "cls_classifier.", "distillation_classifier.")
"""Weights of classification heads, which are not used."""


class VisionEncoder(Encoder):
    """A backbone. The feature is its pooled output, or else its class token, or the mean over positions."""

    model: Any

    def __init__(self, source: EncoderSource, device: torch.device) -> None:
        super().__init__(source, device)
        with report_load_errors(source.model):
            model, missing = load_checked(source, optional=POOLER, surplus=HEADS)
            self.processor = AutoImageProcessor.from_pretrained(
                source.model, revision=source.revision, trust_remote_code=False
            )
            self.preparer = ProcessedPictures(self.processor, ("pixel_values",))
            if any(name.startswith(POOLER) for name in missing):
                model.pooler = None  # it has random weights
            self._place(model)
            self.width  # noqa: B018  runs a picture, so that a processor of another model is noticed

    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        output = self.model(**prepared)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        states = output.last_hidden_state
        return states.mean(dim=(2, 3)) if states.ndim == 4 else states[:, 0]

    def save(self, folder: Path) -> None:
        for part in (self.model, self.processor):
            part.save_pretrained(folder)
