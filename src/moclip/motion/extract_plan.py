"""Plan an extraction: the slot of each clip in the store, and the shards that must be written.

Nothing is written here. Clips stay rows of a table until a job is made of them, so that millions can be planned.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.files.folders import Folder, join_path
from moclip.motion.field import CODEC_CELL, grid_shape
from moclip.store.layout import CHUNK_FRAMES, PARTS_FOLDER, SHARD_FRAMES, SHARDS_FOLDER, shard_name, short_digest
from moclip.store.slots import PlannedJob, group_by_shard, plan_slots
from moclip.store.table import rows_of


@dataclass(frozen=True)
class FieldRecipe:
    """Everything that a stored field depends on, except the video. Fields of another recipe go into another store.

    Parameters
    ----------
    canvas, cell : (height, width) that every field is scaled to, and the side of a grid cell, px.
    accumulate : False, or how displacements are traced back to the I-frame: "grid" or "pixel".
    clip : the displacement in px that the largest stored number means.
    backend : "auto", "pyav" or "mvextractor" (see `choose_backend`).
    shard_frames : frames in a shard, a multiple of 4.
    per : "frame", or "second": displacements in px per 1/30 s, whatever the frame rate.
    versions : names and versions of the libraries that read videos; `extract` fills them in.
    """

    canvas: tuple[int, int] = (240, 320)
    cell: int = CODEC_CELL
    accumulate: bool | str = False
    clip: float = 20.0
    backend: str = "auto"
    shard_frames: int = SHARD_FRAMES
    per: str = "frame"
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        return grid_shape(self.canvas, self.cell)

    @functools.cached_property
    def digest(self) -> str:
        return short_digest(asdict(self))


@dataclass(frozen=True)
class ClipToExtract:
    """A clip to extract, and its slot. `stored` is its row of the table if the slot already holds its fields.

    `damaged` is whether the index found damage; None if it is not known.
    """

    id: str
    path: str
    md5: str
    frames: int
    codec: str
    has_b: bool
    offset: int
    slots: int
    key: str
    damaged: bool | None = None
    stored: dict[str, Any] | None = None


@dataclass(frozen=True)
class ShardJob:
    """A job for a worker: one shard, or all shards of one long video. `first` and `count` are numbers of shards."""

    store: str
    root: str
    first: int
    count: int
    clips: tuple[ClipToExtract, ...] = field(repr=False)
    recipe: FieldRecipe = field(repr=False)

    @property
    def folder(self) -> Folder:
        return Folder(self.store)

    @property
    def part(self) -> str:
        return part_name(self.first)

    @property
    def shards(self) -> list[str]:
        return [shard_name(number) for number in range(self.first, self.first + self.count)]


@dataclass(frozen=True)
class StoredState:
    """The state of a store: its table, the type of each frame, and the numbers of its shards and parts.

    A part is a file in which an unfinished run records the contents of a job's shards. Its number is the first shard's.
    """

    table: pd.DataFrame
    types: np.ndarray
    shards: frozenset[int]
    parts: frozenset[int]


@dataclass(frozen=True)
class Plan:
    """The slots of all clips, and the jobs that write them.

    Attributes
    ----------
    clips : a row per video, with the columns that `extract` gets, and offset, slots and key. `stored` is the number of
        the row of the store's table that has the same fields in the same slot, or -1.
    jobs : in the order of their shards.
    """

    folder: Folder
    root: str
    recipe: FieldRecipe
    stored: StoredState
    clips: pd.DataFrame
    jobs: list[PlannedJob]


def part_name(first: int) -> str:
    """Return the name of the part of the job whose first shard is `first`."""
    return f"{PARTS_FOLDER}/{first:06d}.json"


def part_numbers(folder: Folder) -> frozenset[int]:
    """Return the numbers of the parts in a store."""
    stems = (Path(name).stem for name in folder.sizes(PARTS_FOLDER))
    return frozenset(int(stem) for stem in stems if stem.isdigit())


def read_stored_state(folder: Folder, table: pd.DataFrame, types: np.ndarray) -> StoredState:
    """Return the state of a store that has this table and these frame types."""
    names = (name.removeprefix(f"{SHARDS_FOLDER}/").split("/")[0] for name in folder.sizes(SHARDS_FOLDER))
    shards = frozenset(int(name) for name in names if name.isdigit())
    return StoredState(table, types, shards, part_numbers(folder))


def make_plan(videos: pd.DataFrame, root: str, folder: Folder, recipe: FieldRecipe, stored: StoredState) -> Plan:
    """Assign each video its slot, and find the videos whose fields are already there."""
    slots = plan_slots(videos, CHUNK_FRAMES, recipe.shard_frames, stored.table)
    keys = pd.Series([short_digest(md5, recipe.digest) for md5 in videos["md5"]], dtype="str")
    clips = videos.reset_index(drop=True).assign(offset=slots["offset"], slots=slots["slots"], key=keys)
    clips["stored"] = _stored_rows(clips, stored.table)
    jobs = group_by_shard(slots["offset"].to_numpy(), slots["slots"].to_numpy(), recipe.shard_frames)
    return Plan(folder, root, recipe, stored, clips, jobs)


def _stored_rows(clips: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Return for each clip the number of the table's row with the same fields in the same slot, or -1: int64 (n,)."""
    at = pd.Index(table["id"]).get_indexer(pd.Index(clips["id"]))
    same = at >= 0
    if same.any():
        for name in ("md5", "offset", "slots", "key"):
            same &= table[name].to_numpy()[at] == clips[name].to_numpy()
    return np.where(same, at, -1)


