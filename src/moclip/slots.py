"""Where each video lies in the store's array, decided before anything is read.

Any number of workers then write their shards without a lock, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.store import CHUNK, SHARD, rows_of


def plan_slots(
    videos: pd.DataFrame, chunk: int = CHUNK, shard: int = SHARD, previous: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Give each video its place in the array, before anything is read.

    A slot is a whole number of chunks and lies in one shard; a video longer than a shard takes whole
    consecutive shards of its own. A video that `previous` knows by the same id and md5 keeps its place; the
    others, in the order of their ids, take the first room that fits, at the end if there is none. The result
    depends on the set of videos and on `previous` only, not on the order of rows.

    Parameters
    ----------
    videos : columns id, md5, frames.
    chunk, shard : frames; `shard` is a multiple of `chunk`.
    previous : columns id, md5, offset, slots, of a store with the same chunk and shard.

    Returns
    -------
    Columns id, offset, slots, shard (the first one's number), in the order of `videos`.
    """
    if shard % chunk:
        raise StoreError(f"a shard of {shard} frames does not hold whole chunks of {chunk}")
    needs = {row.id: (row.md5, _slots(row.frames, chunk, shard)) for row in rows_of(videos)}
    if len(needs) != len(videos):
        raise StoreError("two videos have the same id", fix="ids must be unique in the index")
    placed = _kept(needs, previous)
    free = _Free(shard, placed.values())
    for name in sorted(needs.keys() - placed.keys()):
        slots = needs[name][1]
        placed[name] = (free.take(slots), slots)
    offsets = [placed[name][0] for name in videos["id"]]
    return pd.DataFrame(
        {
            "id": list(videos["id"]),
            "offset": np.array(offsets, np.int64),
            "slots": np.array([placed[name][1] for name in videos["id"]], np.int64),
            "shard": np.array(offsets, np.int64) // shard,
        }
    )


def _slots(frames: int, chunk: int, shard: int) -> int:
    step = chunk if frames <= shard else shard
    return max(1, -(-int(frames) // step)) * step


def _kept(needs: Mapping[str, tuple[str, int]], previous: pd.DataFrame | None) -> dict[str, tuple[int, int]]:
    if previous is None:
        return {}
    return {
        row.id: (int(row.offset), int(row.slots))
        for row in rows_of(previous)
        if row.id in needs and needs[row.id] == (row.md5, row.slots)
    }


class _Free:
    """The free room of an array: for each shard its gaps, as (start, length) in frames."""

    def __init__(self, shard: int, taken: Iterable[tuple[int, int]]) -> None:
        self.shard = shard
        self.gaps: list[list[tuple[int, int]]] = []
        ends: dict[int, int] = {}
        for offset, slots in sorted(taken):
            for number in range(offset // shard, -(-(offset + slots) // shard)):
                self._grow(number + 1)
                start = max(offset, number * shard)
                self._close(number, ends.get(number, number * shard), start)
                ends[number] = min(offset + slots, (number + 1) * shard)
        for number, end in ends.items():
            self._close(number, end, (number + 1) * shard)
        self.gaps = [
            [(number * shard, shard)] if number not in ends else [gap for gap in gaps if gap[1]]
            for number, gaps in enumerate(self.gaps)
        ]

    def _grow(self, shards: int) -> None:
        self.gaps += [[] for _ in range(shards - len(self.gaps))]

    def _close(self, number: int, start: int, end: int) -> None:
        self.gaps[number].append((start, end - start))

    def take(self, slots: int) -> int:
        """Take the first room for `slots` frames; return its offset."""
        return self._take_shards(slots // self.shard) if slots > self.shard else self._take_gap(slots)

    def _take_gap(self, slots: int) -> int:
        for gaps in self.gaps:
            for place, (start, length) in enumerate(gaps):
                if length >= slots:
                    gaps[place : place + 1] = [(start + slots, length - slots)] if length > slots else []
                    return start
        start = len(self.gaps) * self.shard
        self.gaps.append([(start + slots, self.shard - slots)] if slots < self.shard else [])
        return start

    def _take_shards(self, count: int) -> int:
        empty = [bool(gaps) and gaps[0][1] == self.shard for gaps in self.gaps]
        first = next((n for n in range(len(empty) + 1) if all(empty[n : n + count])), len(empty))
        self._grow(first + count)
        for number in range(first, first + count):
            self.gaps[number] = []
        return first * self.shard
