"""Identify the files of a model in a local folder or in the hub's cache, without loading them."""

from __future__ import annotations

from pathlib import Path

from moclip.files.hidden import is_hidden
from moclip.files.links import folder_digest
from moclip.models.encoders.source import OPEN_CLIP, EncoderSource
from moclip.video.clip_files import file_md5


def _affects_model(file: Path) -> bool:
    return not is_hidden(file.name) and file.suffix.lower() not in (".md", ".png", ".jpg")


def files_digest(source: EncoderSource) -> str | None:
    """Return what identifies an encoder's files: a digest of local files, or the commit of a hub model in the cache.

    None where there is neither. Of several encoders it has a part for each.
    """
    if source.others:
        digests = [files_digest(one) for one in source.each]
        return " ".join(map(str, digests)) if None not in digests else None
    name = source.model
    if Path(name).is_dir():
        return folder_digest(Path(name), _affects_model)
    if source.timm_name is not None:
        weights = Path(source.weights) if source.weights else None
        return f"{name} {file_md5(weights)}" if weights and weights.is_file() else None
    from huggingface_hub import try_to_load_from_cache  # not needed for a folder
    from huggingface_hub.errors import HFValidationError

    is_open_clip = name.startswith(OPEN_CLIP)
    config = "open_clip_config.json" if is_open_clip else "config.json"
    try:
        cached = try_to_load_from_cache(name.removeprefix(OPEN_CLIP), config, revision=source.revision)
    except HFValidationError:  # a folder that does not exist
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None
