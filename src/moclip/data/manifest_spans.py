"""The columns start and end of a manifest: which rows are spans of a longer video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from moclip.data.row_errors import refuse
from moclip.video.times import SECOND

START, END = "start", "end"
TO_THE_END = np.iinfo(np.int64).max
"""The end of a clip that goes on to the end of its video."""
CLIP = ["path", START, END]
"""The columns that say what a row's clip is."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CLOCK = r"(?:(\d+):)?([0-5]?\d):([0-5]?\d(?:\.\d*)?)"
_LONGEST = 1e9  # seconds: what is more is no time in a video
_FIX = "write seconds, such as 12.5, or h:mm:ss.s; leave it empty for the video's own start or end"


def parse_spans(rows: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Return the rows with their start and end in whole microseconds, int64; an empty end is `TO_THE_END`.

    `rows` have a column number and perhaps the columns start and end as text. Raises DatasetError, with row and column,
    for what is no time, for a negative start, and for an end that is not after its start.
    """
    parsed = rows.copy(deep=False)
    for name, default in ((START, 0), (END, TO_THE_END)):
        times = np.full(len(rows), default, np.int64)
        if name in rows:
            given = rows[name] != ""
            seconds = _seconds(rows.loc[given, name])
            refuse(seconds.isna(), rows[given], name, "{!r} is no time", _FIX, file)
            refuse(seconds < 0, rows[given], name, "{!r} is negative", _FIX, file)
            times[given.to_numpy()] = np.rint(seconds.to_numpy(np.float64) * SECOND).astype(np.int64)
        parsed[name] = times
    wrong = parsed[END] <= parsed[START]
    if wrong.any():
        first = rows[wrong].iloc[0]
        what = f"{{!r}} is not after the start, {first.get(START) or '0'!r}"
        refuse(wrong, rows, END, what, "write when the clip starts and when it ends", file)
    return parsed


def _seconds(cells: pd.Series) -> pd.Series:
    """Return times in seconds, float64; NaN for what is no time."""
    seconds = pd.to_numeric(cells.where(cells.str.fullmatch(_NUMBER)), errors="coerce").astype("float64")
    clock = cells[cells.str.contains(":", regex=False)]
    if len(clock):
        parts = clock.str.extract(f"^{_CLOCK}$").fillna({0: "0"}).astype("float64")
        seconds[clock.index] = parts[0] * 3600 + parts[1] * 60 + parts[2]
    return seconds.where(seconds.abs() <= _LONGEST)


def are_spans(rows: pd.DataFrame) -> pd.Series:
    """Return whether each row is a span of its video, by its start and end; the others are whole videos."""
    return (rows[START] > 0) | (rows[END] < TO_THE_END)


def clip_names(rows: pd.DataFrame) -> pd.Series:
    """Return a name for each row's clip: its path, for a span with the times in seconds: "day.mp4@12.5-20"."""
    names = rows["path"].copy()
    spans = are_spans(rows)
    if spans.any():
        cut = rows[spans]
        ends = ("" if end == TO_THE_END else _time_text(end) for end in cut[END].tolist())
        named = zip(cut["path"], map(_time_text, cut[START].tolist()), ends, strict=True)
        names[spans] = [f"{path}@{start}-{end}" for path, start, end in named]
    return names


def _time_text(time: int) -> str:
    """Return microseconds as seconds: "12.5"."""
    whole, part = divmod(time, SECOND)
    return f"{whole}.{part:06d}".rstrip("0") if part else str(whole)


def video_keys(rows: pd.DataFrame, file: Path) -> pd.Series:
    """Return the key of each row's video in the store of motion fields, which holds a video once for all its spans.

    It is the path of a file that has spans, and the id of a clip that is alone in its file. Raises DatasetError where
    both are the same name.
    """
    cut = rows["path"].isin(rows.loc[are_spans(rows), "path"].unique())
    keys = rows["id"].where(~cut, rows["path"])
    if cut.any():
        taken = ~cut & rows["id"].isin(rows.loc[cut, "path"].unique())
        fix = "write a name that is no path of another row"
        refuse(taken, rows, "id", "{!r} is also the path of a video that other rows are spans of", fix, file)
    return keys


def divided_videos(rows: pd.DataFrame, file: Path) -> Iterator[str]:
    """Describe videos whose spans are in test and in train or val, or, without splits, in several groups."""
    cut = rows[rows.duplicated("path", keep=False)]
    if "split" in cut:
        yield from divided(cut, "path", "video", file)
    elif "group" in cut:
        several = cut[cut.groupby("path")["group"].transform("nunique") > 1]
        if len(several):
            own = several[several["path"] == several["path"].iloc[0]]
            other = own[own["group"] != own["group"].iloc[0]].iloc[0]
            yield (
                f"{file}: clips of the video {own['path'].iloc[0]} are in several groups (rows {own['number'].iloc[0]} "
                f"and {other['number']}), and so perhaps in train and in test; such videos: {several['path'].nunique()}"
            )


def divided(rows: pd.DataFrame, column: str, name: str, file: Path) -> Iterator[str]:
    """Describe groups, the values of `column`, with clips in test, and in train or val."""
    used = rows[rows["split"].isin(("train", "val", "test"))]
    tested = used["split"] == "test"
    both = np.intersect1d(used[column][tested].unique(), used[column][~tested].unique())
    if len(both):
        own = used[used[column] == both[0]]
        test, other = (own[own["split"].eq("test") == side].iloc[0] for side in (True, False))
        yield (
            f"{file}: the {name} {both[0]} is in test (row {test['number']}) and in {other['split']} "
            f"(row {other['number']}); such {name}s: {len(both)}; clips cut from one video are alike"
        )
