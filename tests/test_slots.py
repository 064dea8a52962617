"""Slots are planned as plainly written code would plan them, and a video that stays keeps its slot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moclip.errors import StoreError
from moclip.store import slots
from moclip.store.slots import WINDOW, group_by_shard, plan_slots
from moclip.store.table import rows_of

CHUNK, SHARD = 16, 64

Lengths = dict[str, int]


def clips_frame(lengths: Lengths) -> pd.DataFrame:
    return pd.DataFrame({"id": pd.Series(list(lengths), dtype="str"), "frames": list(lengths.values())})


def places_of(planned: pd.DataFrame) -> dict[str, tuple[int, int]]:
    return {row.id: (row.offset, row.slots) for row in rows_of(planned)}


# ----------------------------------------------------------------------------------------------- plainly written


def plainly(videos: pd.DataFrame, chunk: int, shard: int, previous: pd.DataFrame | None) -> dict[str, tuple[int, int]]:
    """Plan slots a video at a time, looking at every shard for each: (offset, slots) by id."""
    needs = {row.id: _needed(row.frames, chunk, shard) for row in rows_of(videos)}
    placed = {
        row.id: (int(row.offset), int(row.slots))
        for row in (rows_of(previous) if previous is not None else ())
        if needs.get(row.id) == row.slots
    }
    ends: dict[int, int] = {}  # by shard, of its last video
    for offset, needed in placed.values():
        _take(ends, offset, needed, shard)
    for name in sorted(needs.keys() - placed.keys()):
        behind = max(ends, default=-1) + 1
        room = (n for n in range(behind) if (n + 1) * shard - ends.get(n, n * shard) >= needs[name])
        at = next(room, behind) if needs[name] <= shard else behind
        placed[name] = (ends.get(at, at * shard), needs[name])
        _take(ends, *placed[name], shard)
    return {name: placed[name] for name in videos["id"]}


def _take(ends: dict[int, int], offset: int, needed: int, shard: int) -> None:
    for number in range(offset // shard, -(-(offset + needed) // shard)):
        ends[number] = max(ends.get(number, 0), min(offset + needed, (number + 1) * shard))


def _needed(frames: int, chunk: int, shard: int) -> int:
    step = chunk if frames <= shard else shard
    return max(1, -(-int(frames) // step)) * step


def check_like_plainly(videos: pd.DataFrame, chunk: int, shard: int, previous: pd.DataFrame | None) -> pd.DataFrame:
    planned = plan_slots(videos, chunk, shard, previous)
    assert places_of(planned) == plainly(videos, chunk, shard, previous)
    assert list(planned["id"]) == list(videos["id"])
    assert (planned["shard"] == planned["offset"] // shard).all()
    assert [str(dtype) for dtype in planned.dtypes] == ["str", "int64", "int64", "int64"]
    return planned


SIZES = st.sampled_from([(16, 64), (4, 64), (1, 8), (64, 64)])
IDS = st.text("abé/_\U0001d11e", min_size=1, max_size=3)
VIDEOS = st.dictionaries(IDS, st.integers(0, 300), max_size=25)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(VIDEOS, min_size=1, max_size=5), SIZES, st.sampled_from([1, 2, WINDOW]))
def test_planning_a_changed_store_matches_a_plain_planner(history: list[Lengths], size: Any, window: int) -> None:
    (chunk, shard), previous = size, None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "WINDOW", window)  # how much is looked at at once: nothing may depend on it
        for lengths in history:
            previous = check_like_plainly(clips_frame(lengths), chunk, shard, previous)


@pytest.mark.parametrize("longest", [64, 500, 4000])
def test_planning_thousands_of_videos_matches_a_plain_planner(longest: int) -> None:
    rng = np.random.default_rng(longest)
    names = [f"{number:04d}" for number in rng.permutation(1500)]
    first = {name: int(rng.integers(1, longest)) for name in names}
    before = check_like_plainly(clips_frame(first), 4, 512, None)
    kept = {name: first[name] for name in names if rng.random() < 0.6}
    new = {f"new{number}": int(rng.integers(1, longest)) for number in range(600)}
    check_like_plainly(clips_frame(kept | new), 4, 512, before)


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


@pytest.mark.slow
@settings(deadline=None)
@given(lengths_of_videos, st.randoms())
def test_slots_do_not_overlap_and_ignore_the_order_of_rows(lengths: Lengths, random: Any) -> None:
    planned = plan_slots(clips_frame(lengths), CHUNK, SHARD)
    check_places(planned, lengths)
    shuffled = list(lengths.items())
    random.shuffle(shuffled)
    assert places_of(plan_slots(clips_frame(dict(shuffled)), CHUNK, SHARD)) == places_of(planned)


@pytest.mark.slow
@settings(deadline=None)
@given(lengths_of_videos, lengths_of_videos)
def test_videos_that_stay_keep_their_slots(before: Lengths, after: Lengths) -> None:
    old = plan_slots(clips_frame(before), CHUNK, SHARD)
    new = plan_slots(clips_frame(after), CHUNK, SHARD, previous=old)
    check_places(new, after)
    places = places_of(old)
    for name, place in places_of(new).items():
        if name in before and places[name][1] == place[1]:
            assert place == places[name]


def test_a_new_store_is_filled_in_the_order_of_ids() -> None:
    """These places are in stores that exist: other ones would mean extracting anew."""
    planned = plan_slots(clips_frame({"e": 5, "d": 100, "c": 33, "a": 30, "b": 20}), CHUNK, SHARD)
    assert places_of(planned) == {"a": (0, 32), "b": (32, 32), "c": (64, 48), "d": (128, 128), "e": (112, 16)}


def test_room_behind_the_last_video_is_filled_and_a_hole_stays() -> None:
    old = plan_slots(clips_frame({"a": 16, "b": 16, "c": 16, "d": 64, "e": 5}), CHUNK, SHARD)
    assert places_of(old) == {"a": (0, 16), "b": (16, 16), "c": (32, 16), "d": (64, 64), "e": (48, 16)}
    new = plan_slots(clips_frame({"a": 16, "c": 16, "d": 64, "x": 5, "y": 5}), CHUNK, SHARD, previous=old)
    assert places_of(new) == {"a": (0, 16), "c": (32, 16), "d": (64, 64), "x": (48, 16), "y": (128, 16)}


def test_an_empty_shard_is_filled_again() -> None:
    old = plan_slots(clips_frame({"a": 64, "b": 100, "c": 64}), CHUNK, SHARD)
    new = plan_slots(clips_frame({"c": 64, "x": 30, "y": 100}), CHUNK, SHARD, previous=old)
    assert places_of(new) == {"c": (192, 64), "x": (0, 32), "y": (256, 128)}


def test_a_video_that_changed_keeps_its_slot_while_it_fits() -> None:
    old = plan_slots(clips_frame({"a": 30, "b": 20}), CHUNK, SHARD)
    new = plan_slots(clips_frame({"a": 25, "b": 40}), CHUNK, SHARD, previous=old)
    assert places_of(new) == {"a": (0, 32), "b": (64, 48)}


@pytest.mark.parametrize("apart", [[], ["b", "c"]])
def test_ids_must_be_unique(apart: list[str]) -> None:
    twice = pd.concat([clips_frame({name: 3}) for name in ("a", *apart, "a")])
    with pytest.raises(StoreError, match="same id"):
        plan_slots(twice, CHUNK, SHARD)


def test_shard_holds_whole_chunks() -> None:
    with pytest.raises(StoreError, match="a shard of 64 frames does not hold whole chunks of 10"):
        plan_slots(clips_frame({"a": 3}), 10, SHARD)


# ---------------------------------------------------------------------------------------------------------- jobs


@settings(deadline=None)
@given(lengths_of_videos, st.randoms())
def test_jobs_hold_each_video_once_in_the_shards_it_lies_in(lengths: Lengths, random: Any) -> None:
    shuffled = list(lengths.items())
    random.shuffle(shuffled)
    planned = plan_slots(clips_frame(dict(shuffled)), CHUNK, SHARD)
    offset, room = planned["offset"].to_numpy(), planned["slots"].to_numpy()
    jobs = group_by_shard(offset, room, SHARD)
    assert len(jobs) == planned["shard"].nunique()
    assert sorted(row for job in jobs for row in job.rows) == list(range(len(planned)))
    used: list[int] = []
    for job in jobs:
        assert (np.diff(offset[job.rows]) > 0).all()
        assert set(offset[job.rows] // SHARD) == {job.first}
        assert -(-(offset[job.rows] + room[job.rows]).max() // SHARD) == job.first + job.count
        used += range(job.first, job.first + job.count)
    assert used == sorted(set(used)), "two jobs write one shard"


def test_a_long_video_is_a_job_of_its_own() -> None:
    offset, room = np.array([64, 0, 192, 32]), np.array([128, 32, 16, 16])
    jobs = group_by_shard(offset, room, SHARD)
    assert [(job.first, job.count, job.rows.tolist()) for job in jobs] == [(0, 1, [1, 3]), (1, 2, [0]), (3, 1, [2])]
    assert not group_by_shard(np.arange(0), np.arange(0), SHARD)
