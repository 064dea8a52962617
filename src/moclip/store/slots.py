"""Where each video lies in the store's array, decided before anything is read, and which videos make a job.

Any number of workers then write their shards without a lock, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.store.layout import CHUNK_FRAMES, SHARD_FRAMES

WINDOW = 1024  # shards compared at once when looking for room


def plan_slots(
    videos: pd.DataFrame, chunk: int = CHUNK_FRAMES, shard: int = SHARD_FRAMES, previous: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Give each video its place in the array, before anything is read.

    A slot is a whole number of chunks and lies in one shard; a video longer than a shard takes whole consecutive
    shards of its own. A video that `previous` has under the same id with a slot of the same length keeps it. The
    others are placed in the order of their ids: in the first shard with room behind its last video, a long video behind
    all shards. The hole that a removed video leaves between others stays until its shard is empty. The result depends
    on the set of videos and on `previous` only, not on the order of rows.

    Parameters
    ----------
    videos : columns id (str), frames (whole numbers).
    chunk, shard : frames; `shard` is a multiple of `chunk`.
    previous : columns id, offset, slots, of a store with the same chunk and shard.

    Returns
    -------
    Columns id (str), offset, slots, shard (the first one's number; int64 each), in the order of `videos`.

    Raises
    ------
    StoreError
        Two videos have the same id, or a shard is no whole number of chunks.
    """
    if shard % chunk:
        raise StoreError(f"a shard of {shard} frames does not hold whole chunks of {chunk}")
    if not videos["id"].is_unique:
        raise StoreError("two videos have the same id", fix="ids must be unique in the index")
    slots = _slots(videos["frames"].to_numpy(np.int64), chunk, shard)
    offset = np.full(len(videos), -1, np.int64)
    if previous is not None and len(previous):
        at = pd.Index(previous["id"]).get_indexer(pd.Index(videos["id"]))
        same = (at >= 0) & (previous["slots"].to_numpy(np.int64)[at] == slots)
        offset[same] = previous["offset"].to_numpy(np.int64)[at[same]]
    kept = offset >= 0
    by_id = videos["id"].argsort().to_numpy()
    new = by_id[~kept[by_id]]
    offset[new] = _first_fit(slots[new], _room(offset[kept], slots[kept], shard), shard)
    columns = {"offset": offset, "slots": slots, "shard": offset // shard}
    return pd.DataFrame({"id": pd.Series(videos["id"].array, dtype="str"), **columns}, copy=False)


def _slots(frames: np.ndarray, chunk: int, shard: int) -> np.ndarray:
    step = np.where(frames <= shard, chunk, shard)
    return np.maximum(1, -(-frames // step)) * step


def _room(offset: np.ndarray, slots: np.ndarray, shard: int) -> np.ndarray:
    """The frames left behind the last video of each shard, int64 (shards,)."""
    end = offset + slots
    room = np.full(-(-int(end.max(initial=0)) // shard), shard, np.int64)
    np.minimum.at(room, (end - 1) // shard, -end % shard)
    for start, stop in zip(offset[slots > shard] // shard, end[slots > shard] // shard, strict=True):
        room[start:stop] = 0
    return room


def _first_fit(slots: np.ndarray, room: np.ndarray, shard: int) -> np.ndarray:
    """Place slots one after the other; returns their offsets, int64 (n,).

    Room only shrinks, so the first shard with room for a length only moves on. Full ones are passed by in windows.
    """
    end, new = len(room), int(np.maximum(1, slots // shard).sum())
    room = np.concatenate([room, np.full(new, shard, np.int64)])  # there is always a shard with room
    first: dict[int, int] = {}
    offset = np.empty(len(slots), np.int64)
    for number, length in enumerate(slots.tolist()):
        if length > shard:
            at, end = end, end + length // shard
            room[at:end] = 0
            offset[number] = at * shard
            continue
        at = first.get(length, 0)
        while room[at] < length:
            at += int((room[at : at + WINDOW] >= length).argmax()) or WINDOW
        first[length] = at
        offset[number] = (at + 1) * shard - room[at]
        room[at] -= length
        end = max(end, at + 1)
    return offset


@dataclass(frozen=True, eq=False, slots=True)
class Planned:
    """A job: `count` shards from `first` on, and the rows of the videos that begin in them, ordered by offset."""

    first: int
    count: int
    rows: np.ndarray


def by_shard(offsets: np.ndarray, slots: np.ndarray, shard: int) -> list[Planned]:
    """Group videos into jobs: a shard with all videos that begin in it, or all shards of one long video.

    Parameters
    ----------
    offsets, slots : int64 (n,), places as `plan_slots` gives them.
    shard : frames in one.

    Returns
    -------
    The jobs in the order of their shards; the rows of each, int64 (videos,), in the order of their offsets.
    """
    order = np.argsort(offsets, kind="stable")
    shards = offsets[order] // shard
    starts = np.flatnonzero(np.diff(shards, prepend=-1))
    counts = -(-slots[order[starts]] // shard)
    rows = np.split(order, starts[1:]) if len(starts) else []
    return [Planned(*job) for job in zip(shards[starts].tolist(), counts.tolist(), rows, strict=True)]
