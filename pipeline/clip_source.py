"""Where the clips come from: the class folders of dataset.root, or the manifest."""

from __future__ import annotations

from pathlib import Path

from moclip.data.clip_folder import ClipFolder, describe_broken_links, scan_folder
from moclip.data.list_matching import require_two_classes
from moclip.data.manifest import Manifest, read_manifest
from moclip.errors import DatasetError
from moclip.files.folders import Folder
from pipeline.dvc_obstacles import check_for_dvc
from pipeline.params import NO_FILE, Dataset


def find_clips(dataset: Dataset) -> tuple[ClipFolder, Manifest | None]:
    """Return the clips, and the manifest that names them, if there is one. Raises DatasetError if there are none."""
    if dataset.manifest == NO_FILE:
        return scan_folder(dataset.root, dataset.follow_links), None
    manifest = read_manifest(Path(dataset.manifest), dataset.root)
    return manifest.clips, manifest


def check_folder(root: str, folder: ClipFolder, is_listed: bool = False) -> None:
    """Raise DatasetError for a folder of clips that `index` would refuse, or that DVC cannot read.

    `is_listed` is whether a manifest gives the classes.
    """
    if not is_listed:
        require_two_classes(folder.classes, "dataset.root needs a folder for each of at least two classes", root)
    if folder.broken_links:
        fix = "remove them: DVC cannot read a folder with such links"
        raise DatasetError(describe_broken_links(folder), where=root, fix=fix)
    if local := Folder(root).local:
        check_for_dvc(local)
