"""Fill the motion-field store: every video once, shard by shard, on as many processes or machines as asked for.

The unit of work is a shard. What a killed run has finished stays; what one bad video does stays in its row.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd

from moclip.errors import MoclipError, StoreError, VideoError
from moclip.files.folders import Folder, absolute_path, is_url, join_path
from moclip.files.links import write_link
from moclip.files.local_copies import local_copy
from moclip.motion.accumulate import ACCUMULATE
from moclip.motion.field import CODEC_CELL, grid_shape
from moclip.motion.quantise import LEVELS, quantise
from moclip.motion.windows import motion_fields
from moclip.store.layout import (
    CHUNK_FRAMES,
    DESCRIPTION_FILE,
    MISSING,
    PARTS_FOLDER,
    SHARD_FRAMES,
    SHARDS_FOLDER,
    drop_store,
    encode_shard,
    read_frame_types,
    shard_name,
    short_digest,
    write_metadata,
)
from moclip.store.plain_reader import PlainReader
from moclip.store.slots import by_shard, plan_slots
from moclip.store.table import as_table, contents_digest, field_checksum, read_table, rows_of, write_table
from moclip.video.clip_files import check_unchanged
from moclip.video.mvextractor_backend import InexactError
from moclip.video.probe import probe
from moclip.video.vectors import DamagedError, choose_backend, vector_windows
from moclip.workers.cluster import Cluster, check_seen, check_versions
from moclip.workers.processes import SingleWorker, WorkerDiedError, run_jobs_on_pool, single_threaded_workers
from moclip.workers.time_limit import enable_time_limit, time_limit

REVISION = 4  # of what is done between a video and its stored bytes: another one means extracting anew
TABLE = "table.parquet"  # in a store elsewhere: its table, for whoever extracts into it next
MARK = f"{PARTS_FOLDER}/recipe"
ROWS = 4096  # of parts, held as Python objects at a time

Advance = Callable[[int], object]


@dataclass(frozen=True)
class FieldRecipe:
    """All that a stored field depends on, beside the video: what the keys are made of."""

    canvas: tuple[int, int]
    cell: int
    accumulate: bool | str
    clip: float
    backend: str
    shard_frames: int
    versions: tuple[tuple[str, str], ...]

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


def part_name(first: int) -> str:
    """The file that says what a shard holds, while the extraction runs."""
    return f"{PARTS_FOLDER}/{first:06d}.json"


def extract(
    videos: pd.DataFrame,
    *,
    root: str | Path,
    zarr_path: str | Path,
    table_path: str | Path,
    canvas: tuple[int, int] = (240, 320),
    cell: int = CODEC_CELL,
    accumulate: bool | str = False,
    clip: float = 20.0,
    backend: str = "auto",
    shard_frames: int = SHARD_FRAMES,
    workers: int = 0,
    elsewhere: str | None = None,
    cluster: Cluster | None = None,
    rebuild: bool = False,
    advance: Advance = lambda count: None,
) -> pd.DataFrame:
    """Extract the motion fields of all videos into the store, and return (and write) its table.

    Only shards whose videos or places changed are written, and in those only new or changed videos are read.
    Other parameters or versions mean another store: everything is extracted again. The bytes of the store and
    of the table depend on the videos, the parameters and the store's history of places, and neither on
    `workers`, the machines and the store's place, nor on the order of rows or of completion.

    Parameters
    ----------
    videos : columns id, path (absolute, or relative to `root`), md5, frames, codec, has_b.
    canvas, cell : (height, width) and side of a cell, px.
    accumulate : False, or "grid" or "pixel" for displacements traced back to the I-frame so.
    clip : px that the largest stored number stands for.
    backend : auto and pyav read with PyAV, mvextractor with that where it is exact.
    shard_frames : frames in a shard, a multiple of 4.
    workers : processes; 0 works in this one, which a decoder that crashes takes with it.
    elsewhere : URL of a folder: the store goes there, one for each recipe, and `zarr_path` becomes a link to it.
    cluster : machines that do the work; they must see the videos and the store under the same names.
    rebuild : begin anew, with the videos laid out afresh.
    advance : called with the number of videos whenever a shard of them is finished.

    Returns
    -------
    The table (`store.TABLE_COLUMNS`), a row a video, sorted by id; a video that cannot be extracted has
    status "failed" and a reason.

    Raises
    ------
    MoclipError
        A machine of the cluster has other versions, or does not see the videos or the store.
    """
    choose_backend("h264", True, backend)
    if accumulate not in ACCUMULATE:
        raise MoclipError(f"unknown way to accumulate: {accumulate!r}", fix="use false, grid or pixel")
    zarr_path, table_path = Path(zarr_path), Path(table_path)
    recipe = FieldRecipe(
        (canvas[0], canvas[1]), cell, accumulate, float(clip), backend, shard_frames, _versions(backend)
    )
    target = Folder(join_path(elsewhere, f"mv-{recipe.digest}.zarr") if elsewhere else zarr_path.absolute())
    if rebuild:
        drop_store(target.url)
    known = _known(target, join_path(target.url, TABLE) if elsewhere else table_path, recipe)
    plan = _Plan(videos, absolute_path(root), target, recipe, known)
    todo = [job for job in range(len(plan)) if not plan.is_done(job)]
    if finished := len(videos) - sum(plan.clips_in(job) for job in todo):
        advance(finished)
    target.write(MARK, recipe.digest.encode())  # readers keep off from here on
    for clips in _run(plan, todo, workers, cluster):
        advance(clips)
    return _finish(plan, target, zarr_path, table_path, bool(elsewhere))


def _versions(backend: str) -> tuple[tuple[str, str], ...]:
    names = {"revision": str(REVISION), "av": av.__version__, "ffmpeg": str(av.ffmpeg_version_info)}
    if backend == "mvextractor":
        names["mvextractor"] = importlib.metadata.version("motion-vector-extractor")
    return tuple(sorted(names.items()))


@dataclass(frozen=True)
class _Known:
    """What is stored: the table, the types of its frames, and the first shards of what an unfinished run left."""

    table: pd.DataFrame
    types: np.ndarray
    parts: frozenset[int]


def _known(target: Folder, table_path: str | Path, recipe: FieldRecipe) -> _Known:
    """Read what is stored under the same recipe; what is stored under another one is removed."""
    try:
        if json.loads(target.read(DESCRIPTION_FILE))["attributes"]["recipe"] != recipe.digest:
            raise StoreError("made by another recipe", where=target.url)
        table, types = read_table(table_path), read_frame_types(target)
    except (OSError, ValueError, KeyError, StoreError):
        if not is_url(table_path):
            Path(table_path).unlink(missing_ok=True)
        _drop_foreign(target, recipe)
        table, types = as_table(pd.DataFrame()), np.zeros(0, np.uint8)
    return _Known(table, types, _parts(target))


def _parts(target: Folder) -> frozenset[int]:
    """The first shards of the parts that are there."""
    stems = (Path(name).stem for name in target.sizes(PARTS_FOLDER))
    return frozenset(int(stem) for stem in stems if stem.isdigit())


def _drop_foreign(target: Folder, recipe: FieldRecipe) -> None:
    """Remove a store unless it is the unfinished work of a killed run with this recipe."""
    if not target.exists(MARK) or target.read(MARK) != recipe.digest.encode():
        drop_store(target.url)


class _Plan:
    """The places of all videos, cut into jobs. A clip is a row of tables here; a job is made when asked for."""

    def __init__(self, videos: pd.DataFrame, root: str, target: Folder, recipe: FieldRecipe, known: _Known) -> None:
        self.videos, self.root, self.target, self.recipe, self.known = videos, root, target, recipe, known
        planned = plan_slots(videos, CHUNK_FRAMES, recipe.shard_frames, known.table if len(known.table) else None)
        self.offset, self.slots = planned["offset"].to_numpy(), planned["slots"].to_numpy()
        self.keys = pd.Series([short_digest(md5, recipe.digest) for md5 in videos["md5"]], dtype="str")
        self.stored = self._stored()
        self.jobs = by_shard(self.offset, self.slots, recipe.shard_frames)
        numbers = (name.removeprefix(f"{SHARDS_FOLDER}/").split("/")[0] for name in target.sizes(SHARDS_FOLDER))
        self.there = {int(number) for number in numbers if number.isdigit()}
        self.before = np.bincount(known.table["offset"] // recipe.shard_frames, minlength=1)

    def __len__(self) -> int:
        return len(self.jobs)

    def _stored(self) -> np.ndarray:
        """For each video the row of the table that has the same fields in the same place, or -1: (videos,) int64."""
        table = self.known.table
        at = pd.Index(table["id"]).get_indexer(pd.Index(self.videos["id"]))
        same = at >= 0
        given = {"md5": self.videos["md5"], "offset": self.offset, "slots": self.slots, "key": self.keys}
        for name, values in given.items():
            if same.any():
                same &= table[name].to_numpy()[at] == np.asarray(values)
        return np.where(same, at, -1)

    def clips_in(self, job: int) -> int:
        return len(self.jobs[job].rows)

    def frames_in(self, job: int) -> int:
        return int(self.videos["frames"].to_numpy()[self.jobs[job].rows].sum())

    def job(self, number: int) -> ShardJob:
        """A job with all that its work needs."""
        planned = self.jobs[number]
        part = self.part(planned.first)
        old = {row["id"]: row for row in part["rows"]} if part else {}
        clips = tuple(
            self._clip(row, int(at), old)
            for at, row in zip(planned.rows, rows_of(self.videos.iloc[planned.rows]), strict=True)
        )
        return ShardJob(self.target.url, self.root, planned.first, planned.count, clips, self.recipe)

    def _clip(self, row: Any, at: int, old: Mapping[str, dict[str, Any]]) -> ClipToExtract:
        clip = ClipToExtract(
            id=row.id,
            path=join_path(self.root, row.path),
            md5=row.md5,
            frames=int(row.frames),
            codec=row.codec,
            has_b=bool(row.has_b),
            offset=int(self.offset[at]),
            slots=int(self.slots[at]),
            key=self.keys[at],
        )
        if clip.id in old and _same(clip, old[clip.id]):
            return replace(clip, stored=old[clip.id])
        return replace(clip, stored=self.row(at)) if self.stored[at] >= 0 else clip

    def row(self, at: int) -> dict[str, Any]:
        """What the table says of a video that is stored as it is wanted."""
        found = self.known.table.iloc[[int(self.stored[at])]]
        row = {str(name): value for name, value in found.to_dict("records")[0].items()}
        types = self.known.types[row["offset"] : row["offset"] + row["length"]]
        return row | {"types": _letters(types)}

    def part(self, first: int) -> dict[str, Any] | None:
        """What an unfinished run says of a shard; None if it never came to it."""
        return json.loads(self.target.read(part_name(first))) if first in self.known.parts else None

    def is_done(self, number: int) -> bool:
        """Does the shard hold exactly this job's videos? A part, if there is one, overrules the older table."""
        planned = self.jobs[number]
        if planned.first in self.known.parts:
            return self._is_done_by_part(self.job(number))
        shards = range(planned.first, planned.first + planned.count)
        stored = self.stored[planned.rows]
        if (stored < 0).any() or self.before[planned.first : shards.stop].sum() != len(stored):
            return False
        return self.there.issuperset(shards) or bool((self.known.table["status"].iloc[stored] != "ok").all())

    def _is_done_by_part(self, job: ShardJob) -> bool:
        part = self.part(job.first)
        if not part or part["shards"] != [self.target.stamp(name) for name in job.shards]:
            return False
        wanted = {(clip.id, clip.offset, clip.slots, clip.key) for clip in job.clips}
        return wanted == {(row["id"], row["offset"], row["slots"], row["key"]) for row in part["rows"]}


