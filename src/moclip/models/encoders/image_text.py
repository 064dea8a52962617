"""Models of `transformers` with get_text_features and get_image_features: MetaCLIP 2, AltCLIP, Chinese-CLIP, others.

Families with habits of their own (CLIP, SigLIP, X-CLIP) derive from this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer

from moclip.errors import ModelError
from moclip.models.encoders.base import BLANK, TextEncoder
from moclip.models.encoders.checks import load_checked, report_load_errors
from moclip.models.encoders.preparing import Preparer, ProcessedPictures
from moclip.models.encoders.source import EncoderSource

UNLIMITED = 10**6
"""Tokenizers that do not know their model's length say a higher number."""


class ImageTextEncoder(TextEncoder):
    """A model with an image tower and a text tower in one space."""

    text_parts: tuple[str, ...] = ("text_model.", "text_projection", "logit_scale", "logit_bias")
    padding: str | bool = True
    lower_case = False
    model: Any
    pixels = "pixel_values"

    def __init__(self, source: EncoderSource, device: torch.device) -> None:
        super().__init__(source, device)
        with report_load_errors(source.model):
            model, _ = load_checked(source)
            self.tokenizer = AutoTokenizer.from_pretrained(
                source.model, revision=source.revision, trust_remote_code=False
            )
            self.processor = AutoImageProcessor.from_pretrained(
                source.model, revision=source.revision, trust_remote_code=False
            )
        self._place(model)
        self.preparer = self._make_preparer()
        self.scale = float(model.logit_scale.exp()) if hasattr(model, "logit_scale") else 1.0
        self.bias = float(model.logit_bias) if hasattr(model, "logit_bias") else 0.0
        self.max_tokens = self._longest_text()
        self.check_companions()

    def _longest_text(self) -> int:
        text = self.model.config.text_config
        positions = int(text.max_position_embeddings)
        if text.model_type.endswith(("roberta", "altclip_text_model")):
            positions -= int(text.pad_token_id) + 1  # RoBERTa's positions begin after that of the padding
        limit = int(self.tokenizer.model_max_length)
        return min(positions, limit) if limit < UNLIMITED else positions

    def check_companions(self) -> None:
        """Refuse a tokenizer or an image processor whose output the towers cannot take."""
        name = self.source.model
        tokens, tower_tokens = len(self.tokenizer), int(self.model.config.text_config.vocab_size)
        if tokens > tower_tokens:
            what = f"its tokenizer has {tokens} tokens, its text tower {tower_tokens}"
            raise ModelError(what, where=name, fix="use tokenizer and weights of the same model")
        if self.tokens(["walk"]) == self.tokens(["jump"]):
            what = "its tokenizer reads different texts alike: its files are missing, or those of another model"
            raise ModelError(what, where=name, fix="add the tokenizer's files of the same model")
        with report_load_errors(name):
            pixels = self.preparer([BLANK] * self.pictures_per_feature)[self.pixels]
        side = getattr(self.model.config.vision_config, "image_size", None)
        if isinstance(side, int) and pixels.ndim >= 4 and tuple(pixels.shape[-2:]) != (side, side):
            size = "x".join(map(str, pixels.shape[-2:]))
            what = f"its image processor gives pictures of {size} px, its image tower takes {side}x{side}"
            raise ModelError(what, where=name, fix="use preprocessor_config.json and weights of the same model")

    def _make_preparer(self) -> Preparer:
        return ProcessedPictures(self.processor)

    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        return self.model.get_image_features(**prepared).pooler_output

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return dict(self._tokens(texts, padding=self.padding, return_tensors="pt"))

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        return self.model.get_text_features(**tokens).pooler_output

    def tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(ids) for ids in self._tokens(texts)["input_ids"]]

    def _tokens(self, texts: Sequence[str], **options: Any) -> Any:
        words = [text.lower() for text in texts] if self.lower_case else list(texts)
        return self.tokenizer(words, truncation=True, max_length=self.max_tokens, **options)

    def save(self, folder: Path) -> None:
        for key in ("local_files_only", "is_local"):  # how it was loaded, which must not change the bytes
            self.tokenizer.init_kwargs.pop(key, None)
        for part in (self.model, self.tokenizer, self.processor):
            part.save_pretrained(folder)
