"""data/index.parquet: written with what it was made with, and checked against that when read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from moclip.files.folders import is_url
from moclip.video.clip_files import VIDEO_SUFFIXES, file_md5
from pipeline import params as parameters
from pipeline import paths
from pipeline.io import read_parquet, write_parquet
from pipeline.params import Params
from pipeline.provenance import MANY, check_made_from, check_made_with, made_with, stale_error

INDEX_KEYS = ("seed", "dataset.split", "dataset.val_fraction", "dataset.test_fraction", "index.transcode")
"""What the index is made with. Where clips and lists lie is no matter, but which they are."""


def write_index(table: pd.DataFrame, params: Params, lists: Path) -> None:
    """Write the index, and within it what it was made with: parameters, and a digest of the split lists."""
    table.attrs = {"made_with": made_with(params, *INDEX_KEYS), "lists": _lists_digest(lists)}
    write_parquet(paths.INDEX, table)


def read_index(params: Params) -> pd.DataFrame:
    """The index.

    Raises MoclipError where it is not there, or was made with other parameters, split lists or clips than there are
    now. Lists and clips that are gone are not missed.
    """
    table = read_parquet(paths.INDEX, "index")
    made, table.attrs = table.attrs, {}
    # the seed of params.yaml: a stage's own --seed is of its training alone, and splits nothing anew
    seed = parameters.read_raw(paths.PARAMS).get("seed") if paths.PARAMS.exists() else params.seed
    check_made_with(made.get("made_with", {}), params.model_copy(update={"seed": seed}), paths.INDEX, "index")
    root, splits = params.dataset.root, params.dataset.splits
    if not is_url(root):
        _check_same_clips(table, Path(root))
    if not is_url(splits) and Path(splits).is_dir():
        check_made_from(_lists_digest(Path(splits)), made.get("lists"), "other split lists", paths.INDEX, "index")
    return table


def _lists_digest(folder: Path) -> str:
    """16 hexadecimal digits for the text files in a folder; "" where there are none."""
    files = sorted(folder.glob("*.txt"))
    text = "\n".join(f"{file.name} {file_md5(file)}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if files else ""


def _check_same_clips(table: pd.DataFrame, root: Path) -> None:
    """Raise StoreError where a folder has clips, and none of the index's among them."""
    listed = table.loc[table["status"] == "ok", "path"]
    some = listed.iloc[np.linspace(0, len(listed) - 1, min(MANY, len(listed))).astype(int)]
    if any((root / str(path)).exists() for path in some):
        return
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in root.glob("*/*")):
        raise stale_error(f"it is of other clips than those in dataset.root, {root}", paths.INDEX, "index")
