"""Identify the files of a model in a local folder or in the hub's cache, without loading them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moclip.files.hidden import is_hidden
from moclip.files.links import folder_digest
from moclip.models.encoders.source import OPEN_CLIP, OPEN_CLIP_CONFIG, EncoderSource
from moclip.video.clip_files import file_md5


def _affects_model(file: Path) -> bool:
    return not is_hidden(file.name) and file.suffix.lower() not in (".md", ".png", ".jpg")


def join_digests(digests: Sequence[str | None]) -> str | None:
    """Return the digests of several encoders as one; None if one of them is not known."""
    known = [digest for digest in digests if digest is not None]
    return " ".join(known) if len(known) == len(digests) else None


def files_digest(source: EncoderSource) -> str | None:
    """Return what identifies an encoder's files: a digest of local files, or the commit of a hub model in the cache.

    None where there is neither. Of several encoders it has a part for each.
    """
    if source.others:
        return join_digests([files_digest(one) for one in source.each])
    name = source.model
    if Path(name).is_dir():
        return folder_digest(Path(name), _affects_model)
    if source.weights:
        weights = Path(source.weights)
        return f"{name} {file_md5(weights)}" if weights.is_file() else None
    from huggingface_hub import try_to_load_from_cache  # not needed for a folder
    from huggingface_hub.errors import HFValidationError

    repository: str | None = name
    if source.timm_name:
        repository = timm_repository(source.timm_name)
    if repository is None:
        return None
    file = OPEN_CLIP_CONFIG if name.startswith(OPEN_CLIP) else "config.json"
    try:
        cached = try_to_load_from_cache(repository.removeprefix(OPEN_CLIP), file, revision=source.revision)
    except HFValidationError:  # a folder that does not exist
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None


def timm_repository(name: str) -> str | None:
    """Return the hub's id of the weights that timm loads by a model's name; None if the hub has none."""
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(name)
    return known.hf_hub_id or None if known else None
