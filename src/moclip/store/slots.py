"""Plan the slot of each video in the store's array, and group videos into jobs.

Slots are planned before anything is read, so any number of workers can write their shards in any order without a lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.store.layout import CHUNK_FRAMES, SHARD_FRAMES

WINDOW = 1024  # shards that are compared at once in the search for room


def plan_slots(
    videos: pd.DataFrame, chunk: int = CHUNK_FRAMES, shard: int = SHARD_FRAMES, previous: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Assign each video its slot: the frames of the array that it may fill.

    A slot has whole chunks within one shard. A video longer than a shard gets whole consecutive shards for itself. A
    video keeps its slot in `previous` if its new slot has the same length. The others are placed in the order of their
    ids: in the first shard with room behind its last video; a long video after all shards. The gap of a removed video
    stays until its shard is empty. The result depends only on the set of videos and on `previous`, not on the order of
    rows.

    Parameters
    ----------
    videos : columns id (str), frames (whole numbers).
    chunk, shard : frames; `shard` is a multiple of `chunk`.
    previous : columns id, offset, slots, of a store with the same chunk and shard.

    Returns
    -------
    A table in the order of `videos`, with the columns id (str), offset (first frame of the slot), slots (its frames)
    and shard (number of its first shard); int64 each.

    Raises
    ------
    StoreError
        Two videos have the same id, or `shard` is not a multiple of `chunk`.
    """
    if shard % chunk:
        raise StoreError(f"a shard of {shard} frames does not hold whole chunks of {chunk}")
    if not videos["id"].is_unique:
        raise StoreError("two videos have the same id", fix="ids must be unique in the index")
    slots = _slot_lengths(videos["frames"].to_numpy(np.int64), chunk, shard)
    offset = np.full(len(videos), -1, np.int64)
    if previous is not None and len(previous):
        at = pd.Index(previous["id"]).get_indexer(pd.Index(videos["id"]))
        same = (at >= 0) & (previous["slots"].to_numpy(np.int64)[at] == slots)
        offset[same] = previous["offset"].to_numpy(np.int64)[at[same]]
    kept = offset >= 0
    by_id = videos["id"].argsort().to_numpy()
    new = by_id[~kept[by_id]]
    offset[new] = _first_fit(slots[new], _room_in_shards(offset[kept], slots[kept], shard), shard)
    columns = {"offset": offset, "slots": slots, "shard": offset // shard}
    return pd.DataFrame({"id": pd.Series(videos["id"].array, dtype="str"), **columns}, copy=False)


def _slot_lengths(frames: np.ndarray, chunk: int, shard: int) -> np.ndarray:
    """Return the length of each video's slot in frames: whole chunks, or whole shards for a long video."""
    step = np.where(frames <= shard, chunk, shard)
    return np.maximum(1, -(-frames // step)) * step


def _room_in_shards(offset: np.ndarray, slots: np.ndarray, shard: int) -> np.ndarray:
    """Return how many frames are free behind the last video of each shard: int64 (shards,)."""
    end = offset + slots
    room = np.full(-(-int(end.max(initial=0)) // shard), shard, np.int64)
    np.minimum.at(room, (end - 1) // shard, -end % shard)
    for start, stop in zip(offset[slots > shard] // shard, end[slots > shard] // shard, strict=True):
        room[start:stop] = 0
    return room


def _first_fit(slots: np.ndarray, room: np.ndarray, shard: int) -> np.ndarray:
    """Place slots one after the other. Return their offsets: int64 (n,).

    Room only shrinks, so the search for a length continues at the shard where it ended the last time.
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
class PlannedJob:
    """A job: `count` shards, of which `first` is the first, and the rows of their videos, ordered by offset."""

    first: int
    count: int
    rows: np.ndarray


def group_by_shard(offsets: np.ndarray, slots: np.ndarray, shard: int) -> list[PlannedJob]:
    """Group videos into jobs: one shard with all its videos, or all shards of one long video.

    Parameters
    ----------
    offsets, slots : int64 (n,), from `plan_slots`.
    shard : frames in a shard.

    Returns
    -------
    The jobs in the order of their shards. `rows` of each job are int64 (videos,), in the order of their offsets.
    """
    order = np.argsort(offsets, kind="stable")
    shards = offsets[order] // shard
    starts = np.flatnonzero(np.diff(shards, prepend=-1))
    counts = -(-slots[order[starts]] // shard)
    rows = np.split(order, starts[1:]) if len(starts) else []
    return [PlannedJob(*job) for job in zip(shards[starts].tolist(), counts.tolist(), rows, strict=True)]
