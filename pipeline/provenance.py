"""What an artifact was made with and from: kept in it, and compared when it is read, so that a stale one is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from moclip.errors import MoclipError, StoreError
from moclip.files.folders import is_url
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.params import Params

FIELD_KEYS = ("mv.canvas", "mv.cell", "mv.clip", "mv.accumulate", "index.transcode")
"""What motion fields are made with; a network knows the fields that it was trained on, and no others."""

MANY = 200  # clips of the index that are looked for in dataset.root
FEW = 100  # clips younger than the index, at most, whose content is compared; more are a new copy of them all


def made_with(params: Params, *keys: str) -> dict[str, Any]:
    """The values of keys of params.yaml, as an artifact's attribute of this name keeps them."""
    return {key: json.loads(json.dumps(reduce(getattr, key.split("."), params))) for key in keys}


def clips_digest(clips: pd.DataFrame) -> str:
    """16 hexadecimal digits for the contents of clips (columns id, md5)."""
    return _digest(clips, "md5")


def _digest(clips: pd.DataFrame, column: str) -> str:
    """16 hexadecimal digits for what a column says of each clip."""
    text = "\n".join(f"{name} {value}" for name, value in zip(clips["id"], clips[column], strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def learnt_from(rows: pd.DataFrame, usable: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """What a training learns from: its clips (`rows` of the index, train and val), their labels and splits.

    `usable` are the index's rows of all clips that can be used, `classes` the names in label order.
    """
    return {
        "classes": list(classes),
        "clips": clips_digest(rows),
        "labels": _digest(rows, "label"),
        "split": _digest(rows, "split"),
        "usable": clips_digest(usable),
    }


def check_learnt(then: Mapping[str, Any], now: Mapping[str, Any], where: str | Path, stage: str) -> None:
    """Raise StoreError where a model was trained on other clips, labels, splits or classes than there are now."""
    if differing := _differing(then, now):
        raise stale_error(f"it was trained on {' and '.join(differing)} than the index has now", where, stage)


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if then["classes"] != now["classes"]:
        same = sorted(then["classes"]) == sorted(now["classes"])
        found.append("another class order" if same else "other classes")
    elif then["labels"] != now["labels"] and then["clips"] == now["clips"]:
        found.append("other labels")
    if then["clips"] != now["clips"]:
        # the same clips on the whole: others of them are in train and val
        found.append("another split" if then["usable"] == now["usable"] else "other clips")
    elif then["split"] != now["split"]:
        found.append("another split")
    return found


def check_made_with(made: Mapping[str, Any], params: Params, where: str | Path, stage: str) -> None:
    """Raise StoreError where params.yaml no longer says what the artifact was made with."""
    for key, then in made.items():
        if (now := made_with(params, key)[key]) != then:
            what = f"it was made with {key}: {json.dumps(then)}, and params.yaml says {json.dumps(now)}"
            raise stale_error(what, where, stage)


def check_made_from(now: str, then: str | None, what: str, where: str | Path, stage: str) -> None:
    """Raise StoreError where a digest is not the one that the artifact was made from."""
    if then is not None and now != then:
        raise stale_error(f"it was made from {what}", where, stage)


def stale_error(what: str, where: str | Path, stage: str) -> StoreError:
    """The error for an artifact that no longer fits; `stage` makes it anew."""
    return StoreError(what, where=where, fix=f"run: dvc repro {stage} (or: python -m stages.{stage})")


def check_clips(clips: pd.DataFrame, root: str) -> None:
    """Raise MoclipError where clips (columns id, path, bytes, md5) have changed since they were indexed.

    Those that are not there are not missed. Sizes are compared; and contents, where a few clips are younger than the
    index: if many are, all have been copied anew.
    """
    if is_url(root):
        return
    written = paths.INDEX.stat().st_mtime
    young: list[Any] = []
    changed: list[str] = []
    for row in clips[["id", "path", "bytes", "md5"]].itertuples():
        try:
            found = Path(root, str(row.path)).stat()
        except OSError:
            continue
        if found.st_size != row.bytes:
            changed.append(str(row.id))
        elif found.st_mtime > written:
            young.append(row)
    changed += [row.id for row in young if file_md5(Path(root, row.path)) != row.md5] if len(young) <= FEW else []
    if changed:
        raise MoclipError(
            f"{name_some(changed)} changed since the index was written",
            where=root,
            fix="run: dvc repro (or first: index)",
        )


def name_some(ids: Iterable[str], most: int = 3) -> str:
    """A few of many ids: "a, b, c and 7 more"."""
    every = list(ids)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
