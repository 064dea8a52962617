"""The frozen CLIP (arXiv 2103.00020): images and texts to features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, PretrainedConfig
from transformers.utils.logging import disable_progress_bar

from moclip.errors import ModelError
from moclip.models.clip_checks import LEGACY_END, check_family, check_weights, loading


class ClipEncoder:
    """A frozen CLIP in eval mode on `device`.

    `name` is a hub id, of which `revision` names a branch, tag or commit (None: the newest), or a local folder, which
    has no revisions. Raises ModelError where it cannot be loaded whole: another family of model, weights that are
    absent, left over or of another shape, a tokenizer or an image processor of another model.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu", revision: str | None = None) -> None:
        if revision and Path(name).exists():
            what = f"a local folder has no revision {revision!r}"
            raise ModelError(what, where=name, fix="clip.revision=false, or name a model of the hub")
        if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
            raise ModelError("no such folder", where=name, fix="set clip.model to a local folder or a hub id")
        disable_progress_bar()  # of loading weights
        with loading(name):
            check_family(PretrainedConfig.get_config_dict(name, revision=revision)[0], name)
            self.model, found = CLIPModel.from_pretrained(
                name,
                revision=revision,
                weights_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
            check_weights(found, name)
            self.tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
            self.processor = AutoImageProcessor.from_pretrained(name, revision=revision)
        self.device = torch.device(device)
        self.model = self.model.to(self.device).eval().requires_grad_(False)
        _check_companions(self, name)

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and image processor in the hub's format, to be loaded by `Clip(str(folder))`."""
        for part in (self.model, self.tokenizer, self.processor):
            part.save_pretrained(folder)

    @property
    def width(self) -> int:
        """Dimension of the shared space."""
        return int(self.model.config.projection_dim)

    @property
    def logit_scale(self) -> float:
        """The learnt temperature: zero-shot logits are this times the cosine similarity."""
        return float(self.model.logit_scale.exp())

    @property
    def most_tokens(self) -> int:
        """Tokens that the text tower reads of a text; the rest is cut off."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def vision(self) -> dict[str, Any]:
        """The image tower's configuration, as JSON has it, for `transformers.CLIPVisionConfig(**vision)`."""
        return dict(self.model.config.vision_config.to_diff_dict())

    def tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """What the text tower reads of each text."""
        found = self.tokenizer(list(texts), truncation=True, max_length=self.most_tokens)["input_ids"]
        return [tuple(one) for one in found]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch: int = 256) -> np.ndarray:
        """Text features as the tower gives them, (n, width) float32, not normalised."""
        parts = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer(
                list(texts[start : start + batch]),
                padding=True,
                truncation=True,
                max_length=self.most_tokens,
                return_tensors="pt",
            ).to(self.device)
            parts.append(self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output)
        return torch.cat(parts).float().cpu().numpy()

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Image features of RGB pictures, each (h, w, 3) uint8 of any size: (n, width) float32, not normalised."""
        pictures = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.device)
        return self.model.get_image_features(pixels).pooler_output.float().cpu().numpy()


def _check_companions(clip: ClipEncoder, name: str) -> None:
    """Refuse a tokenizer or an image processor whose output the towers cannot take."""
    text = clip.model.config.text_config
    words, known = len(clip.tokenizer), int(text.vocab_size)
    if words > known:
        what = f"its tokenizer has {words} tokens, its text tower {known}"
        raise ModelError(what, where=name, fix="take tokenizer and weights of one model")
    ends = {int(text.eos_token_id), clip.tokenizer.eos_token_id}
    if len(ends) > 1 and text.eos_token_id != LEGACY_END:
        what = (
            f"its text tower ends a text at token {text.eos_token_id}, its tokenizer at {clip.tokenizer.eos_token_id}"
        )
        raise ModelError(what, where=name, fix="take tokenizer and weights of one model")
    with loading(name):
        shown = clip.processor(images=[torch.zeros(3, 8, 8, dtype=torch.uint8)], return_tensors="pt")["pixel_values"]
    side = int(clip.model.config.vision_config.image_size)
    if tuple(shown.shape[-2:]) != (side, side):
        found = "x".join(map(str, shown.shape[-2:]))
        what = f"its image processor gives pictures of {found} px, its image tower takes {side}x{side}"
        raise ModelError(what, where=name, fix="take preprocessor_config.json and weights of one model")
