"""The index: one row a clip, with its class, split, group, and what `probe` found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from moclip.data.clip_folder import ClipFolder, first_few
from moclip.data.groups import group_of, hold_out, smallest_fraction
from moclip.data.list_matching import Matched, match_lists, two_at_least
from moclip.data.probing import ClipToProbe, clip_path, probe_clip, probe_lost, unusable
from moclip.data.split_lists import Splits
from moclip.errors import DatasetError
from moclip.video.transcoded_folder import read_failures
from moclip.workers.processes import run_jobs_in_order

INDEX_COLUMNS = {
    "id": "str",
    "path": "str",
    "class": "str",
    "label": "int64",
    "split": "str",
    "group": "str",
    "codec": "str",
    "w": "int32",
    "h": "int32",
    "fps": "float64",
    "frames": "int64",
    "gop": "int32",
    "has_b": "bool",
    "bytes": "int64",
    "status": "str",
    "reason": "str",
    "md5": "str",
    "damage": "str",
    "seekable": "bool",
}
"""Columns of the index. `split`: train, val, test or none (in no list); `status`: ok, failed, missing (only listed).

`frames` to `has_b` are as in `video.VideoInfo`, and so is `damage`: what does not decode of a clip that is usable
without it. `seekable` says so of the clip's own file, which stills are read from: false where another file is indexed.
"""


def build_index(
    root: str | Path,
    folder: ClipFolder,
    splits: Splits | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    workers: int = 1,
    advance: Callable[[int], object] = lambda count: None,
    transcoded: Path | None = None,
) -> pd.DataFrame:
    """One row a clip (`COLUMNS`), sorted by id: every clip in the folder, and every listed clip that is not there.

    With a folder of `transcoded` clips a row's `codec` to `bytes` and its `md5` are those of the transcoded file.
    Raises DatasetError where no training could come of it: one class, no usable train or test clip, no second group;
    where a clip is not transcoded; or where two parts of the lists mean one file.
    """
    matched = match_lists(folder, splits) if splits else None
    classes = matched.names if matched else two_at_least(folder.classes, "dataset.root wants a folder a class")
    failed = read_failures(transcoded) if transcoded else {}
    rows = []
    jobs = [
        ClipToProbe(str(root), clip, clip_path(root, clip, transcoded, failed), failed.get(clip))
        for clip in folder.clips
    ]
    for row in run_jobs_in_order(probe_clip, jobs, workers, probe_lost):
        rows.append(row)
        advance(1)
    rows += _absent(matched) if matched else []
    table = pd.DataFrame(rows)
    table["class"] = table["path"].str.split("/").str[0]
    if matched:
        table["class"] = table["class"].map(matched.classes)
    strangers = sorted(set(table["class"]) - set(classes))
    table["label"] = table["class"].map({name: label for label, name in enumerate(classes)}).fillna(-1)
    table.loc[table["class"].isin(strangers), ["status", "reason"]] = [
        "failed",
        "its class is in no list" if splits and splits.classes is None else "its class is not in classInd.txt",
    ]
    table["group"] = table["path"].map(splits.group if splits else group_of)
    table = table.sort_values("id", ignore_index=True)
    table["split"] = _split_column(table, matched, val_fraction, test_fraction, seed)
    table = table[list(INDEX_COLUMNS)].astype(INDEX_COLUMNS)
    _check(table, root, {"val": val_fraction} if splits else {"test": test_fraction, "val": val_fraction})
    return table


def _absent(matched: Matched) -> list[dict[str, object]]:
    """A row for each listed clip that is not in the folder."""
    names = {"train": "train", "test": "test", "none": "unused"}
    return [
        {"id": name, "path": name, "md5": ""}
        | unusable("missing", f"named in the {names[part]} list, not in the folder")
        for name, part in matched.missing.items()
    ]


def _split_column(
    table: pd.DataFrame, matched: Matched | None, val_fraction: float, test_fraction: float, seed: int
) -> pd.Series:
    column = pd.Series("train", index=table.index, dtype=object)
    if matched is None:
        ok = table["status"] == "ok"
        column[ok] = np.where(hold_out(table["group"][ok], table["label"][ok], test_fraction, seed), "test", "train")
    else:
        column[:] = table["path"].map(matched.parts).fillna("none")
    train = (column == "train") & (table["status"] == "ok")
    held = hold_out(table["group"][train], table["label"][train], val_fraction, seed + 1)
    column[held.index[held]] = "val"
    return column


def _check(table: pd.DataFrame, root: str | Path, fractions: Mapping[str, float]) -> None:
    """Raise DatasetError where a part has no clip. `fractions` has the parts that are held out by group."""
    ok = table[table["status"] == "ok"]
    for part, why in (("train", "to train on"), ("test", "to test on"), ("val", "to choose epochs on")):
        if not (ok["split"] == part).any():
            rest = ok[ok["split"].isin(("train", "val"))]
            more, advice = _why_none_is_held(part, fractions[part], rest) if part in fractions else ("", [])
            reasons = first_few(f"{row.id}: {row.reason}" for row in table.itertuples() if row.status != "ok")
            fix = "\n  ".join([*advice, *([reasons] if reasons else [])])
            raise DatasetError(f"no usable clip {why} among {len(table)} clips{more}", where=root, fix=fix or None)


def _why_none_is_held(part: str, fraction: float, rest: pd.DataFrame) -> tuple[str, list[str]]:
    enough = smallest_fraction(rest["group"], rest["label"])
    if enough is None:
        advice = "a clip's source is the gNN in its name, or else the clip itself; a class wants two sources at least"
        return "; none can be held out by group: one source only, or one a class", [advice]
    key = f"dataset.{part}_fraction"
    return f"; {key} = {fraction:g} is too small to hold out a group", [f"set {key} to {enough:g} or more"]
