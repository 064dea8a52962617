"""Where the clips come from: the class folders of dataset.root, or the manifest."""

from __future__ import annotations

from pathlib import Path

from moclip.data.clip_folder import ClipFolder, scan_folder
from moclip.data.manifest import Manifest, read_manifest
from pipeline.params import NO_FILE, Dataset


def find_clips(dataset: Dataset) -> tuple[ClipFolder, Manifest | None]:
    """Return the clips, and the manifest that names them, if there is one. Raises DatasetError if there are none."""
    if dataset.manifest == NO_FILE:
        return scan_folder(dataset.root), None
    manifest = read_manifest(Path(dataset.manifest), dataset.root)
    return manifest.clips, manifest
