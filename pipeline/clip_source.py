"""Where the clips come from: the class folders of dataset.root, or the manifest."""

from __future__ import annotations

from pathlib import Path

from moclip.data.clip_folder import ClipFolder, describe_broken_links, scan_folder
from moclip.data.list_matching import require_two_classes
from moclip.data.manifest import Manifest, read_manifest
from moclip.errors import DatasetError
from pipeline.params import NO_FILE, Dataset


def find_clips(dataset: Dataset) -> tuple[ClipFolder, Manifest | None]:
    """Return the clips, and the manifest that names them, if there is one. Raises DatasetError if there are none."""
    if dataset.manifest == NO_FILE:
        return scan_folder(dataset.root, dataset.follow_links), None
    manifest = read_manifest(Path(dataset.manifest), dataset.root)
    return manifest.clips, manifest


def check_folder(root: str, folder: ClipFolder) -> None:
    """Raise DatasetError for a folder of clips that `index` would refuse, or that DVC cannot read."""
    require_two_classes(folder.classes, "dataset.root needs a folder for each of at least two classes", root)
    if folder.broken_links:
        fix = "remove them: DVC cannot read a folder with such links"
        raise DatasetError(describe_broken_links(folder), where=root, fix=fix)


def lists_and_manifest_error(dataset: Dataset) -> DatasetError:
    """Return the error for split lists beside a manifest, which both give the splits."""
    what = f"dataset.splits = {dataset.splits} has split lists, and dataset.manifest = {dataset.manifest} is a manifest"
    fix = f"clear one of them: set dataset.splits to {NO_FILE}, or dataset.manifest to {NO_FILE}"
    return DatasetError(what, where="params.yaml", fix=fix)


def lists_and_split_folders_error(dataset: Dataset, folder: ClipFolder) -> DatasetError:
    """Return the error for split lists beside folders of splits, which both give the splits."""
    names = ", ".join(folder.splits)
    what = f"dataset.splits = {dataset.splits} has split lists, and dataset.root has folders of splits: {names}"
    fix = f"for the folders, set dataset.splits to {NO_FILE}; for the lists, move the class folders into dataset.root"
    return DatasetError(what, where="params.yaml", fix=fix)


def no_lists_error(dataset: Dataset) -> DatasetError:
    """Return the error for a folder of split lists without any."""
    what = f"no split lists in it: no trainlist{dataset.split:02d}.txt, and no *_test_split{dataset.split}.txt"
    fix = f"put the lists there; or set dataset.splits to {dataset.root}, to split the clips by group with the seed"
    return DatasetError(what, where=dataset.splits, fix=fix)
