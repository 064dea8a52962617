"""Identify the files of a model in a local folder or in the hub's cache, without loading them."""

from __future__ import annotations

from pathlib import Path

from moclip.files.hidden import is_hidden
from moclip.files.links import folder_digest


def _affects_model(file: Path) -> bool:
    return not is_hidden(file.name) and file.suffix.lower() not in (".md", ".png", ".jpg")


def files_digest(name: str, revision: str | None = None) -> str | None:
    """Return what identifies a model's files: a digest of a local folder, or the commit of a hub model in the cache.

    None where there is neither. `revision` is a branch, tag or commit of a hub model; None: the newest.
    """
    if Path(name).is_dir():
        return folder_digest(Path(name), _affects_model)
    from huggingface_hub import try_to_load_from_cache  # not needed for a folder
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a folder that does not exist
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None
