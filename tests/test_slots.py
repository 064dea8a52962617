"""Slots are planned as plainly written code would plan them, and millions of them in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moclip.errors import StoreError
from moclip.store import slots
from moclip.store.slots import BLOCK, ROWS, by_shard, plan_slots
from moclip.store.table import rows_of

CHUNK, SHARD = 16, 64

Lengths = dict[str, int]
Versions = dict[str, tuple[int, str]]


def clips_of(versions: Mapping[str, tuple[int, str]]) -> pd.DataFrame:
    """Videos by id, each with its frames and its md5."""
    frames, md5 = ([version[n] for version in versions.values()] for n in (0, 1))
    return pd.DataFrame({"id": pd.Series(list(versions), dtype="str"), "md5": md5, "frames": frames})


def clips_frame(lengths: Lengths, md5: str = "m") -> pd.DataFrame:
    return clips_of({name: (frames, md5) for name, frames in lengths.items()})


def places_of(planned: pd.DataFrame) -> dict[str, tuple[int, int]]:
    return {row.id: (row.offset, row.slots) for row in rows_of(planned)}


# ----------------------------------------------------------------------------------------------- plainly written


def plainly(videos: pd.DataFrame, chunk: int, shard: int, previous: pd.DataFrame | None) -> dict[str, tuple[int, int]]:
    """Plan slots a video at a time, looking at every shard for each: (offset, slots) by id."""
    needs = {row.id: (row.md5, _needed(row.frames, chunk, shard)) for row in rows_of(videos)}
    placed = {
        row.id: (int(row.offset), int(row.slots))
        for row in (rows_of(previous) if previous is not None else ())
        if row.id in needs and needs[row.id] == (row.md5, row.slots)
    }
    free = _PlainFree(shard, placed.values())
    for name in sorted(needs.keys() - placed.keys()):
        placed[name] = (free.take(needs[name][1]), needs[name][1])
    return {name: placed[name] for name in videos["id"]}


def _needed(frames: int, chunk: int, shard: int) -> int:
    step = chunk if frames <= shard else shard
    return max(1, -(-int(frames) // step)) * step


class _PlainFree:
    """For each shard its gaps, as (start, length) in frames."""

    def __init__(self, shard: int, taken: Iterable[tuple[int, int]]) -> None:
        self.shard = shard
        self.gaps: list[list[tuple[int, int]]] = []
        ends: dict[int, int] = {}
        for offset, needed in sorted(taken):
            for number in range(offset // shard, -(-(offset + needed) // shard)):
                self._grow(number + 1)
                start = max(offset, number * shard)
                self._close(number, ends.get(number, number * shard), start)
                ends[number] = min(offset + needed, (number + 1) * shard)
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

    def take(self, needed: int) -> int:
        return self._take_shards(needed // self.shard) if needed > self.shard else self._take_gap(needed)

    def _take_gap(self, needed: int) -> int:
        for gaps in self.gaps:
            for place, (start, length) in enumerate(gaps):
                if length >= needed:
                    gaps[place : place + 1] = [(start + needed, length - needed)] if length > needed else []
                    return start
        start = len(self.gaps) * self.shard
        self.gaps.append([(start + needed, self.shard - needed)] if needed < self.shard else [])
        return start

    def _take_shards(self, count: int) -> int:
        empty = [bool(gaps) and gaps[0][1] == self.shard for gaps in self.gaps]
        first = next((n for n in range(len(empty) + 1) if all(empty[n : n + count])), len(empty))
        self._grow(first + count)
        for number in range(first, first + count):
            self.gaps[number] = []
        return first * self.shard


def check_like_plainly(videos: pd.DataFrame, chunk: int, shard: int, previous: pd.DataFrame | None) -> pd.DataFrame:
    planned = plan_slots(videos, chunk, shard, previous)
    assert places_of(planned) == plainly(videos, chunk, shard, previous)
    assert list(planned["id"]) == list(videos["id"])
    assert (planned["shard"] == planned["offset"] // shard).all()
    assert [str(dtype) for dtype in planned.dtypes] == ["str", "int64", "int64", "int64"]
    return planned


SIZES = st.sampled_from([(16, 64), (4, 64), (1, 8), (64, 64)])
IDS = st.text("abé/_\U0001d11e", min_size=1, max_size=3)
VIDEOS = st.dictionaries(IDS, st.tuples(st.integers(0, 300), st.sampled_from("xy")), max_size=25)
STEPS = {"ROWS": st.sampled_from([1, 3, ROWS]), "BLOCK": st.sampled_from([1, 2, BLOCK])}
"""How much is looked at at once: nothing may depend on it."""


@settings(deadline=None)
@given(st.lists(VIDEOS, min_size=1, max_size=5), SIZES, st.fixed_dictionaries(STEPS))
def test_a_store_that_changes_is_planned_as_plainly(history: list[Versions], size: Any, steps: dict[str, int]) -> None:
    (chunk, shard), previous = size, None
    with pytest.MonkeyPatch.context() as patch:
        for name, value in steps.items():
            patch.setattr(slots, name, value)
        for versions in history:
            videos = clips_of(versions)
            previous = check_like_plainly(videos, chunk, shard, previous).assign(md5=videos["md5"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(IDS, st.integers(0, 300), st.sampled_from("xy"), st.integers(0, 12)), max_size=25),
    VIDEOS,
    st.fixed_dictionaries(STEPS),
)
def test_any_holes_are_filled_as_plainly(laid: list[Any], added: Versions, steps: dict[str, int]) -> None:
    """`laid` lie in any order with any holes between them, some of them long."""
    chunk, shard = 4, 64
    rows, end = [], 0
    for name, frames, md5, skipped in laid:
        needed = _needed(frames, chunk, shard)
        start = end + skipped * 5 * chunk
        if start // shard != (start + needed - 1) // shard:
            start = -(-start // shard) * shard
        rows.append({"id": name, "md5": md5, "offset": start, "slots": needed, "frames": frames})
        end = start + needed
    columns = {"id": "str", "md5": "str", "offset": "int64", "slots": "int64", "frames": "int64"}
    previous = pd.DataFrame(rows, columns=list(columns)).astype(columns).drop_duplicates("id")
    still = previous.sample(frac=0.7, random_state=0)
    videos = pd.concat([still[["id", "md5", "frames"]], clips_of(added)]).drop_duplicates("id")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in steps.items():
            patch.setattr(slots, name, value)
        check_like_plainly(videos, chunk, shard, previous)


@pytest.mark.parametrize("longest", [64, 500, 4000])
def test_thousands_of_videos_are_planned_as_plainly(longest: int) -> None:
    rng = np.random.default_rng(longest)
    names = [f"{number:04d}" for number in rng.permutation(1500)]
    first = {name: (int(rng.integers(1, longest)), "x") for name in names}
    videos = clips_of(first)
    before = check_like_plainly(videos, 4, 512, None).assign(md5=videos["md5"])
    kept = {name: first[name] for name in names if rng.random() < 0.6}
    new = {f"new{number}": (int(rng.integers(1, longest)), "x") for number in range(600)}
    check_like_plainly(clips_of(kept | new), 4, 512, before)


# -------------------------------------------------------------------------------------------------- what it means

lengths_of_videos = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 300), max_size=25)


def check_places(planned: pd.DataFrame, lengths: Lengths) -> None:
    taken: set[int] = set()
    for row in rows_of(planned):
        place = set(range(row.offset, row.offset + row.slots))
        assert not taken & place, "two videos overlap"
        taken |= place
        assert row.offset % CHUNK == row.slots % CHUNK == 0
        assert row.slots >= lengths[row.id]
        assert row.shard == row.offset // SHARD
        if lengths[row.id] <= SHARD:
            assert row.offset // SHARD == (row.offset + row.slots - 1) // SHARD
        else:
            assert row.offset % SHARD == row.slots % SHARD == 0


@settings(deadline=None)
@given(lengths_of_videos, st.randoms())
def test_slots_do_not_overlap_and_ignore_the_order_of_rows(lengths: Lengths, random: Any) -> None:
    planned = plan_slots(clips_frame(lengths), CHUNK, SHARD)
    check_places(planned, lengths)
    shuffled = list(lengths.items())
    random.shuffle(shuffled)
    assert places_of(plan_slots(clips_frame(dict(shuffled)), CHUNK, SHARD)) == places_of(planned)


@settings(deadline=None)
@given(lengths_of_videos, lengths_of_videos)
def test_videos_that_stay_keep_their_slots(before: Lengths, after: Lengths) -> None:
    old = plan_slots(clips_frame(before), CHUNK, SHARD)
    new = plan_slots(clips_frame(after), CHUNK, SHARD, previous=old.assign(md5="m"))
    check_places(new, after)
    places = places_of(old)
    for name, place in places_of(new).items():
        if name in before and places[name][1] == place[1]:
            assert place == places[name]


def test_new_video_fills_the_hole_of_a_removed_one() -> None:
    old = plan_slots(clips_frame({"a": 30, "b": 20, "c": 5}), CHUNK, SHARD)
    new = plan_slots(clips_frame({"a": 30, "c": 5, "z": 17}), CHUNK, SHARD, previous=old.assign(md5="m"))
    assert places_of(new) == {"a": (0, 32), "c": (64, 16), "z": (32, 32)}


def test_changed_video_gives_its_slot_up() -> None:
    old = plan_slots(clips_frame({"a": 30, "b": 20}), CHUNK, SHARD)
    changed = pd.concat([clips_frame({"a": 30}, md5="new"), clips_frame({"b": 20})])
    new = plan_slots(changed, CHUNK, SHARD, previous=old.assign(md5="m"))
    assert places_of(new) == {"a": (0, 32), "b": (32, 32)}


@pytest.mark.parametrize("apart", [[], ["b", "c"]])
def test_ids_must_be_unique(apart: list[str]) -> None:
    twice = pd.concat([clips_frame({name: 3}) for name in ("a", *apart, "a")])
    with pytest.raises(StoreError, match="same id"):
        plan_slots(twice, CHUNK, SHARD)


def test_shard_holds_whole_chunks() -> None:
    with pytest.raises(StoreError, match="a shard of 64 frames does not hold whole chunks of 10"):
        plan_slots(clips_frame({"a": 3}), 10, SHARD)


# ---------------------------------------------------------------------------------------------------------- size


def many(frames: np.ndarray) -> pd.DataFrame:
    names = pd.Series(np.arange(len(frames))).astype("str").str.zfill(9)
    return pd.DataFrame({"id": names, "md5": pd.Series("m", index=names.index, dtype="str"), "frames": frames})


def quickly(videos: pd.DataFrame, previous: pd.DataFrame | None = None) -> pd.DataFrame:
    """Plan them, in much less time than it takes to look at every shard for every video."""
    begun = time.process_time()
    planned = plan_slots(videos, previous=previous)
    assert time.process_time() - begun < 7
    order = np.argsort(planned["offset"].to_numpy())
    start, room = (planned[name].to_numpy()[order] for name in ("offset", "slots"))
    assert (start[1:] >= (start + room)[:-1]).all(), "two videos overlap"
    assert (room >= videos["frames"].to_numpy()[order]).all()
    return planned.assign(md5=videos["md5"])


@pytest.mark.timeout(100)
def test_films_and_clips_find_the_holes_of_others_in_seconds() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(1, 2 * 8192, 200_000)
    long = rng.choice(len(frames), 10_000, replace=False)
    frames[long] = rng.integers(2 * 8192, 20 * 8192, len(long))
    first = quickly(many(frames))
    second = quickly(many(np.where(rng.random(len(frames)) < 0.2, rng.permutation(frames), frames)), first)
    same = first["slots"] == second["slots"]
    assert 0.7 < same.mean() < 0.9
    assert (first["offset"] == second["offset"])[same].all()


@pytest.mark.timeout(100)
def test_full_shards_are_passed_by() -> None:
    full, sizes = np.full(300_000, 8192), np.arange(4, 8192, 4)
    planned = quickly(many(np.concatenate([full, sizes])))
    assert (planned["shard"][: len(full)] == np.arange(len(full))).all()
    assert planned["shard"].max() < len(full) + len(sizes)


# ---------------------------------------------------------------------------------------------------------- jobs


@settings(deadline=None)
@given(lengths_of_videos, st.randoms())
def test_jobs_hold_each_video_once_in_the_shards_it_lies_in(lengths: Lengths, random: Any) -> None:
    shuffled = list(lengths.items())
    random.shuffle(shuffled)
    planned = plan_slots(clips_frame(dict(shuffled)), CHUNK, SHARD)
    offset, room = planned["offset"].to_numpy(), planned["slots"].to_numpy()
    jobs = by_shard(offset, room, SHARD)
    assert len(jobs) == len(jobs.first) == planned["shard"].nunique()
    assert sorted(row for job in jobs for row in job.rows) == list(range(len(planned)))
    used: list[int] = []
    for number, job in enumerate(jobs):
        assert (job.first, job.count, len(job.rows)) == (
            jobs.first[number], jobs.shards[number], jobs.clips[number],
        )  # fmt: skip
        assert (np.diff(offset[job.rows]) > 0).all()
        assert set(offset[job.rows] // SHARD) == {job.first}
        assert -(-(offset[job.rows] + room[job.rows]).max() // SHARD) == job.first + job.count
        used += range(job.first, job.first + job.count)
    assert used == sorted(set(used)), "two jobs write one shard"


def test_jobs_are_made_when_asked_for() -> None:
    offset, room = np.array([64, 0, 192, 32]), np.array([128, 32, 16, 16])
    jobs = by_shard(offset, room, SHARD)
    assert [(job.first, job.count, job.rows.tolist()) for job in jobs] == [(0, 1, [1, 3]), (1, 2, [0]), (3, 1, [2])]
    assert jobs[-1].rows.tolist() == [2]
    assert [job.first for job in jobs[1:]] == [1, 3]
    assert jobs[0].rows.base is not None, "rows are a view, no copy"
    with pytest.raises(IndexError):
        jobs[3]
    assert not list(by_shard(np.arange(0), np.arange(0), SHARD))
