"""What an artifact was made with and from, kept in it and compared when it is read: nothing trains on what is stale.

`dvc repro` makes anew what has changed before anything reads it. This is for stages that are run one by one, for
parameters changed by hand, and for clips that have changed since they were read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from moclip import storage
from moclip.errors import MoclipError, StoreError
from moclip.video import md5
from pipeline import paths
from pipeline.params import Params

FEW = 100  # clips younger than the index, at most, whose content is compared; more are a new copy of them all


def made_with(params: Params, *keys: str) -> dict[str, Any]:
    """The values of keys of params.yaml, as an artifact's attribute of this name keeps them."""
    return {key: json.loads(json.dumps(reduce(getattr, key.split("."), params))) for key in keys}


def clips_digest(clips: pd.DataFrame) -> str:
    """16 hexadecimal digits for the contents of clips (columns id, md5)."""
    text = "\n".join(f"{name} {content}" for name, content in zip(clips["id"], clips["md5"], strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_made_with(made: Mapping[str, Any], params: Params, where: str | Path, stage: str) -> None:
    """Raise StoreError where params.yaml no longer says what the artifact was made with."""
    for key, then in made.items():
        if (now := made_with(params, key)[key]) != then:
            what = f"it was made with {key}: {json.dumps(then)}, and params.yaml says {json.dumps(now)}"
            raise StoreError(what, where=where, fix=f"run: dvc repro {stage} (or: python -m stages.{stage})")


def check_made_from(now: str, then: str | None, what: str, where: str | Path, stage: str) -> None:
    """Raise StoreError where a digest is not the one that the artifact was made from."""
    if then is not None and now != then:
        fix = f"run: dvc repro {stage} (or: python -m stages.{stage})"
        raise StoreError(f"it was made from {what}", where=where, fix=fix)


def check_clips(clips: pd.DataFrame, root: str) -> None:
    """Raise MoclipError where clips (columns id, path, bytes, md5) have changed since they were indexed.

    Those that are not there are not missed. Sizes are compared; and contents, where a few clips are younger than the
    index: if many are, all have been copied anew.
    """
    if storage.is_url(root):
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
    changed += [row.id for row in young if md5(Path(root, row.path)) != row.md5] if len(young) <= FEW else []
    if changed:
        raise MoclipError(
            f"{named(changed)} changed since the index was written", where=root, fix="run: dvc repro (or first: index)"
        )


def named(ids: Iterable[str], most: int = 3) -> str:
    """A few of many ids: "a, b, c and 7 more"."""
    every = list(ids)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
