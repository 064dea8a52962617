"""The families of encoders, and loading the one that `clip.model` names. It imports no network before it has to."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moclip.errors import ModelError
from moclip.models.encoders.source import OPEN_CLIP, OPEN_CLIP_CONFIG, EncoderSource

if TYPE_CHECKING:
    import torch

    from moclip.models.encoders.base import Encoder

FAMILIES = {
    "clip": ("clip", "ClipEncoder"),
    "siglip": ("siglip", "SiglipEncoder"),
    "siglip2": ("siglip", "Siglip2Encoder"),
    "xclip": ("xclip", "XClipEncoder"),
    "image_text": ("image_text", "ImageTextEncoder"),
    "vision": ("vision", "VisionEncoder"),
    "timm": ("timm_images", "TimmEncoder"),
    "open_clip": ("open_clip", "OpenClipEncoder"),
}
"""Family -> file in this package and class. A family is named by the `model_type` in config.json, if it has its own."""

WITHOUT_TEXT = ("vision", "timm")
"""Families that encode pictures only."""


def load_encoder(source: EncoderSource, device: str | torch.device = "cpu") -> Encoder:
    """Load an encoder in eval mode. Raises ModelError where it cannot be loaded completely."""
    import torch

    if source.others:
        from moclip.models.encoders.joint import join_encoders

        return join_encoders(source, torch.device(device), [load_encoder(one, device) for one in source.each])
    file, name = FAMILIES[family_of(source)]
    family: type[Encoder] = getattr(importlib.import_module(f"moclip.models.encoders.{file}"), name)
    return family(source, torch.device(device))


def family_module(source: EncoderSource) -> str:
    """Return the name of the module that has an encoder's class. Reads its configuration only. Raises ModelError."""
    return f"moclip.models.encoders.{FAMILIES[family_of(source)][0]}"


def has_text(source: EncoderSource) -> bool:
    """Return whether an encoder, or one of several, encodes texts. Reads its configuration only. Raises ModelError."""
    return any(family_of(one) not in WITHOUT_TEXT for one in source.each)


def family_of(source: EncoderSource) -> str:
    """Return the family of an encoder, a key of `FAMILIES`. Reads its configuration only. Raises ModelError."""
    name = source.model
    if source.timm_name is not None:
        return "timm"
    if name.startswith(OPEN_CLIP):
        _fetch(source, name.removeprefix(OPEN_CLIP), OPEN_CLIP_CONFIG)
        return "open_clip"
    if (Path(name) / OPEN_CLIP_CONFIG).is_file():
        return "open_clip"
    _check_name(source)
    config = _read_config(source)
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return str(model_type)
    if model_type is None and "architecture" in config:
        return "timm"
    return _family_by_methods(model_type, name)


def fetch_configuration(source: EncoderSource) -> None:
    """Fetch the configuration of a hub model into the cache, so that its commit is known. Raises ModelError."""
    if source.timm_name is None:
        family_of(source)
    elif not source.weights:
        from moclip.models.hub_files import timm_repository

        if repository := timm_repository(source.timm_name):
            _fetch(source, repository, "config.json")


def _check_name(source: EncoderSource) -> None:
    name = source.model
    if source.revision and Path(name).exists():
        what = f"a local folder has no revision {source.revision!r}"
        raise ModelError(what, where=name, fix="set clip.revision=false, or clip.model to a hub id")
    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError("no such folder", where=name, fix="set clip.model to a local folder or a hub id")


def _read_config(source: EncoderSource) -> dict[str, Any]:
    from moclip.models.encoders.checks import report_load_errors

    with report_load_errors(source.model):
        folder = Path(source.model)
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise OSError("no config.json")
        if folder.is_file():
            raise OSError("it is a file, not a folder; for the weights of a timm model set clip.model=timm:NAME")
        if folder.is_dir():
            return _read_json_object(folder / "config.json")
        from transformers import PretrainedConfig

        config = dict(PretrainedConfig.get_config_dict(source.model, revision=source.revision)[0])
        if not config:
            raise OSError("no config.json")
        return config


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as problem:
        raise OSError(f"{path.name} is not valid JSON: {problem}") from None
    if not isinstance(found, dict):
        raise OSError(f"{path.name} holds no JSON object")
    return found


def _fetch(source: EncoderSource, repository: str, file: str) -> None:
    from huggingface_hub import hf_hub_download

    from moclip.models.encoders.checks import report_load_errors

    with report_load_errors(source.model):
        if not repository:
            raise OSError(f"no id after {OPEN_CLIP}")
        hf_hub_download(repository, file, revision=source.revision)


def _family_by_methods(model_type: Any, name: str) -> str:
    """Return the family of a model of `transformers` that has no own one, by the methods of its class."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    fix = "see docs/encoders.md for the models that clip.model takes"
    if (
        not isinstance(model_type, str)
        or model_type not in CONFIG_MAPPING
        or CONFIG_MAPPING[model_type] not in MODEL_MAPPING
    ):
        raise ModelError(f"its config.json has model_type {model_type!r}, which is not known", where=name, fix=fix)
    found = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
    model_class: Any = found[0] if isinstance(found, tuple) else found
    if hasattr(model_class, "get_text_features") and hasattr(model_class, "get_image_features"):
        return "image_text"
    if model_class.main_input_name == "pixel_values":
        return "vision"
    what = f"its config.json has model_type {model_type!r}, which encodes no pictures"
    raise ModelError(what, where=name, fix=fix)