def find_unfinished_jobs(plan: Plan) -> list[PlannedJob]:
    """Return the jobs whose shards do not hold exactly the planned clips."""
    clips_in_shard = np.bincount(plan.stored.table["offset"] // plan.recipe.shard_frames, minlength=1)
    return [job for job in plan.jobs if not _is_finished(plan, job, clips_in_shard)]


def _is_finished(plan: Plan, planned: PlannedJob, clips_in_shard: np.ndarray) -> bool:
    """Return whether a job is finished, by its part if there is one, else by the table.

    `clips_in_shard` counts the clips of each shard in the table.
    """
    if planned.first in plan.stored.parts:
        return _is_finished_by_part(plan.folder, make_shard_job(plan, planned))
    shards = range(planned.first, planned.first + planned.count)
    rows = plan.clips["stored"].to_numpy()[planned.rows]
    if (rows < 0).any() or clips_in_shard[planned.first : shards.stop].sum() != len(rows):
        return False
    return plan.stored.shards.issuperset(shards) or bool((plan.stored.table["status"].iloc[rows] != "ok").all())


def _is_finished_by_part(folder: Folder, job: ShardJob) -> bool:
    part = _read_part(folder, job.first)
    if not part or part["shards"] != [folder.stamp(name) for name in job.shards]:
        return False
    wanted = {(clip.id, clip.offset, clip.slots, clip.key) for clip in job.clips}
    return wanted == {(row["id"], row["offset"], row["slots"], row["key"]) for row in part["rows"]}


def _read_part(folder: Folder, first: int) -> dict[str, Any]:
    part: dict[str, Any] = json.loads(folder.read(part_name(first)))
    return part


def make_shard_job(plan: Plan, planned: PlannedJob) -> ShardJob:
    """Return a planned job with everything that its worker needs."""
    rows_in_part: dict[str, dict[str, Any]] = {}
    if planned.first in plan.stored.parts:
        rows_in_part = {row["id"]: row for row in _read_part(plan.folder, planned.first)["rows"]}
    clips = tuple(_clip_to_extract(plan, row, rows_in_part) for row in rows_of(plan.clips.iloc[planned.rows]))
    return ShardJob(plan.folder.url, plan.root, planned.first, planned.count, clips, plan.recipe)


def _clip_to_extract(plan: Plan, row: Any, rows_in_part: Mapping[str, dict[str, Any]]) -> ClipToExtract:
    clip = ClipToExtract(
        id=row.id,
        path=join_path(plan.root, row.path),
        md5=row.md5,
        frames=int(row.frames),
        codec=row.codec,
        has_b=bool(row.has_b),
        offset=int(row.offset),
        slots=int(row.slots),
        key=row.key,
        damaged=bool(row.damage) if "damage" in plan.clips else None,
    )
    if clip.id in rows_in_part and _has_same_fields(clip, rows_in_part[clip.id]):
        return replace(clip, stored=rows_in_part[clip.id])
    return replace(clip, stored=_stored_row(plan.stored, int(row.stored))) if row.stored >= 0 else clip


def _has_same_fields(clip: ClipToExtract, row: Mapping[str, Any]) -> bool:
    return all(getattr(clip, name) == row[name] for name in ("id", "md5", "offset", "slots", "key"))


def _stored_row(stored: StoredState, number: int) -> dict[str, Any]:
    """Return a row of the table as a part records it."""
    found = stored.table.iloc[[number]]
    row = {str(name): value for name, value in found.to_dict("records")[0].items()}
    types = stored.types[row["offset"] : row["offset"] + row["length"]]
    return row | {"types": type_letters(types)}


def type_letters(types: np.ndarray) -> str:
    """Return frame types as a string with one letter per frame."""
    return types.astype(np.uint8).tobytes().decode("ascii")
