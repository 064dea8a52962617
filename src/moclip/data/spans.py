"""Clips that are spans of longer videos: their frames, and the columns of the index that say where they are.

A video is probed, and its motion fields are stored, once for all its spans. Frame k of a span is frame `first` + k of
the video, so that whatever is read of it is what a plain decode of the whole video gives there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from moclip.data.clip_folder import join_first_lines
from moclip.data.manifest_spans import END, START, TO_THE_END
from moclip.video.probe import ShownFrames
from moclip.wording import counted

SPAN_COLUMNS = {"video": "str", "first": "int64", "video_frames": "int64", "video_md5": "str"}
"""Columns of an index with spans, and their types.

video : the key of the clip's video in the store of motion fields.
first : number of the clip's first frame in its video.
video_frames, video_md5 : of the video. `frames` are the clip's own, and `md5` stands for the clip's own contents.
"""

REASONS = (
    "",
    "its start is beyond the video's end",
    "no frame from its start to its end",
    "1 frame from its start to its end: a clip needs at least 2 to have motion",
    "no motion vectors from its start to its end",
)
"""Why a span cannot be used, by number; the first one can."""


def cut_frames(shown: ShownFrames, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the frames of spans of a video: those that are shown at times t with start <= t < end.

    `starts` and `ends` (n,) int64 are in microseconds. Returns int64 (n, 4): the first frame, the number of frames, the
    number of the reason why the span cannot be used (`REASONS`), and whether it ends more than a frame after the video.
    """
    first, stop = np.searchsorted(shown.times, starts), np.searchsorted(shown.times, ends)
    moving = np.concatenate([[0], np.cumsum(shown.carries_motion)])
    frames = stop - first
    reason = np.select(
        [starts >= shown.end, frames == 0, frames == 1, moving[stop] == moving[first]], [1, 2, 3, 4], default=0
    )
    duration = shown.end - shown.times[-1]
    is_longer = (ends > shown.end + duration) & (ends != TO_THE_END)
    return np.stack([first, frames, reason, is_longer], axis=1).astype(np.int64)


