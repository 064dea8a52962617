"""Read the lists of other projects as rows of a manifest: Kinetics, MMAction2, ActivityNet."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from moclip.data.text_files import ENCODING_FIX, decode_text
from moclip.data.text_tables import read_text_table
from moclip.errors import DatasetError

KINETICS = ("label", "youtube_id", "time_start", "time_end", "split")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_foreign_list(file: Path, classes: Sequence[str] | None = None, trimmed: bool = False) -> pd.DataFrame:
    """Read a list as a table with columns of a manifest, all text.

    A .csv file is Kinetics' (label, youtube_id, time_start, time_end, split), a .json file ActivityNet's; a row of both
    is a span of a whole video, with start and end in seconds, and the YouTube id as group. Other files are MMAction2's,
    "path number"; `classes` are the names of the numbers from 0. With `trimmed`, a row of Kinetics names the trimmed
    file, which has no start and end. Raises DatasetError, with the row, for what cannot be read.
    """
    if not file.is_file():
        raise DatasetError("not found", where=file)
    if file.suffix.lower() == ".csv":
        return _read_kinetics(file, trimmed)
    return _read_activitynet(file) if file.suffix.lower() == ".json" else _read_video_list(file, classes)


def read_class_names(file: Path) -> list[str]:
    """Read MMAction2's list of classes: a name per line, from number 0. If all lines have a number, it is left out."""
    names = [line.strip() for line in _lines(file) if line.strip()]
    numbered = [re.fullmatch(r"\d+\s+(.+)", name) for name in names]
    return [found[1] for found in numbered if found] if all(numbered) else names


def _read_kinetics(file: Path, trimmed: bool) -> pd.DataFrame:
    read = read_text_table(file, KINETICS)
    table = read.columns
    if missing := [name for name in KINETICS[:4] if name not in table]:
        fix = f"the columns of Kinetics' lists are {', '.join(KINETICS)}"
        raise DatasetError(f"no column {missing[0]}", where=file, fix=fix)
    times = {name: pd.to_numeric(table[name], errors="coerce") for name in ("time_start", "time_end")}
    for name, seconds in times.items():
        if seconds.isna().any():
            row = int(seconds.isna().to_numpy().argmax())
            raise DatasetError(f"row {read.numbers[row]}, column {name}: {table[name][row]!r} is no number", where=file)
    start, end = (_padded(table[name], seconds) for name, seconds in times.items())
    clip = table["youtube_id"] + "_" + start + "_" + end
    rows = pd.DataFrame({"path": (clip if trimmed else table["youtube_id"]) + ".mp4", "label": table["label"]})
    if "split" in table:
        rows["split"] = table["split"].str.lower().map(_SPLITS)
        if rows["split"].isna().any():
            row = int(rows["split"].isna().to_numpy().argmax())
            what = f"row {read.numbers[row]}, column split: {table['split'][row]!r}"
            raise DatasetError(what, where=file, fix=f"expected {', '.join(_SPLITS)}")
    rows["group"] = table["youtube_id"]
    rows["id"] = clip
    if not trimmed:
        rows["start"], rows["end"] = table["time_start"], table["time_end"]
    return rows.drop_duplicates(ignore_index=True)


def _padded(cells: pd.Series, seconds: pd.Series) -> pd.Series:
    """Return times as the names of trimmed files have them: 000010. Those with a fraction stay as they are."""
    return seconds.astype("int64").astype("str").str.zfill(6).where(seconds % 1 == 0, cells)


def _read_activitynet(file: Path) -> pd.DataFrame:
    try:
        videos: dict[str, Any] = json.loads("\n".join(_lines(file)))["database"]
        rows = [
            {
                "path": f"v_{name}.mp4",
                "label": one["label"],
                "split": _SPLITS[video["subset"].lower()],
                "group": name,
                "id": f"{name}_{number}",
                "start": _seconds_text(one["segment"][0]),
                "end": _seconds_text(one["segment"][1]),
            }
            for name, video in videos.items()
            for number, one in enumerate(video.get("annotations", []))
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as problem:
        fix = 'expected {"database": {ID: {"subset": "training", "annotations": [{"label": ..., "segment": [1, 2]}]}}}'
        what = f"not a list of ActivityNet ({type(problem).__name__}: {problem})"
        raise DatasetError(what, where=file, fix=fix) from None
    return pd.DataFrame(rows)


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def spans_without_duration(rows: pd.DataFrame) -> pd.Series:
    """Return whether each row's end is not after its start; ActivityNet has such annotations."""
    if "start" not in rows:
        return pd.Series(False, index=rows.index)
    return pd.to_numeric(rows["end"]) <= pd.to_numeric(rows["start"])


def _read_video_list(file: Path, classes: Sequence[str] | None) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        found = re.fullmatch(r"(.*\S)\s+(\d+)", line.strip())
        if not found:
            fix = "each line is the path of a clip and the number of its class"
            raise DatasetError(f"row {number}: {line.strip()!r}", where=file, fix=fix)
        path, label = found[1], int(found[2])
        if classes is not None and label >= len(classes):
            what = f"row {number}: no class {label}: the list of classes has {len(classes)}, from 0"
            raise DatasetError(what, where=file)
        rows.append({"path": path, "label": found[2] if classes is None else classes[label]})
    table = pd.DataFrame(rows)
    named = re.search(r"(?:^|[\W_])(train|val|test)", file.stem.lower())
    return table.assign(split=named[1]) if named else table


def _lines(file: Path) -> list[str]:
    try:
        text = decode_text(file.read_bytes())
    except OSError as problem:
        raise DatasetError(f"cannot be read: {problem.strerror}", where=file) from None
    if text is None:
        raise DatasetError("not text in UTF-8", where=file, fix=ENCODING_FIX)
    return re.split("\r\n|\r|\n", text)
