"""Turn class names into texts for CLIP (prompts and phrases), and these into one feature per class."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moclip.errors import DatasetError, ModelError
from moclip.models.text_scores import text_scores
from moclip.store.features import to_unit_length

if TYPE_CHECKING:
    from moclip.models.encoders.base import TextEncoder  # imports torch, which texts do not need

SAME_FEATURES = 1e-6
"""Two classes score the same on every clip if the cosine of their text features is closer to 1 than this."""


@dataclass(frozen=True)
class ClassTexts:
    """The text features of classes, and how the encoder scores them.

    features : (classes, width) float32 of unit length.
    scale, bias : a score is `scale` times the cosine plus `bias` (`TextEncoder`).
    prompts : the templates that the features were made with.
    """

    features: np.ndarray
    scale: float
    bias: float
    prompts: tuple[str, ...]

    def scores(self, pictures: np.ndarray) -> np.ndarray:
        """Compute zero-shot logits: pictures (..., width) of unit length -> (..., classes)."""
        return text_scores(pictures, self.features, self.scale, self.bias)


def phrase(class_name: str) -> str:
    """Split a class name into words: "HorseRiding" -> "horse riding", "brush_hair" -> "brush hair"."""
    words = re.sub(r"[_\-]+", " ", class_name)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", words)
    return " ".join(words.split()).lower()


def read_prompts(path: Path) -> list[str]:
    """Read prompt templates, a JSON list of texts with one {} each. Raises DatasetError."""
    templates = _read_json(path)
    if not isinstance(templates, list) or not templates or not all(isinstance(t, str) for t in templates):
        raise DatasetError("expected a list of prompt templates", where=path)
    for template in templates:
        if "{}" not in template or set(template.replace("{}", "", 1)) & set("{}"):
            raise DatasetError(f"template {template!r}: expected exactly one {{}} for the class", where=path)
    return templates


def read_phrases(path: Path | None, classes: Sequence[str]) -> dict[str, list[str]]:
    """Return the phrases of each class, from a JSON file class -> phrase or phrases, or else from the class name.

    Raises DatasetError.
    """
    from_file = _read_json(path) if path else {}
    if not isinstance(from_file, dict):
        raise DatasetError("expected a mapping from class to phrases", where=path)
    phrases = {}
    for name in classes:
        value = from_file.get(name, phrase(name))
        phrases[name] = value if isinstance(value, list) else [value]
        if not phrases[name] or not all(isinstance(text, str) and text.strip() for text in phrases[name]):
            raise DatasetError(f"class {name!r}: expected one phrase or a list of phrases", where=path)
    return phrases


def fill_templates(phrases: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return the texts that stand for a class: each of its phrases in each template."""
    return [template.format(text) for text in phrases for template in templates]


def text_features(
    clip: TextEncoder, classes: Sequence[str], phrases: dict[str, list[str]], templates: list[str]
) -> np.ndarray:
    """Compute a feature per class by prompt ensembling (arXiv 2103.00020, section 3.1.4): (classes, width) float32.

    Each template is filled with each phrase of the class; the features are normalised, averaged, and normalised again.
    Raises DatasetError where two classes have the same tokens, and ModelError where features are not finite or are the
    same for two classes.
    """
    texts = [fill_templates(phrases[name], templates) for name in classes]
    _check_tokens(clip, dict(zip(classes, texts, strict=True)))
    features = to_unit_length(clip.encode_text([text for class_texts in texts for text in class_texts]))
    ends = np.cumsum([len(class_texts) for class_texts in texts])
    class_features = np.stack([to_unit_length(part.mean(axis=0)) for part in np.split(features, ends[:-1])])
    _check_features(class_features, classes)
    return class_features


def _check_features(features: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse features (classes, width) of unit length that are not finite, or the same for two classes."""
    fix = "check weights and tokenizer of clip.model"
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        what = f"this CLIP gives infinite or undefined features for the class {classes[int(finite.argmin())]!r}"
        raise ModelError(what, fix=fix)
    for number, feature in enumerate(features[:-1]):
        cosines = features[number + 1 :] @ feature
        if cosines.max() > 1 - SAME_FEATURES:
            other = classes[number + 1 + int(cosines.argmax())]
            raise ModelError(f"this CLIP gives the same features for {classes[number]!r} and {other!r}", fix=fix)


def _check_tokens(clip: TextEncoder, texts: dict[str, list[str]]) -> None:
    """Refuse two classes whose texts have the same tokens: they would score the same on every clip."""
    classes_by_tokens: dict[frozenset[tuple[int, ...]], list[str]] = {}
    for name, class_texts in texts.items():
        classes_by_tokens.setdefault(frozenset(clip.tokens(class_texts)), []).append(name)
    for names in classes_by_tokens.values():
        if len(names) > 1:
            raise DatasetError(
                f"CLIP reads the same tokens of {names[0]!r} and {names[1]!r}: "
                f"it ignores case, and what comes after {clip.max_tokens} tokens",
                fix="use other words: in the file of dataset.phrases, or in --labels",
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
