"""Recognise the demo's tiny CLIP where it is used on other clips than the demo's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

DEMO = Path("data/demo")
_WARNING = "{} the demo's tiny CLIP, which only knows coloured balls: zero-shot and fusion scores mean little"
_FIX = "set clip.model: openai/clip-vit-base-patch32 and clip.files: data/none in params.yaml"
_SHAPE = {"projection_dim": 64, "hidden_size": 64, "num_hidden_layers": 2}
"""Of its text tower. No published CLIP is as small."""


def demo_clip_warning(model: str | bool, models: Sequence[str], root: str) -> str | None:
    """Return a sentence for the user if the demo's tiny CLIP is used on other clips than the demo's; else None.

    The arguments are those of `find_demo_clip`.
    """
    found = find_demo_clip(model, models, root)
    return "; ".join(found) if found else None


def find_demo_clip(model: str | bool, models: Sequence[str], root: str) -> tuple[str, str] | None:
    """Return what is wrong and what to do if the demo's tiny CLIP is used on other clips than the demo's; else None.

    `model`, `models` and `root` are the values of clip.model, clip.models and dataset.root.
    """
    if Path(root).resolve().is_relative_to(DEMO.resolve()):
        return None
    if is_demo_clip(model):
        return _WARNING.format("clip.model is"), _FIX
    if any(map(is_demo_clip, models)):
        return _WARNING.format("clip.models has"), "remove it from clip.models in params.yaml"
    return None


def is_demo_clip(model: str | bool) -> bool:
    """Return whether a model is the demo's CLIP, by its path or, for a copy, by its shape."""
    if not isinstance(model, str):
        return False
    if Path(model).parts[-3:] == (*DEMO.parts, "clip"):
        return True
    try:
        text = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["text_config"]
        return all(text[name] == value for name, value in _SHAPE.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False
