"""Class names as texts for the encoder: prompts, phrases, and their mean features."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moclip.errors import DatasetError, ModelError
from moclip.models.clip_checks import ALIKE
from moclip.models.clip_encoder import ClipEncoder
from moclip.store.features import to_unit_length


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
    clip: ClipEncoder, classes: Sequence[str], phrases: dict[str, list[str]], templates: list[str]
) -> np.ndarray:
    """Prompt ensembling (arXiv 2103.00020, section 3.1.4): (classes, width) float32 of unit length.

    Every template with every phrase of the class, each feature normalised, then averaged and normalised again. Raises
    DatasetError where the text tower reads the same of two classes.
    """
    texts = [[template.format(text) for text in phrases[name] for template in templates] for name in classes]
    _check_distinct(clip, dict(zip(classes, texts, strict=True)))
    features = to_unit_length(clip.encode_text([text for group in texts for text in group]))
    ends = np.cumsum([len(group) for group in texts])
    of_class = np.stack([to_unit_length(part.mean(axis=0)) for part in np.split(features, ends[:-1])])
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


def _check_distinct(clip: ClipEncoder, texts: dict[str, list[str]]) -> None:
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