def _same(clip: ClipToExtract, row: Mapping[str, Any]) -> bool:
    return all(getattr(clip, name) == row[name] for name in ("id", "md5", "offset", "slots", "key"))


def _do(job: ShardJob) -> None:
    """Fill one shard from start to end, in whatever process this runs."""
    buffer, before = _blank(job), _before(job)
    _commit(job, buffer, [_fill(_slot(buffer, job, clip), job, clip, before) for clip in job.clips])


def _blank(job: ShardJob) -> np.ndarray:
    shape = (job.count * job.recipe.shard_frames, 2, *job.recipe.grid)
    return np.full(shape, MISSING, np.int8)


def _slot(buffer: np.ndarray, job: ShardJob, clip: ClipToExtract) -> np.ndarray:
    start = clip.offset - job.first * job.recipe.shard_frames
    return buffer[start : start + clip.slots]


def _before(job: ShardJob) -> PlainReader:
    """What lies in the store already, to be taken over."""
    return PlainReader(job.folder, job.recipe.grid, job.recipe.shard_frames)


def _commit(job: ShardJob, buffer: np.ndarray, rows: list[dict[str, Any]]) -> None:
    """Write a shard so that a kill at any moment leaves it finished or to be done again.

    The part holds nothing while the shard is written; then it says what is in it, and by which stamp to know it.
    """
    folder = job.folder
    folder.write(job.part, json.dumps({"shards": [], "rows": []}).encode())
    for name, piece in zip(job.shards, np.split(buffer, job.count), strict=True):
        if encoded := encode_shard(piece):
            folder.write(name, encoded)
        else:
            folder.remove(name)
    stamps = [folder.stamp(name) for name in job.shards]
    folder.write(job.part, json.dumps({"shards": stamps, "rows": rows}).encode())