def videos_with_spans(rows: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """Return the number of each row's file, in the order of `rows["path"].unique()`, and the spans of each file.

    `rows` are a manifest's. The spans of a file are the starts and ends of all its rows, in their order, int64 (n, 2);
    None for a file that is one clip as a whole.
    """
    numbers, paths = pd.factorize(rows["path"])
    spans = rows[[START, END]].to_numpy(np.int64)
    found: list[np.ndarray | None] = [None] * len(paths)
    is_cut = np.zeros(len(paths), bool)
    is_cut[numbers[(spans != [0, TO_THE_END]).any(axis=1)]] = True
    if is_cut.any():
        for number, own in _rows_of_videos(numbers, len(paths)):
            found[number] = spans[own] if is_cut[number] else None
    return numbers, found


def rows_of_clips(
    videos: pd.DataFrame, numbers: np.ndarray, cuts: Sequence[np.ndarray | None], keys: Sequence[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a row of the index per clip, with `SPAN_COLUMNS`, from a row per file; and which clips' end is too late.

    `videos` has the columns that a probe gives. `numbers` (n,) is the row of each clip's file, `cuts` has the result of
    `cut_frames` for each file, None for one that is no clip's or is one clip as a whole, or cannot be read. `keys` are
    the column video.
    """
    table = videos.iloc[numbers].reset_index(drop=True)
    table = with_span_columns(table).assign(video=list(keys))
    too_late = np.zeros(len(table), bool)
    if all(cut is None for cut in cuts):
        return table, too_late
    found = [(own, cut) for (number, own) in _rows_of_videos(numbers, len(videos)) if (cut := cuts[number]) is not None]
    rows = np.concatenate([own for own, _ in found])
    first, frames, reason, is_longer = np.concatenate([cut for _, cut in found]).T
    for name, values in (("first", first), ("frames", frames)):
        column = table[name].to_numpy(np.int64, copy=True)
        column[rows] = values
        table[name] = column
    bad = rows[reason > 0]
    table.loc[bad, "status"] = "failed"
    table.loc[bad, "reason"] = np.array(REASONS, object)[reason[reason > 0]]
    too_late[rows] = (is_longer > 0) & (reason == 0)
    table["md5"] = list(_contents(table))
    return table, too_late


def _rows_of_videos(numbers: np.ndarray, videos: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each video, and the places of its clips in `numbers`."""
    ends = np.cumsum(np.bincount(numbers, minlength=videos))
    yield from enumerate(np.split(np.argsort(numbers, kind="stable"), ends[:-1]))


def _contents(table: pd.DataFrame) -> Iterator[str]:
    """Yield what stands for the contents of each clip: its file's MD5; for a span a digest of that and its frames."""
    spans = are_cut(table)
    for md5, first, frames, is_span in zip(table["video_md5"], table["first"], table["frames"], spans, strict=True):
        yield hashlib.md5(f"{md5} {first} {frames}".encode()).hexdigest() if is_span else md5


def with_span_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return an index with `SPAN_COLUMNS`; in one that has none, each clip is a whole file."""
    if "video" in table:
        return table
    return table.assign(video=table["id"], first=0, video_frames=table["frames"], video_md5=table["md5"])


def are_cut(table: pd.DataFrame) -> pd.Series:
    """Return whether each clip of an index is less than the whole of its file."""
    return (table["first"] > 0) | (table["frames"] < table["video_frames"])


def has_spans(table: pd.DataFrame) -> bool:
    """Return whether clips of an index are spans of longer videos."""
    return bool(((table["video"] != table["id"]) | are_cut(table)).any())


def videos_of(clips: pd.DataFrame) -> pd.DataFrame:
    """Return a row per video of these clips, sorted by its key: id, frames and md5 are then the video's."""
    videos = clips.drop_duplicates("video")
    videos = videos.assign(id=videos["video"], frames=videos["video_frames"], md5=videos["video_md5"])
    return videos.sort_values("id", ignore_index=True)


def ordered_by_video(clips: pd.DataFrame, stills: int) -> pd.DataFrame:
    """Return rows of an index in the order of their videos, and in a video of the last of `stills` middle frames.

    A pass over the video then completes one clip after the other. Whole files stay in the order of their ids.
    """
    last = clips["first"] + ((stills - 0.5) * clips["frames"] / stills).astype("int64")
    return clips.assign(last=last).sort_values(["video", "last", "id"], ignore_index=True).drop(columns="last")


def fields_of_clips(clips: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """Return the store's table with a row per clip: where its fields are in the store, and why they are not.

    `clips` are rows of the index, `videos` is the store's table, with a row per video. `md5` stays that of the video's
    file. A span of which the store has fewer than two frames has failed.
    """
    of_videos = videos.rename(columns={"id": "video"}).rename(columns={"length": "video_length"})
    rows = clips[["id", "video", "first", "frames"]].merge(of_videos, on="video", how="inner")
    there = (rows["video_length"] - rows["first"]).clip(lower=0)
    whole = (rows["first"] == 0) & ~(rows["frames"] < there)
    ok = rows["status"] == "ok"
    rows["length"] = np.where(ok, np.where(whole, there, np.minimum(rows["frames"], there)), 0)
    lost = ok & (rows["length"] < 2)
    rows.loc[lost, "status"], rows.loc[lost, "reason"] = "failed", "fewer frames decode than were indexed"
    span = ~whole & ok
    rows["offset"] += np.where(span, rows["first"], 0)
    rows["slots"] = np.where(span, rows["length"], rows["slots"])
    return rows[list(videos.columns)]


def too_late_notes(clips: pd.DataFrame) -> list[str]:
    """Return a note on clips that end more than a frame after their videos."""
    if clips.empty:
        return []
    names = join_first_lines(clips["id"], 3).replace("\n  ", ", ")
    count = counted(len(clips), "clip ends after its", "clips end after their")
    return [f"{count} video: used up to its end: {names}"]
