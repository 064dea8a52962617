"""The frozen CLIP (arXiv 2103.00020): class prompts and still frames to features.

Any `transformers` CLIP by hub id or local folder; weights come as safetensors, or with `weights_only=True`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.utils.logging import disable_progress_bar

from moclip.cost import count_parameters, multiply_adds
from moclip.errors import DatasetError, ModelError
from moclip.features import normalised


class Clip:
    """A frozen CLIP in eval mode on `device`. Raises ModelError where `name` cannot be loaded."""

    def __init__(self, name: str, device: str | torch.device = "cpu") -> None:
        disable_progress_bar()  # of loading weights
        try:
            self.model = CLIPModel.from_pretrained(name, weights_only=True, dtype=torch.float32)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.processor = AutoImageProcessor.from_pretrained(name)
        except Exception as problem:  # a folder of somebody else's may hold anything
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise ModelError(
                f"cannot load this CLIP: {reason}",
                where=name,
                fix="clip.model is a local folder in the hub's format, or a hub id with the hub in reach",
            ) from None
        self.device = torch.device(device)
        self.model = self.model.to(self.device).eval().requires_grad_(False)

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

    def picture_cost(self) -> dict[str, int]:
        """Parameters, and multiply-adds on one picture, of the image tower with its projection."""
        return picture_cost(self.model.config.vision_config)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch: int = 256) -> np.ndarray:
        """Text features as the tower gives them, (n, width) float32, not normalised."""
        parts = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer(
                list(texts[start : start + batch]), padding=True, truncation=True, return_tensors="pt"
            ).to(self.device)
            parts.append(self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output)
        return torch.cat(parts).float().cpu().numpy()

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Image features of RGB pictures, each (h, w, 3) uint8 of any size: (n, width) float32, not normalised."""
        pictures = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.device)
        return self.model.get_image_features(pixels).pooler_output.float().cpu().numpy()


def picture_cost(config: CLIPVisionConfig) -> dict[str, int]:
    """Parameters, and multiply-adds on one picture, of an image tower of this shape with its projection."""
    with torch.device("meta"):  # shapes are all it takes
        tower = CLIPVisionModelWithProjection(config)
        picture = torch.zeros(1, 3, config.image_size, config.image_size)
        return {"parameters": count_parameters(tower), "multiply_adds": multiply_adds(tower, picture)}


def phrase(class_name: str) -> str:
    """A class name as words: "HorseRiding" -> "horse riding", "brush_hair" -> "brush hair"."""
    words = re.sub(r"[_\-]+", " ", class_name)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", words)
    return " ".join(words.split()).lower()


def read_prompts(path: Path) -> list[str]:
    """Prompt templates, a JSON list of texts with one {} each. Raises DatasetError."""
    templates = _read_json(path)
    if not isinstance(templates, list) or not templates or not all(isinstance(t, str) for t in templates):
        raise DatasetError("wanted a list of prompt templates", where=path)
    for template in templates:
        if template.count("{}") != 1:
            raise DatasetError(f"template {template!r}: wanted exactly one {{}} for the class", where=path)
    return templates


def read_phrases(path: Path | None, classes: Sequence[str]) -> dict[str, list[str]]:
    """Phrases of each class: from a JSON file class -> phrase or phrases, else from the name. Raises DatasetError."""
    given = _read_json(path) if path else {}
    if not isinstance(given, dict):
        raise DatasetError("wanted a mapping from class to phrases", where=path)
    phrases = {}
    for name in classes:
        value = given.get(name, phrase(name))
        phrases[name] = [value] if isinstance(value, str) else list(value)
        if not phrases[name] or not all(isinstance(text, str) and text for text in phrases[name]):
            raise DatasetError(f"class {name!r}: wanted one phrase or a list of phrases", where=path)
    return phrases


def text_features(
    clip: Clip, classes: Sequence[str], phrases: dict[str, list[str]], templates: list[str]
) -> np.ndarray:
    """Prompt ensembling (arXiv 2103.00020, section 3.1.4): (classes, width) float32 of unit length.

    Every template with every phrase of the class, each feature normalised, then averaged and normalised again.
    """
    texts = [[template.format(text) for text in phrases[name] for template in templates] for name in classes]
    features = normalised(clip.encode_text([text for group in texts for text in group]))
    ends = np.cumsum([len(group) for group in texts])
    return np.stack([normalised(part.mean(axis=0)) for part in np.split(features, ends[:-1])])


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError("not found", where=path) from None
    except json.JSONDecodeError as problem:
        raise DatasetError(f"not valid JSON: {problem}", where=path) from None