def _fill(slot: np.ndarray, job: ShardJob, clip: ClipToExtract, before: PlainReader) -> dict[str, Any]:
    """Put a clip's fields into its slot; return its row, whatever is wrong with the video."""
    row = _row(clip, job.recipe)
    copied = _copy_stored(slot, clip, before)
    if copied is not None:
        return copied
    try:
        with local_copy(clip.path) as file:
            check_unchanged(file, clip.md5)
            with time_limit():
                length, types, backend = _decode(slot, replace(clip, path=str(file)), job.recipe)
    except Exception as error:  # one bad video must not stop the run, whatever it does
        slot[:] = MISSING
        what = error.what if isinstance(error, MoclipError) else f"{type(error).__name__}: {error}"
        return row | {"status": "failed", "reason": what}
    slot[length:] = MISSING
    return row | {
        "length": length,
        "backend": backend,
        "reason": "" if length == clip.frames else f"{length} of {clip.frames} frames decoded",
        "checksum": field_checksum(slot[:length], types),
        "types": _letters(types),
    }


def _row(clip: ClipToExtract, recipe: FieldRecipe) -> dict[str, Any]:
    return {
        "id": clip.id,
        "md5": clip.md5,
        "offset": clip.offset,
        "length": 0,
        "slots": clip.slots,
        "shard": clip.offset // recipe.shard_frames,
        "backend": "",
        "status": "ok",
        "reason": "",
        "checksum": 0,
        "key": clip.key,
        "types": "",
    }


