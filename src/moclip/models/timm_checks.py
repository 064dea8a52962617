"""Refuse names that timm does not know, and files that are no weights."""

from __future__ import annotations

from pathlib import Path

import timm

from moclip.errors import ModelError


def unknown_model(name: str, where: str) -> ModelError:
    """Return the error for a name that timm does not know, with similar names."""
    similar = timm.list_models(f"*{name[:6]}*")[:5]
    fix = f"similar names: {', '.join(similar)}" if similar else None
    return ModelError("no such timm model", where=where, fix=fix)


def check_weights_file(file: Path, fix: str) -> None:
    """Raise ModelError unless `file` is a .safetensors file that exists."""
    if not file.is_file():
        raise ModelError("no such weights file", where=str(file), fix=fix)
    if file.suffix != ".safetensors":
        raise ModelError("not a .safetensors file", where=str(file), fix=fix)
