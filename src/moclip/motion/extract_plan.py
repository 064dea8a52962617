"""What an extraction has to do: where each clip lies in the store, and which shards are not as they should be.

Nothing is written here. Clips are rows of a table until a job is made of them, so that millions can be planned.
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
from moclip.store.slots import Planned, by_shard, plan_slots
from moclip.store.table import rows_of


@dataclass(frozen=True)
class FieldRecipe:
    """All that a stored field depends on, beside the video. Another recipe means another store.

    Parameters
    ----------
    canvas, cell : (height, width) that every field is scaled to, and side of a grid cell, px.
    accumulate : False, or "grid" or "pixel" for displacements traced back to the I-frame so.
    clip : px that the largest stored number stands for.
    backend : auto and pyav read with PyAV, mvextractor with that where it is exact.
    shard_frames : frames in a shard, a multiple of 4.
    versions : of the libraries that read videos; `extract` fills them in.
    """

    canvas: tuple[int, int] = (240, 320)
    cell: int = CODEC_CELL
    accumulate: bool | str = False
    clip: float = 20.0
    backend: str = "auto"
    shard_frames: int = SHARD_FRAMES
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        return grid_shape(self.canvas, self.cell)

    @functools.cached_property
    def digest(self) -> str:
        return short_digest(asdict(self))


@dataclass(frozen=True)
class ClipToExtract:
    """A video to extract, and its place. `stored` is its row if the same fields already lie in that place."""

    id: str
    path: str
    md5: str
    frames: int
    codec: str
    has_b: bool
    offset: int
    slots: int
    key: str
    stored: dict[str, Any] | None = None


@dataclass(frozen=True)
class ShardJob:
    """One shard's work (or the consecutive shards of one long video): `first` and `count` in shards."""

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
class Stored:
    """What a store holds: its table, the type of each frame, and the numbers of its shards and of its parts.

    A part is what an unfinished run says of the shards that begin with this number.
    """

    table: pd.DataFrame
    types: np.ndarray
    shards: frozenset[int]
    parts: frozenset[int]


@dataclass(frozen=True)
class Plan:
    """The places of all clips, cut into jobs.

    Attributes
    ----------
    clips : a row a video: the columns that `extract` is given, and offset, slots, key; `stored` is the row of the
        store's table with the same fields in the same place, or -1.
    jobs : in the order of their shards.
    """

    folder: Folder
    root: str
    recipe: FieldRecipe
    stored: Stored
    clips: pd.DataFrame
    jobs: list[Planned]


def part_name(first: int) -> str:
    """The file that says what a shard holds, while the extraction runs."""
    return f"{PARTS_FOLDER}/{first:06d}.json"


def part_numbers(folder: Folder) -> frozenset[int]:
    """The first shards of the parts that are there."""
    stems = (Path(name).stem for name in folder.sizes(PARTS_FOLDER))
    return frozenset(int(stem) for stem in stems if stem.isdigit())


def read_stored(folder: Folder, table: pd.DataFrame, types: np.ndarray) -> Stored:
    """A store with this table and these frame types, and what else is in its folder."""
    names = (name.removeprefix(f"{SHARDS_FOLDER}/").split("/")[0] for name in folder.sizes(SHARDS_FOLDER))
    shards = frozenset(int(name) for name in names if name.isdigit())
    return Stored(table, types, shards, part_numbers(folder))


def make_plan(videos: pd.DataFrame, root: str, folder: Folder, recipe: FieldRecipe, stored: Stored) -> Plan:
    """Give each video its place, and find those whose fields lie there already."""
    places = plan_slots(videos, CHUNK_FRAMES, recipe.shard_frames, stored.table)
    keys = pd.Series([short_digest(md5, recipe.digest) for md5 in videos["md5"]], dtype="str")
    clips = videos.reset_index(drop=True).assign(offset=places["offset"], slots=places["slots"], key=keys)
    clips["stored"] = _rows_stored(clips, stored.table)
    jobs = by_shard(places["offset"].to_numpy(), places["slots"].to_numpy(), recipe.shard_frames)
    return Plan(folder, root, recipe, stored, clips, jobs)


def _rows_stored(clips: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """For each clip the row of the table that has the same fields in the same place, or -1: int64 (clips,)."""
    at = pd.Index(table["id"]).get_indexer(pd.Index(clips["id"]))
    same = at >= 0
    if same.any():
        for name in ("md5", "offset", "slots", "key"):
            same &= table[name].to_numpy()[at] == clips[name].to_numpy()
    return np.where(same, at, -1)


def jobs_to_do(plan: Plan) -> list[Planned]:
    """The jobs whose shards do not hold exactly their clips."""
    before = np.bincount(plan.stored.table["offset"] // plan.recipe.shard_frames, minlength=1)
    return [job for job in plan.jobs if not _is_done(plan, job, before)]


def _is_done(plan: Plan, planned: Planned, before: np.ndarray) -> bool:
    """`before` counts the clips of each shard in the table. A part, if there is one, overrules the table."""
    if planned.first in plan.stored.parts:
        return _is_done_by_part(plan.folder, job_of(plan, planned))
    shards = range(planned.first, planned.first + planned.count)
    rows = plan.clips["stored"].to_numpy()[planned.rows]
    if (rows < 0).any() or before[planned.first : shards.stop].sum() != len(rows):
        return False
    return plan.stored.shards.issuperset(shards) or bool((plan.stored.table["status"].iloc[rows] != "ok").all())


def _is_done_by_part(folder: Folder, job: ShardJob) -> bool:
    part = _read_part(folder, job.first)
    if not part or part["shards"] != [folder.stamp(name) for name in job.shards]:
        return False
    wanted = {(clip.id, clip.offset, clip.slots, clip.key) for clip in job.clips}
    return wanted == {(row["id"], row["offset"], row["slots"], row["key"]) for row in part["rows"]}


def _read_part(folder: Folder, first: int) -> dict[str, Any]:
    part: dict[str, Any] = json.loads(folder.read(part_name(first)))
    return part


def job_of(plan: Plan, planned: Planned) -> ShardJob:
    """A job with all that its worker needs."""
    in_part: dict[str, dict[str, Any]] = {}
    if planned.first in plan.stored.parts:
        in_part = {row["id"]: row for row in _read_part(plan.folder, planned.first)["rows"]}
    clips = tuple(_clip(plan, row, in_part) for row in rows_of(plan.clips.iloc[planned.rows]))
    return ShardJob(plan.folder.url, plan.root, planned.first, planned.count, clips, plan.recipe)


def _clip(plan: Plan, row: Any, in_part: Mapping[str, dict[str, Any]]) -> ClipToExtract:
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
    )
    if clip.id in in_part and _same_fields(clip, in_part[clip.id]):
        return replace(clip, stored=in_part[clip.id])
    return replace(clip, stored=_row_of_table(plan.stored, int(row.stored))) if row.stored >= 0 else clip


def _same_fields(clip: ClipToExtract, row: Mapping[str, Any]) -> bool:
    return all(getattr(clip, name) == row[name] for name in ("id", "md5", "offset", "slots", "key"))


def _row_of_table(stored: Stored, at: int) -> dict[str, Any]:
    found = stored.table.iloc[[at]]
    row = {str(name): value for name, value in found.to_dict("records")[0].items()}
    types = stored.types[row["offset"] : row["offset"] + row["length"]]
    return row | {"types": letters(types)}


def letters(types: np.ndarray) -> str:
    """Frame types as they stand in a part: a letter each."""
    return types.astype(np.uint8).tobytes().decode("ascii")
