"""Where the splits come from: lists, a manifest, or neither."""

from __future__ import annotations

from moclip.data.clip_folder import ClipFolder
from moclip.data.manifest import Manifest
from moclip.data.split_lists import Splits, read_splits
from moclip.errors import DatasetError
from moclip.files.local_copies import local_text_files
from pipeline.params import NO_FILE, Dataset


def read_lists(dataset: Dataset, folder: ClipFolder, manifest: Manifest | None) -> Splits | None:
    """Return the split lists; None if there are none, and the folder of the clips was named in their place."""
    if dataset.splits == NO_FILE:
        return None
    with local_text_files(dataset.splits) as lists:
        splits = read_splits(lists, dataset.split)
    if splits and manifest:
        raise _lists_and_manifest_error(dataset)
    if splits and folder.splits:
        raise _lists_and_split_folders_error(dataset, folder)
    if not (splits or manifest) and dataset.splits != dataset.root:
        raise _no_lists_error(dataset)
    return splits


def _lists_and_manifest_error(dataset: Dataset) -> DatasetError:
    """Return the error for split lists beside a manifest, which both give the splits."""
    what = f"dataset.splits = {dataset.splits} has split lists, and dataset.manifest = {dataset.manifest} is a manifest"
    fix = f"clear one of them: set dataset.splits to {NO_FILE}, or dataset.manifest to {NO_FILE}"
    return DatasetError(what, where="params.yaml", fix=fix)


def _lists_and_split_folders_error(dataset: Dataset, folder: ClipFolder) -> DatasetError:
    """Return the error for split lists beside folders of splits, which both give the splits."""
    names = ", ".join(folder.splits)
    what = f"dataset.splits = {dataset.splits} has split lists, and dataset.root has folders of splits: {names}"
    fix = f"for the folders, set dataset.splits to {NO_FILE}; for the lists, move the class folders into dataset.root"
    return DatasetError(what, where="params.yaml", fix=fix)


def _no_lists_error(dataset: Dataset) -> DatasetError:
    """Return the error for a folder of split lists without any."""
    what = f"no split lists in it: no trainlist{dataset.split:02d}.txt, and no *_test_split{dataset.split}.txt"
    fix = f"put the lists there; or set dataset.splits to {dataset.root}, to split the clips by group with the seed"
    return DatasetError(what, where=dataset.splits, fix=fix)
