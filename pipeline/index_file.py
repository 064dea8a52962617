"""Write and read data/index.parquet. It records what it was made with, and is refused if that no longer fits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from moclip.data.balance import spaced_rows
from moclip.data.spans import with_span_columns
from moclip.files.folders import is_url
from moclip.video.clip_files import VIDEO_SUFFIXES, file_md5
from pipeline import params as parameters
from pipeline import paths
from pipeline.io import read_parquet, write_parquet
from pipeline.params import NO_FILE, Params
from pipeline.provenance import check_digest, check_made_with, made_with, stale_error

INDEX_KEYS = (
    "seed",
    "dataset.split",
    "dataset.val_fraction",
    "dataset.test_fraction",
    "dataset.group",
    "index.transcode",
)
"""Parameters that the index records. It does not record where clips and lists are, but which they are."""

SEEDED = "random split, clips of one source together"
"""How `split_source` in metrics/counts/index.json begins if neither lists nor a manifest give the splits."""

LEFT_OUT_KEY = "dataset.unknown"
"""Also recorded by the index, if it leaves classes out."""

MAX_LOOKED_UP = 200
"""Most clips of the index that are looked for in dataset.root."""


def write_index(table: pd.DataFrame, params: Params, lists: Path) -> None:
    """Write the index and record its parameters and a digest of the split lists, or of the manifest, in it."""
    keys = (*INDEX_KEYS, LEFT_OUT_KEY) if params.dataset.unknown else INDEX_KEYS
    table.attrs = {"made_with": made_with(params, *keys), "lists": _lists_digest(lists)}
    if params.dataset.manifest != NO_FILE:
        table.attrs["manifest"] = file_md5(params.dataset.manifest)
    write_parquet(paths.INDEX, table)


def read_index(params: Params) -> pd.DataFrame:
    """Read the index, with the columns `SPAN_COLUMNS`, whether or not clips are spans of longer videos.

    Raises MoclipError if it is missing, or was made with other parameters, split lists, another manifest or other
    clips than there are now. Lists, manifests and clips that are gone are not checked.
    """
    table = read_parquet(paths.INDEX, "index")
    record, table.attrs = table.attrs, {}
    # The index depends on the seed in params.yaml. A stage's option --seed only changes that stage's training.
    seed = parameters.read_raw(paths.PARAMS).get("seed") if paths.PARAMS.exists() else params.seed
    recorded = {LEFT_OUT_KEY: []} | record.get("made_with", {})
    check_made_with(recorded, params.model_copy(update={"seed": seed}), paths.INDEX, "index")
    root, splits = params.dataset.root, params.dataset.splits
    if not is_url(root):
        _check_same_clips(table, Path(root))
    if not is_url(splits) and Path(splits).is_dir():
        check_digest(_lists_digest(Path(splits)), record.get("lists"), "other split lists", paths.INDEX, "index")
    manifest = params.dataset.manifest
    if manifest == NO_FILE or Path(manifest).exists():
        current = file_md5(manifest) if manifest != NO_FILE else ""
        check_digest(current, record.get("manifest", ""), "another manifest", paths.INDEX, "index")
    return with_span_columns(table)


def _lists_digest(folder: Path) -> str:
    """Return 16 hexadecimal digits that stand for the text files in a folder, "" if there are none."""
    files = sorted(folder.glob("*.txt"))
    text = "\n".join(f"{file.name} {file_md5(file)}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if files else ""


def _check_same_clips(table: pd.DataFrame, root: Path) -> None:
    """Raise StoreError if a folder has clips, but none of the index's."""
    listed = table.loc[table["status"] == "ok", "path"]
    sample = listed.iloc[spaced_rows(len(listed), MAX_LOOKED_UP)]
    if any(is_url(path) or (root / str(path)).exists() for path in sample):
        return
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in root.glob("*/**/*")):
        raise stale_error(f"it is of other clips than those in dataset.root, {root}", paths.INDEX, "index")
