"""Where each video lies in the store's array, decided before anything is read, and which videos make a job.

Any number of workers then write their shards without a lock, in any order. A video is a row of arrays here and never
an object of its own, so that millions can be planned in the memory of one machine.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from moclip.errors import StoreError
from moclip.store.layout import CHUNK_FRAMES, SHARD_FRAMES

ROWS = 1 << 18  # worked on at a time, where that makes copies
BLOCK = 64  # rooms that share an upper bound


def plan_slots(
    videos: pd.DataFrame, chunk: int = CHUNK_FRAMES, shard: int = SHARD_FRAMES, previous: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Give each video its place in the array, before anything is read.

    A slot is a whole number of chunks and lies in one shard; a video longer than a shard takes whole
    consecutive shards of its own. A video that `previous` knows by the same id and md5 keeps its place; the
    others, in the order of their ids, take the first room that fits, at the end if there is none. The result
    depends on the set of videos and on `previous` only, not on the order of rows.

    Parameters
    ----------
    videos : columns id, md5 (str), frames (whole numbers).
    chunk, shard : frames; `shard` is a multiple of `chunk`.
    previous : columns id, md5, offset, slots, of a store with the same chunk and shard.

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
    order, ids, md5 = _by_id(videos)
    if not _rising(ids):
        raise StoreError("two videos have the same id", fix="ids must be unique in the index")
    slots = _slots(videos["frames"].to_numpy(np.int64)[order], chunk, shard)
    offset = np.full(len(ids), -1, np.int64)
    if previous is not None:
        _keep(offset, slots, ids, md5, previous)
    kept = offset >= 0
    free = _Free(shard, offset[kept], slots[kept])
    offset[~kept] = free.take(slots[~kept])
    columns = {name: np.empty_like(offset) for name in ("offset", "slots", "shard")}
    for name, values in (("offset", offset), ("slots", slots), ("shard", offset // shard)):
        columns[name][order] = values
    return pd.DataFrame({"id": pd.Series(videos["id"].array, dtype="str"), **columns}, copy=False)


def _by_id(table: pd.DataFrame) -> tuple[np.ndarray | slice, Any, Any]:
    """What puts rows in the order of their ids, and ids and md5 in that order; nothing is copied if they have it."""
    ids, md5 = (_strings(table[name]) for name in ("id", "md5"))
    if _rising(ids):
        return slice(None), ids, md5
    order = pc.sort_indices(ids)
    return order.to_numpy().astype(np.int64), ids.take(order), md5.take(order)


def _strings(values: pd.Series) -> Any:
    """A column as chunks of Arrow strings; "large" ones, of which a chunk may hold more than 2 GB."""
    found = pa.array(values)
    return (found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])).cast(pa.large_string())


def _piece(values: Any, start: int, stop: int) -> Any:
    return values.slice(start, stop - start).combine_chunks()


def _rising(ids: Any) -> bool:
    """Whether each id is greater than the one before it."""
    pieces = (_piece(ids, start, start + ROWS + 1) for start in range(0, len(ids), ROWS))
    return all(pc.all(pc.less(piece[:-1], piece[1:]), min_count=0).as_py() for piece in pieces)


def _keep(offset: np.ndarray, slots: np.ndarray, ids: Any, md5: Any, previous: pd.DataFrame) -> None:
    """Write into `offset` where those videos lie that `previous` has with the same md5 and slots; a range at a time."""
    old, known, old_md5 = _by_id(previous)
    old_offset, old_slots = (previous[name].to_numpy(np.int64)[old] for name in ("offset", "slots"))
    begin = 0
    for start in range(0, len(ids), ROWS):
        some = _piece(ids, start, start + ROWS)
        end = bisect.bisect_right(known, some[-1].as_py(), lo=begin, key=lambda name: name.as_py())
        at = pc.index_in(_piece(known, begin, end), value_set=some).fill_null(-1).to_numpy()
        there = np.flatnonzero(at >= 0)
        rows, before = start + at[there], begin + there
        same = pc.equal(_piece(md5, start, start + ROWS).take(at[there]), _piece(old_md5, begin, end).take(there))
        same = same.to_numpy(zero_copy_only=False) & (slots[rows] == old_slots[before])
        offset[rows[same]] = old_offset[before[same]]
        begin = end


def _slots(frames: np.ndarray, chunk: int, shard: int) -> np.ndarray:
    step = np.where(frames <= shard, chunk, shard)
    return np.maximum(1, -(-frames // step)) * step


class _Free:
    """The free room of an array: its gaps in order, each within one shard, and as many new shards as are wanted.

    Parameters
    ----------
    shard : frames in one.
    offset, slots : int64 (n,), the places that are taken, in any order.
    """

    def __init__(self, shard: int, offset: np.ndarray, slots: np.ndarray) -> None:
        order, count = np.argsort(offset), len(offset)
        starts, stops = np.zeros((2, count + 1), np.int64)  # of the gaps between the places
        np.add(offset[order], slots[order], out=starts[1:])
        self.shard, self.shards = shard, -(-int(starts.max()) // shard)
        stops[:count], stops[count] = offset[order], self.shards * shard
        starts, stops = _cut(starts, stops, shard)
        self.stops: list[int] = stops.tolist()
        self.gaps = _Rooms((stops - starts).tolist())
        empty = np.flatnonzero(stops - starts == shard)
        heads = np.flatnonzero(np.diff(starts[empty], prepend=-shard - 1) != shard)
        self.heads: list[int] = empty[heads].tolist()  # the first gap of each run of empty shards
        self.runs = _Rooms(np.diff(heads, append=len(empty)).tolist())  # how many shards are left of each
        self.front = 0  # the runs before it are used up

    def take(self, slots: np.ndarray) -> np.ndarray:
        """Take the first room for each number of frames, one after the other; the offsets, int64 (n,)."""
        offset = np.empty(len(slots), np.int64)
        for start in range(0, len(slots), ROWS):
            some = slots[start : start + ROWS].tolist()
            offset[start : start + ROWS] = [self._in_gap(n) if n <= self.shard else self._in_shards(n) for n in some]
        return offset

    def _in_gap(self, slots: int) -> int:
        at, room = self.gaps.first_for(slots), self.gaps.room
        if at == len(room):
            self.shards += 1
            self.stops.append(self.shards * self.shard)
            self.gaps.append(self.shard)
        left = room[at]
        room[at] = left - slots
        return self.stops[at] - left

    def _in_shards(self, slots: int) -> int:
        count = slots // self.shard
        self._catch_up()
        run = self.runs.first_for(count)
        if run == len(self.heads):
            first, self.shards = self.shards, self.shards + count
            return first * self.shard
        head = self.heads[run]
        self.gaps.room[head : head + count] = [0] * count
        self._shorten(run, count)
        return self.stops[head] - self.shard

    def _catch_up(self) -> None:
        """Leave out the empty shards that `_in_gap` has begun: always the first one there was."""
        while self.front < len(self.heads):
            run = self.front
            while self.runs.room[run] and self.gaps.room[self.heads[run]] < self.shard:
                self._shorten(run, 1)
            if self.runs.room[run]:
                return
            self.front += 1

    def _shorten(self, run: int, count: int) -> None:
        self.heads[run] += count
        self.runs.room[run] -= count


class _Rooms:
    """Rooms in a row. They only shrink, so the first one for a size only moves on; new ones come at the end.

    Each block of rooms has an upper bound, so that those long full are passed by in large steps.
    """

    def __init__(self, room: list[int]) -> None:
        self.room = room
        self.most = [max(room[start : start + BLOCK]) for start in range(0, len(room), BLOCK)]
        self.first: dict[int, int] = {}

    def append(self, size: int) -> None:
        if len(self.room) % BLOCK == 0:
            self.most.append(size)
        self.room.append(size)
        self.most[-1] = max(self.most[-1], size)

    def first_for(self, size: int) -> int:
        """The number of the first room of at least `size`; how many rooms there are if there is none."""
        at = self.first.get(size, 0)
        if at == len(self.room) or self.room[at] < size:
            at = self.first[size] = self._search(at, size)
        return at

    def _search(self, at: int, size: int) -> int:
        for block in range(at // BLOCK, len(self.most)):
            if self.most[block] >= size:
                start, stop = block * BLOCK, (block + 1) * BLOCK
                for number, left in enumerate(self.room[max(at, start) : stop], max(at, start)):
                    if left >= size:
                        return number
                self.most[block] = max(self.room[start:stop])
        return len(self.room)


def _cut(starts: np.ndarray, stops: np.ndarray, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the ranges from `starts` to `stops`, int64 (n,), at the borders of shards; empty ones are left out."""
    some = stops > starts
    starts, stops = starts[some], stops[some]
    first = starts // shard
    pieces = -(-stops // shard) - first
    which = np.repeat(np.arange(len(pieces)), pieces)
    number = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + first[which]
    return np.maximum(starts[which], number * shard), np.minimum(stops[which], (number + 1) * shard)


@dataclass(frozen=True, eq=False)
class Planned:
    """A job: `count` shards from `first` on, and the rows of the videos that begin in them, ordered by offset."""

    first: int
    count: int
    rows: np.ndarray


class Jobs(Sequence[Planned]):
    """Jobs in the order of their shards; each is made when it is asked for.

    Attributes
    ----------
    first, shards : int64 (jobs,), the first shard of each, and how many it has.
    clips : int64 (jobs,), how many videos begin in each.
    """

    def __init__(self, first: np.ndarray, shards: np.ndarray, order: np.ndarray, starts: np.ndarray) -> None:
        self.first, self.shards, self.clips = first, shards, np.diff(starts, append=len(order))
        self._order, self._starts = order, starts

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, number: int) -> Planned: ...
    @overload
    def __getitem__(self, number: slice) -> list[Planned]: ...
    def __getitem__(self, number: int | slice) -> Planned | list[Planned]:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        start = self._starts[number]
        rows = self._order[start : start + self.clips[number]]
        return Planned(int(self.first[number]), int(self.shards[number]), rows)


def by_shard(offsets: np.ndarray, slots: np.ndarray, shard: int) -> Jobs:
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
    return Jobs(shards[starts], -(-slots[order[starts]] // shard), order, starts)
