"""The frozen CLIP (arXiv 2103.00020): class prompts and still frames to features.

Any `transformers` CLIP by hub id or local folder; weights come as safetensors, or with `weights_only=True`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, PretrainedConfig
from transformers.utils.logging import disable_progress_bar

from moclip.errors import DatasetError, ModelError
from moclip.features import normalised

FAMILY = "clip"
"""What a CLIP's config.json has as `model_type`."""

BUFFERS = "position_ids"
"""Old CLIPs have these numbers, 0, 1, 2 and so on, among their weights; newer code counts by itself."""

LEGACY_END = 2
"""What early CLIPs' config.json has as `eos_token_id`, whatever it is; the tower then takes the highest token."""

ALIKE = 1e-6
"""Two classes whose features are as near as this, the cosine's distance from 1, are the same to every score."""

NAMED = 3
"""Keys of weights that an error names."""


class Clip:
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
        with _loading(name):
            _check_family(PretrainedConfig.get_config_dict(name, revision=revision)[0], name)
            self.model, found = CLIPModel.from_pretrained(
                name,
                revision=revision,
                weights_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
            _check_weights(found, name)
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


@contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as problem:  # a folder of somebody else's may hold anything
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise ModelError(
            f"cannot load this CLIP: {reason}",
            where=name,
            fix="clip.model is a local folder in the hub's format, or a hub id with the hub in reach",
        ) from None


def _check_family(config: dict[str, Any], name: str) -> None:
    if not config:
        raise OSError("no config.json")
    family = config.get("model_type")
    if family != FAMILY:
        what = f"its config.json has model_type {family!r}; wanted is {FAMILY!r}"
        raise ModelError(what, where=name, fix="clip.model wants a CLIP with both towers")


def _check_weights(found: dict[str, Any], name: str) -> None:
    """Refuse a model that is not whole: transformers fills gaps with random numbers, and drops what is left over."""
    mismatched = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    for what, keys in (
        ("lacks", found["missing_keys"]),
        ("has of another shape than its config.json says", mismatched),
        ("has beyond what its config.json says", found["unexpected_keys"]),
    ):
        if odd := sorted(key for key in keys if not key.endswith(BUFFERS)):
            raise ModelError(
                f"it {what} {_counted(odd)}", where=name, fix="take the whole model: weights and config.json of one"
            )


def _counted(keys: Collection[str]) -> str:
    few = ", ".join(list(keys)[:NAMED])
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return f"{len(keys)} of the weights: {few}{more}"


def _check_companions(clip: Clip, name: str) -> None:
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
    with _loading(name):
        shown = clip.processor(images=[torch.zeros(3, 8, 8, dtype=torch.uint8)], return_tensors="pt")["pixel_values"]
    side = int(clip.model.config.vision_config.image_size)
    if tuple(shown.shape[-2:]) != (side, side):
        found = "x".join(map(str, shown.shape[-2:]))
        what = f"its image processor gives pictures of {found} px, its image tower takes {side}x{side}"
        raise ModelError(what, where=name, fix="take preprocessor_config.json and weights of one model")


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
        if template.replace("{}", "", 1).count("{") or template.replace("{}", "", 1).count("}") or "{}" not in template:
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
        phrases[name] = value if isinstance(value, list) else [value]
        if not phrases[name] or not all(isinstance(text, str) and text.strip() for text in phrases[name]):
            raise DatasetError(f"class {name!r}: wanted one phrase or a list of phrases", where=path)
    return phrases


def text_features(
    clip: Clip, classes: Sequence[str], phrases: dict[str, list[str]], templates: list[str]
) -> np.ndarray:
    """Prompt ensembling (arXiv 2103.00020, section 3.1.4): (classes, width) float32 of unit length.

    Every template with every phrase of the class, each feature normalised, then averaged and normalised again. Raises
    DatasetError where the text tower reads the same of two classes.
    """
    texts = [[template.format(text) for text in phrases[name] for template in templates] for name in classes]
    _check_distinct(clip, dict(zip(classes, texts, strict=True)))
    features = normalised(clip.encode_text([text for group in texts for text in group]))
    ends = np.cumsum([len(group) for group in texts])
    of_class = np.stack([normalised(part.mean(axis=0)) for part in np.split(features, ends[:-1])])
    _check_features(of_class, classes)
    return of_class


def _check_features(features: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse features (classes, width) of unit length that are no numbers, or the same for two classes."""
    fix = "see the CLIP's weights and tokenizer: clip.model"
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ModelError(f"this CLIP gives no numbers for the class {classes[int(finite.argmin())]!r}", fix=fix)
    for number, feature in enumerate(features[:-1]):
        near = features[number + 1 :] @ feature
        if near.max() > 1 - ALIKE:
            other = classes[number + 1 + int(near.argmax())]
            raise ModelError(f"this CLIP gives the same features for {classes[number]!r} and {other!r}", fix=fix)


def _check_distinct(clip: Clip, texts: dict[str, list[str]]) -> None:
    """Refuse two classes of whose texts the tower reads the same tokens: it scores them alike, whatever is shown."""
    read: dict[frozenset[tuple[int, ...]], list[str]] = {}
    for name, of_class in texts.items():
        read.setdefault(frozenset(clip.tokens(of_class)), []).append(name)
    for names in read.values():
        if len(names) > 1:
            raise DatasetError(
                f"CLIP reads the same tokens of {names[0]!r} and {names[1]!r}: "
                f"it ignores case, and what comes after {clip.most_tokens} tokens",
                fix="word them otherwise: the phrases of dataset.phrases, or --labels",
            )


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetError("not found", where=path) from None
    except OSError as problem:
        raise DatasetError(f"cannot be read: {problem.strerror}", where=path) from None
    except UnicodeDecodeError:
        raise DatasetError("not text in UTF-8", where=path, fix="save it as UTF-8") from None
    except json.JSONDecodeError as problem:
        raise DatasetError(f"not valid JSON: {problem}", where=path) from None