def _copy_stored(slot: np.ndarray, clip: ClipToExtract, before: PlainReader) -> dict[str, Any] | None:
    """Take over what the shard held before, if it is undamaged."""
    row = clip.stored
    if row is None or row["status"] != "ok":
        return None
    place = np.arange(clip.offset, clip.offset + row["length"])
    try:
        fields = before.read(place)
    except (StoreError, ValueError, RuntimeError):
        return None
    if field_checksum(fields, np.frombuffer(row["types"].encode(), np.uint8)) != row["checksum"]:
        return None
    slot[: len(fields)] = fields
    return dict(row)


def _decode(slot: np.ndarray, clip: ClipToExtract, recipe: FieldRecipe) -> tuple[int, np.ndarray, str]:
    """Decode a clip into its slot: (frames, their types, the backend that did it)."""
    backend = choose_backend(clip.codec, clip.has_b, recipe.backend)
    if backend == "mvextractor" and not probe(clip.path).damage:
        try:
            length, types = _fill_slot(slot, clip, recipe, backend, refuse_b=clip.codec != "mpeg4")
            if length == clip.frames:
                return length, types, backend
        except (InexactError, VideoError):
            pass  # PyAV decides: it reads on where mvextractor stops
    try:
        return (*_fill_slot(slot, clip, recipe, "pyav"), "pyav")
    except DamagedError:
        return (*_fill_slot(slot, clip, recipe, "pyav", damaged=True), "pyav")


def _fill_slot(
    slot: np.ndarray,
    clip: ClipToExtract,
    recipe: FieldRecipe,
    backend: str,
    *,
    refuse_b: bool = False,
    damaged: bool = False,
) -> tuple[int, np.ndarray]:
    """Decode a clip into its slot: (frames, their types). `refuse_b` and `damaged` are those of `video.windows`."""
    length = 0
    kinds: list[np.ndarray] = []
    windows = vector_windows(clip.path, backend, refuse_b=refuse_b, moving_only=True, damaged=damaged)
    for moved, types in motion_fields(windows, recipe.canvas, recipe.cell, recipe.accumulate):
        fields = quantise(moved, recipe.clip)
        if length + len(fields) > len(slot):
            what = f"more frames decoded than the {clip.frames} indexed"
            raise VideoError(what, where=clip.path, fix="index the videos again")
        slot[length : length + len(fields)] = fields
        kinds.append(types)
        length += len(fields)
    return length, np.concatenate(kinds)


def _letters(types: np.ndarray) -> str:
    return types.astype(np.uint8).tobytes().decode("ascii")


