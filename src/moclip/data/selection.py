"""Choose rows of the index (usable clips, a few per class, base classes), and count them."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from moclip.data.clip_folder import ClipFolder
from moclip.data.label_sets import is_multi_label, label_names


def usable_clips(table: pd.DataFrame, *splits: str) -> pd.DataFrame:
    """Return the rows of the index with status ok in the given splits; without any, in all splits but "none"."""
    wanted = table["split"].isin(splits) if splits else table["split"] != "none"
    return table[wanted & (table["status"] == "ok")].reset_index(drop=True)


def few_shot(rows: pd.DataFrame, shots: int | bool, seed: int) -> pd.DataFrame:
    """Return at most `shots` rows of each class (columns id, label), in their order; all rows if `shots` is False.

    A clip's rank depends only on the seed and its id. So the clips of 2 shots contain those of 1 shot, and a clip added
    to the folder replaces at most one.
    """
    if shots is False:
        return rows
    rank = rows["id"].map(lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    kept = rows.loc[rank.sort_values().index].groupby("label", sort=False).head(int(shots)).index
    return rows[rows.index.isin(kept)].reset_index(drop=True)


def base_classes(classes: int) -> int:
    """Return how many classes, from the first in label order, base-to-new trains on (arXiv 2203.05557, section 4.1)."""
    return (classes + 1) // 2


def class_names(table: pd.DataFrame) -> list[str]:
    """Return the class names of the index in label order."""
    if is_multi_label(table):
        return label_names(table)
    named = table[table["label"] >= 0].drop_duplicates("label").sort_values("label")
    return [str(name) for name in named["class"]]


def index_counts(table: pd.DataFrame, folder: ClipFolder | None = None) -> dict[str, object]:
    """Summarise an index: clips, classes, split sizes, codecs, failures by reason.

    `listed` counts the clips in a split, including those without a file; `usable_of_listed` the usable ones of them.
    `ignored_files` counts files, hidden folders and links that are no clips; `hidden_files` the hidden ones of them;
    `links_out` and `broken_links` the links of them that lead out of the root, and to nothing.
    """
    ok = table[table["status"] == "ok"]
    codec = ok["codec"] + np.where(ok["has_b"], " with B-frames", "")
    listed = table["split"] != "none"
    return {
        "clips": len(table),
        "usable": len(ok),
        "listed": int(listed.sum()),
        "usable_of_listed": int((ok["split"] != "none").sum()),
        "classes": len(class_names(table)),
        "splits": tally(ok["split"]),
        "codecs": tally(codec),
        "damaged": int((ok["damage"] != "").sum()),
        "not_usable": tally(table.loc[table["status"] != "ok", "reason"]),
        "ignored_files": len(folder.ignored) if folder else 0,
        "hidden_files": len(folder.hidden) if folder else 0,
        "misplaced_clips": len(folder.misplaced) if folder else 0,
        "links_out": len(folder.links_out) if folder else 0,
        "broken_links": len(folder.broken_links) if folder else 0,
    }


def tally(values: pd.Series) -> dict[str, int]:
    """Count how often each value occurs, sorted by value."""
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}
