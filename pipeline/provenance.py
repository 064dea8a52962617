"""What an artifact was made with and from. It is recorded in the artifact and compared when it is read.

An artifact whose record no longer fits is stale, and refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from moclip.data.clip_weights import COLUMN as WEIGHT
from moclip.data.label_sets import COLUMN, is_multi_label
from moclip.errors import MoclipError, StoreError
from moclip.files.folders import is_url
from moclip.video.clip_files import file_md5
from moclip.wording import shorten_list
from pipeline import paths
from pipeline.params import Params

FIELD_KEYS = ("mv.canvas", "mv.cell", "mv.clip", "mv.accumulate", "mv.per", "index.transcode")
"""What motion fields are made with. A network can only read fields that were made as those it was trained on."""

MAX_REHASHED = 100
"""Most clips newer than the index whose content is compared. If more are newer, all were copied again."""


def made_with(params: Params, *keys: str) -> dict[str, Any]:
    """Return the values of keys of params.yaml, as JSON holds them, for an artifact's attribute `made_with`."""
    return {key: json.loads(json.dumps(reduce(getattr, key.split("."), params))) for key in keys}


def clips_digest(clips: pd.DataFrame) -> str:
    """Return 16 hexadecimal digits that stand for the contents of clips (columns id, md5), in their order."""
    return _column_digest(clips, "md5")


def _column_digest(clips: pd.DataFrame, column: str) -> str:
    text = "\n".join(f"{name} {value}" for name, value in zip(clips["id"], clips[column], strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_record(rows: pd.DataFrame, usable: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Return what a model records of its training data: clips, labels, splits, classes, and weights if there are any.

    `rows` are the index's rows of train and val, `usable` those of all usable clips, `classes` the names in label
    order.
    """
    return {
        "classes": list(classes),
        "clips": clips_digest(rows),
        "labels": _column_digest(rows, COLUMN if is_multi_label(rows) else "label"),
        "split": _column_digest(rows, "split"),
        "usable": clips_digest(usable),
    } | ({"weights": _column_digest(rows, WEIGHT)} if WEIGHT in rows else {})


def check_training_record(
    recorded: Mapping[str, Any], current: Mapping[str, Any], where: str | Path, stage: str
) -> None:
    """Raise StoreError if a model was trained on other clips, labels, splits, classes or weights than there are now."""
    if differences := _record_differences(recorded, current):
        raise stale_error(f"it was trained on {' and '.join(differences)} than the index has now", where, stage)


def _record_differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    found = []
    if recorded["classes"] != current["classes"]:
        found.append(class_difference(recorded["classes"], current["classes"]))
    elif recorded["labels"] != current["labels"] and recorded["clips"] == current["clips"]:
        found.append("other labels")
    if recorded["clips"] != current["clips"]:
        # with the same usable clips, only the choice of those in train and val differs
        found.append("another split" if recorded["usable"] == current["usable"] else "other clips")
    elif recorded["split"] != current["split"]:
        found.append("another split")
    if not found and recorded.get("weights") != current.get("weights"):
        found.append("other weights of clips")
    return found


def class_difference(recorded: Sequence[str], current: Sequence[str]) -> str:
    """Return how two different lists of classes differ."""
    return "another class order" if sorted(recorded) == sorted(current) else "other classes"


def check_made_with(recorded: Mapping[str, Any], params: Params, where: str | Path, stage: str) -> None:
    """Raise StoreError if params.yaml now has other values than the artifact was made with."""
    for key, value in recorded.items():
        if (current := made_with(params, key)[key]) != value:
            what = f"it was made with {key}: {json.dumps(value)}, and params.yaml says {json.dumps(current)}"
            raise stale_error(what, where, stage)


def check_digest(current: str, recorded: str | None, other: str, where: str | Path, stage: str) -> None:
    """Raise StoreError if an artifact records another digest: "it was made from `other`". No record passes."""
    if recorded is not None and current != recorded:
        raise stale_error(f"it was made from {other}", where, stage)


def stale_error(what: str, where: str | Path, stage: str) -> StoreError:
    """Return the error for a stale artifact, which `stage` makes again."""
    return StoreError(what, where=where, fix=f"run: dvc repro {stage} (or: moclip {stage})")


def check_clips_unchanged(clips: pd.DataFrame, root: str) -> None:
    """Raise MoclipError if files of clips (columns path, bytes, video_md5) have changed since they were indexed.

    Files that are gone are skipped. Sizes are compared. Contents are compared only if few clips are newer than the
    index: if many are, all were copied again.
    """
    if is_url(root):
        return
    indexed_at = paths.INDEX.stat().st_mtime
    newer: list[Any] = []
    changed: list[str] = []
    for row in clips[["id", "path", "bytes", "video_md5"]].drop_duplicates("path").itertuples():
        try:
            file = Path(root, str(row.path)).stat()
        except OSError:
            continue
        if file.st_size != row.bytes:
            changed.append(str(row.id))
        elif file.st_mtime > indexed_at:
            newer.append(row)
    if len(newer) <= MAX_REHASHED:
        changed += [row.id for row in newer if file_md5(Path(root, row.path)) != row.video_md5]
    if changed:
        raise MoclipError(
            f"{shorten_list(changed)} changed since the index was written",
            where=root,
            fix="run: dvc repro (or first: moclip index)",
        )
