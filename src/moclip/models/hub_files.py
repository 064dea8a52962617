"""Which files of a model are here: in a local folder, or in the hub's cache. Loads nothing of it."""

from __future__ import annotations

from pathlib import Path

from moclip.files.hidden import is_hidden
from moclip.files.links import folder_digest


def _is_of_the_model(file: Path) -> bool:
    """Whether a file in a model's folder has to do with what the model does."""
    return not is_hidden(file.name) and file.suffix.lower() not in (".md", ".png", ".jpg")


def files_digest(name: str, revision: str | None = None) -> str | None:
    """What stands for the files of a model: a digest of a local folder, or the commit of a hub model in the cache.

    None where neither is here. `revision` is a branch, tag or commit of a hub model; None: the newest.
    """
    if Path(name).is_dir():
        return folder_digest(Path(name), _is_of_the_model)
    from huggingface_hub import try_to_load_from_cache  # who names a folder needs none
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a folder that is not there
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None
