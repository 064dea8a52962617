"""The frozen CLIP (arXiv 2103.00020), which turns images and texts into features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, PretrainedConfig
from transformers.utils.logging import disable_progress_bar

from moclip.errors import ModelError
from moclip.models.clip_checks import LEGACY_EOS_TOKEN, check_model_type, check_weights, report_load_errors


class ClipEncoder:
    """A frozen CLIP in eval mode on `device`.

    `name` is a local folder or a hub id. `revision` is a branch, tag or commit of a hub model (None: the newest).
    Raises ModelError where it cannot be loaded completely: another kind of model; weights that are missing, left over
    or of another shape; a tokenizer or an image processor of another model.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu", revision: str | None = None) -> None:
        if revision and Path(name).exists():
            what = f"a local folder has no revision {revision!r}"
            raise ModelError(what, where=name, fix="set clip.revision=false, or clip.model to a hub id")
        if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
            raise ModelError("no such folder", where=name, fix="set clip.model to a local folder or a hub id")
        disable_progress_bar()  # for loading weights
        with report_load_errors(name):
            check_model_type(PretrainedConfig.get_config_dict(name, revision=revision)[0], name)
            self.model, found = CLIPModel.from_pretrained(
                name,
                revision=revision,
                weights_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # `check_weights` refuses them by name
                output_loading_info=True,
            )
            check_weights(found, name)
            self.tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
            self.processor = AutoImageProcessor.from_pretrained(name, revision=revision)
        self.device = torch.device(device)
        self.model = self.model.to(self.device).eval().requires_grad_(False)
        _check_companions(self, name)

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and image processor in the hub's format; `ClipEncoder(str(folder))` loads them."""
        for part in (self.model, self.tokenizer, self.processor):
            part.save_pretrained(folder)

    @property
    def width(self) -> int:
        """Dimension of the shared space."""
        return int(self.model.config.projection_dim)

    @property
    def logit_scale(self) -> float:
        """The learned temperature: zero-shot logits are this times the cosine similarity."""
        return float(self.model.logit_scale.exp())

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text the text tower reads; the rest is cut off."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def vision(self) -> dict[str, Any]:
        """The image tower's configuration as JSON values, for `transformers.CLIPVisionConfig(**vision)`."""
        return dict(self.model.config.vision_config.to_diff_dict())

    def tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids that the text tower reads of each text."""
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        return [tuple(text_ids) for text_ids in ids]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch: int = 256) -> np.ndarray:
        """Compute the features of texts: (n, width) float32, not normalised."""
        parts = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer(
                list(texts[start : start + batch]),
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.device)
            parts.append(self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output)
        return torch.cat(parts).float().cpu().numpy()

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Compute features of RGB pictures, each (h, w, 3) uint8 of any size: (n, width) float32, not normalised."""
        pictures = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.device)
        return self.model.get_image_features(pixels).pooler_output.float().cpu().numpy()


def _check_companions(clip: ClipEncoder, name: str) -> None:
    """Refuse a tokenizer or an image processor whose output the towers cannot take."""
    text = clip.model.config.text_config
    tokens, tower_tokens = len(clip.tokenizer), int(text.vocab_size)
    if tokens > tower_tokens:
        what = f"its tokenizer has {tokens} tokens, its text tower {tower_tokens}"
        raise ModelError(what, where=name, fix="use tokenizer and weights of the same model")
    if text.eos_token_id not in (clip.tokenizer.eos_token_id, LEGACY_EOS_TOKEN):
        what = (
            f"its text tower ends a text at token {text.eos_token_id}, its tokenizer at {clip.tokenizer.eos_token_id}"
        )
        raise ModelError(what, where=name, fix="use tokenizer and weights of the same model")
    with report_load_errors(name):
        pixels = clip.processor(images=[torch.zeros(3, 8, 8, dtype=torch.uint8)], return_tensors="pt")["pixel_values"]
    side = int(clip.model.config.vision_config.image_size)
    if tuple(pixels.shape[-2:]) != (side, side):
        size = "x".join(map(str, pixels.shape[-2:]))
        what = f"its image processor gives pictures of {size} px, its image tower takes {side}x{side}"
        raise ModelError(what, where=name, fix="use preprocessor_config.json and weights of the same model")
