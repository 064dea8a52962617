"""The files of a bundle: see moclip/inference/bundle.py."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

CONFIG, CARD, EXAMPLE, CLIP, ONNX = "config.json", "README.md", "inference.py", "clip", "moclip.onnx"
MV_TSN, FUSION, TEXT = "mv_tsn.safetensors", "fusion.safetensors", "text_features.safetensors"
REJECTION = "rejection.safetensors"

REQUIRED = (CONFIG, MV_TSN, FUSION)
"""Without these it is no bundle."""

READ = (*REQUIRED, TEXT, REJECTION, f"{CLIP}/*")
"""What `moclip.load` reads, as patterns."""


def is_bundle(folder: Path) -> bool:
    """Return whether a folder holds a bundle, perhaps a damaged one."""
    return (folder / CONFIG).is_file() and (folder / MV_TSN).is_file()


def of_bundle(path: str) -> bool:
    """Return whether `moclip export` writes a file of this name, relative to the bundle."""
    return path in (*REQUIRED, TEXT, REJECTION, CARD, EXAMPLE, ONNX) or path.startswith(f"{CLIP}/")


def without_machine_paths(value: Any) -> Any:
    """Return `value` with each absolute path in it cut to its last two parts: a bundle is read on other machines.

    The rest of a path tells nothing there, and may name a person.
    """
    if isinstance(value, dict):
        return {key: without_machine_paths(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_machine_paths(one) for one in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return "/".join(PurePath(value).parts[1:][-2:])
    return value