def _run(plan: _Plan, todo: Sequence[int], workers: int, cluster: Cluster | None) -> Iterator[int]:
    """Do the jobs, yielding the number of clips of each when its shard is in place."""
    if not todo:
        return
    waiting = sorted(todo, key=lambda job: (plan.frames_in(job), -job))  # worked off from the end, the longest first
    if cluster is not None:
        for number, _ in cluster.run(_do_there, _do_apart, plan.job, waiting):
            yield plan.clips_in(number)
        return
    if workers < 1:
        for number in todo:
            _do(plan.job(number))
            yield plan.clips_in(number)
        return
    suspects: list[int] = []
    with single_threaded_workers():
        while waiting:  # a new pool after each one that broke
            for number, _ in run_jobs_on_pool(_do, waiting, suspects, workers, plan.job):
                yield plan.clips_in(number)
        for number in suspects:
            _do_apart(plan.job(number))
            yield plan.clips_in(number)


def _do_there(job: ShardJob) -> None:
    """Do a job on a machine of a cluster, if that works as the one does that asks for it."""
    check_versions(dict(_versions(job.recipe.backend)), dict(job.recipe.versions))
    check_seen(job.folder.exists(MARK), job.store)
    check_seen(is_url(job.root) or Path(job.root).is_dir(), job.root)
    enable_time_limit()
    _do(job)


def _do_apart(job: ShardJob) -> None:
    """Do a job whose process died, a video at a time, so that the one that kills its process gets a row."""
    buffer = _blank(job)
    rows: list[dict[str, Any]] = []
    with SingleWorker() as apart:
        for clip in job.clips:
            try:
                fields, row = apart.run(_do_one, job, clip)
                _slot(buffer, job, clip)[: len(fields)] = fields
            except WorkerDiedError as lost:
                row = _row(clip, job.recipe) | {"status": "failed", "reason": str(lost), "key": ""}
            rows.append(row)
    _commit(job, buffer, rows)


def _do_one(job: ShardJob, clip: ClipToExtract) -> tuple[np.ndarray, dict[str, Any]]:
    slot = np.full((clip.slots, 2, *job.recipe.grid), MISSING, np.int8)
    row = _fill(slot, job, clip, _before(job))
    return slot[: row["length"]], row


def _finish(plan: _Plan, target: Folder, zarr_path: Path, table_path: Path, elsewhere: bool) -> pd.DataFrame:
    """Fold the parts into the table and the frame types, and remove what no video uses any more."""
    recipe = plan.recipe
    shards = max((job.first + job.count for job in plan.jobs), default=0)
    types = np.zeros(shards * recipe.shard_frames, np.uint8)
    written = {job.first for job in plan.jobs} & _parts(target)
    kept = np.concatenate([np.arange(0), *(job.rows for job in plan.jobs if job.first not in written)])
    old = plan.known.table.iloc[plan.stored[kept]]
    for row in rows_of(old[["offset", "length"]]):
        types[row.offset : row.offset + row.length] = plan.known.types[row.offset : row.offset + row.length]
    table = pd.concat([old, *_fold(target, sorted(written), types)])
    table = as_table(table.sort_values("id"))
    contents = contents_digest(table)
    _remove_unused(target, {number for job in plan.jobs for number in range(job.first, job.first + job.count)})
    write_metadata(target, types, recipe.grid, recipe.shard_frames, _attributes(recipe) | {"contents": contents})
    for path in (join_path(target.url, TABLE), table_path) if elsewhere else (table_path,):
        write_table(path, table)
    (target / PARTS_FOLDER).clear()
    if elsewhere:
        write_link(zarr_path, target.url, contents)
    return table


def _fold(target: Folder, written: Sequence[int], types: np.ndarray) -> Iterator[pd.DataFrame]:
    """The rows of the parts, some at a time; their frames' types go into `types`."""
    rows: list[dict[str, Any]] = []
    for text in target.read_many([part_name(first) for first in written]):
        for row in json.loads(text)["rows"]:
            letters = np.frombuffer(row.pop("types").encode(), np.uint8)
            types[row["offset"] : row["offset"] + len(letters)] = letters
            rows.append(row)
        if len(rows) >= ROWS:
            yield as_table(pd.DataFrame(rows))
            rows = []
    yield as_table(pd.DataFrame(rows))


def _remove_unused(target: Folder, used: set[int]) -> None:
    """Remove shards that no video lies in, and what a killed run left aside."""
    names = {shard_name(number) for number in used}
    for name in target.sizes(SHARDS_FOLDER):
        if name not in names:
            target.remove(name)


def _attributes(recipe: FieldRecipe) -> dict[str, Any]:
    return {
        "units": "px",
        "scale": recipe.clip / LEVELS,
        "clip": recipe.clip,
        "canvas": list(recipe.canvas),
        "cell": recipe.cell,
        "components": ["dx", "dy"],
        "accumulate": recipe.accumulate,
        "backend": recipe.backend,
        "versions": dict(recipe.versions),
        "recipe": recipe.digest,
    }
