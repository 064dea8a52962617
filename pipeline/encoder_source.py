"""The encoder that params.yaml names."""

from __future__ import annotations

from pathlib import Path

from moclip.models.encoders.source import TIMM, EncoderSource
from pipeline.params import NO_FILE, Params

ENCODER_KEYS = ("clip.model", "clip.models", "clip.files", "clip.revision", "clip.precision", "clip.pool")
"""The keys that `encoder_source` reads, for a stage or command to declare."""

PICTURE_KEYS = (
    "clip.model",
    "clip.models",
    "clip.revision",
    "clip.precision",
    "clip.pool",
    "clip.frames",
    "clip.choice",
)
"""The keys that picture features depend on, for a store or model to record; a digest stands for the files."""

TEXT_KEYS = ("clip.model", "clip.models", "clip.revision", "clip.precision", "clip.prompts", "dataset.phrases")
"""The same for text features."""


def encoder_source(params: Params) -> EncoderSource | None:
    """Return where the encoder comes from and how it runs; None if clip.model is false."""
    clip = params.clip
    if clip.model is False:
        return None
    others = tuple(
        EncoderSource(name, _weights_below(name, clip.files), precision=clip.precision, pool=clip.pool)
        for name in clip.models
    )
    weights = _weights_below(clip.model, clip.files)
    if weights is None and clip.model.startswith(TIMM) and clip.files != NO_FILE and not Path(clip.files).is_dir():
        weights = clip.files
    return EncoderSource(clip.model, weights, clip.revision or None, clip.precision, clip.pool, others)


def _weights_below(model: str, files: str) -> str | None:
    """Return the file NAME.safetensors in the folder `files` that belongs to timm:NAME; None if there is none."""
    file = Path(files, f"{model.removeprefix(TIMM)}.safetensors")
    return str(file) if model.startswith(TIMM) and files != NO_FILE and file.is_file() else None


def unused_reason(params: Params) -> str:
    """Return what unused.txt says in place of features that clip.model does not give."""
    if params.clip.model is False:
        return "clip.model is false"
    return f"clip.model {', '.join([params.clip.model, *params.clip.models])} encodes no texts"
