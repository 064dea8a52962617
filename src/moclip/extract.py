"""Fill the motion-field store: every video once, shard by shard, on as many processes as asked for.

The unit of work is a shard. What a killed run has finished stays; what one bad video does stays in its row.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd

from moclip import motion, processes, store, video
from moclip.errors import MoclipError, StoreError, VideoError
from moclip.files import write_atomically
from moclip.slots import plan_slots

REVISION = 2  # of the arithmetic between a video and its stored field: another one means extracting anew

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Recipe:
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
        return motion.grid_shape(self.canvas, self.cell)

    @property
    def digest(self) -> str:
        return store.digest(asdict(self))


@dataclass(frozen=True)
class Clip:
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
class Job:
    """One shard's work (or the consecutive shards of one long video): `first` and `count` in shards."""

    zarr_path: str
    first: int
    count: int
    clips: tuple[Clip, ...] = field(repr=False)
    recipe: Recipe = field(repr=False)

    @property
    def part(self) -> Path:
        return Path(self.zarr_path) / store.PARTS / f"{self.first:06d}.json"

    @property
    def shards(self) -> list[Path]:
        return [store.shard_path(self.zarr_path, n) for n in range(self.first, self.first + self.count)]


def extract(
    videos: pd.DataFrame,
    *,
    root: str | Path,
    zarr_path: str | Path,
    table_path: str | Path,
    canvas: tuple[int, int] = (240, 320),
    cell: int = motion.CODEC_CELL,
    accumulate: bool | str = False,
    clip: float = 20.0,
    backend: str = "auto",
    shard_frames: int = store.SHARD,
    workers: int = 0,
    advance: Advance = lambda count: None,
) -> pd.DataFrame:
    """Extract the motion fields of all videos into the store, and return (and write) its table.

    Only shards whose videos or places changed are written, and in those only new or changed videos are read.
    Other parameters or versions mean another store: everything is extracted again. The bytes of the store and
    of the table depend on the videos, the parameters and the store's history of places, and neither on
    `workers` nor on the order of rows or of completion.

    Parameters
    ----------
    videos : columns id, path (absolute, or relative to `root`), md5, frames, codec, has_b.
    canvas, cell : (height, width) and side of a cell, px.
    accumulate : False, or "grid" or "pixel" for displacements traced back to the I-frame so.
    clip : px that the largest stored number stands for.
    backend : auto and pyav read with PyAV, mvextractor with that where it is exact.
    shard_frames : frames in a shard, a multiple of 4.
    workers : processes; 0 works in this one, which a decoder that crashes takes with it.
    advance : called with the number of videos whenever a shard of them is finished.

    Returns
    -------
    The table (`store.TABLE_COLUMNS`), a row a video, sorted by id; a video that cannot be extracted has
    status "failed" and a reason.
    """
    video.choose_backend("h264", True, backend)
    if accumulate not in motion.ACCUMULATE:
        raise MoclipError(f"unknown way to accumulate: {accumulate!r}", fix="use false, grid or pixel")
    zarr_path, table_path = Path(zarr_path), Path(table_path)
    recipe = Recipe((canvas[0], canvas[1]), cell, accumulate, float(clip), backend, shard_frames, _versions(backend))
    known = _known_rows(zarr_path, table_path, recipe)
    jobs = _plan(videos, Path(root), zarr_path, recipe, known)
    todo = [job for job in jobs if not _is_done(job, known)]
    if finished := sum(len(job.clips) for job in jobs) - sum(len(job.clips) for job in todo):
        advance(finished)
    (zarr_path / store.PARTS).mkdir(parents=True, exist_ok=True)  # readers keep off from here on
    for job in _run(todo, workers):
        advance(len(job.clips))
    return _finish(jobs, zarr_path, table_path, recipe, known)


def _versions(backend: str) -> tuple[tuple[str, str], ...]:
    names = {"revision": str(REVISION), "av": av.__version__, "ffmpeg": str(av.ffmpeg_version_info)}
    if backend == "mvextractor":
        names["mvextractor"] = importlib.metadata.version("motion-vector-extractor")
    return tuple(sorted(names.items()))


# ------------------------------------------------------------------------------------------------------ plan


@dataclass(frozen=True)
class _Known:
    """What is stored: the table, its rows by id (each with its `types`), and unfinished work by shard."""

    table: pd.DataFrame | None
    rows: dict[str, dict[str, Any]]
    parts: dict[int, dict[str, Any]]


def _known_rows(zarr_path: Path, table_path: Path, recipe: Recipe) -> _Known:
    """Read what is stored under the same recipe; what is stored under another one is removed."""
    table = _previous(zarr_path, table_path, recipe)
    if table is None:
        table_path.unlink(missing_ok=True)
        _drop_foreign(zarr_path, recipe)
        rows = {}
    else:
        types = store.read_frame_types(zarr_path)
        rows = {
            str(row["id"]): {**row, "types": _letters(types[row["offset"] : row["offset"] + row["length"]])}
            for row in _dicts(table)
        }
    return _Known(table, rows, _read_parts(zarr_path))


def _previous(zarr_path: Path, table_path: Path, recipe: Recipe) -> pd.DataFrame | None:
    try:
        described = json.loads((zarr_path / "field" / "zarr.json").read_text())
        if described["attributes"]["recipe"] != recipe.digest:
            return None
        table = store.read_table(table_path)
        store.read_frame_types(zarr_path)
        return table
    except (OSError, ValueError, KeyError, StoreError):
        return None


def _drop_foreign(zarr_path: Path, recipe: Recipe) -> None:
    """Remove a store unless it is the unfinished work of a killed run with this recipe."""
    mark = zarr_path / store.PARTS / "recipe"
    if not mark.exists() or mark.read_text() != recipe.digest:
        store.drop_store(zarr_path)
    write_atomically(mark, recipe.digest.encode())


def _dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _read_parts(zarr_path: Path) -> dict[int, dict[str, Any]]:
    parts = sorted((zarr_path / store.PARTS).glob("[0-9]*.json"))
    return {int(path.stem): json.loads(path.read_text()) for path in parts}


def _plan(videos: pd.DataFrame, root: Path, zarr_path: Path, recipe: Recipe, known: _Known) -> list[Job]:
    """Group the videos into jobs by their planned places."""
    slots = plan_slots(videos, store.CHUNK, recipe.shard_frames, known.table)
    clips = [
        _clip(row, place, root, recipe, known)
        for row, place in zip(store.rows_of(videos), store.rows_of(slots), strict=True)
    ]
    grouped: dict[int, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.offset):
        grouped.setdefault(clip.offset // recipe.shard_frames, []).append(clip)
    return [
        Job(str(zarr_path), first, -(-here[0].slots // recipe.shard_frames), tuple(here), recipe)
        for first, here in sorted(grouped.items())
    ]


def _clip(row: Any, place: Any, root: Path, recipe: Recipe, known: _Known) -> Clip:
    key = store.digest(row.md5, recipe.digest)
    clip = Clip(
        id=row.id,
        path=str(root / row.path),
        md5=row.md5,
        frames=int(row.frames),
        codec=row.codec,
        has_b=bool(row.has_b),
        offset=int(place.offset),
        slots=int(place.slots),
        key=key,
    )
    part = known.parts.get(clip.offset // recipe.shard_frames, {"rows": []})
    rows = [*part["rows"], *([known.rows[clip.id]] if clip.id in known.rows else [])]
    return replace(clip, stored=next((old for old in rows if _same(clip, old)), None))


def _same(clip: Clip, row: Mapping[str, Any]) -> bool:
    return all(getattr(clip, name) == row[name] for name in ("id", "md5", "offset", "slots", "key"))


def _is_done(job: Job, known: _Known) -> bool:
    """Does the shard hold exactly this job's videos? A part, if there is one, overrules the older table."""
    part = known.parts.get(job.first)
    if part is not None:
        rows = part["rows"]
        whole = part["shards"] == [_md5(path) for path in job.shards]
    else:
        ends = (job.first * job.recipe.shard_frames, (job.first + job.count) * job.recipe.shard_frames)
        rows = [row for row in known.rows.values() if ends[0] <= row["offset"] < ends[1]]
        whole = all(path.exists() for path in job.shards) or all(row["status"] != "ok" for row in rows)
    wanted = {(clip.id, clip.offset, clip.slots, clip.key) for clip in job.clips}
    return whole and wanted == {(row["id"], row["offset"], row["slots"], row["key"]) for row in rows}


def _md5(path: Path) -> str:
    return video.md5(path) if path.exists() else ""


# ------------------------------------------------------------------------------------------------------ work


def _do(job: Job) -> None:
    """Fill one shard from start to end, in whatever process this runs."""
    buffer = _blank(job)
    _commit(job, buffer, [_fill(_slot(buffer, job, clip), job, clip) for clip in job.clips])


def _blank(job: Job) -> np.ndarray:
    shape = (job.count * job.recipe.shard_frames, 2, *job.recipe.grid)
    return np.full(shape, store.MISSING, np.int8)


def _slot(buffer: np.ndarray, job: Job, clip: Clip) -> np.ndarray:
    start = clip.offset - job.first * job.recipe.shard_frames
    return buffer[start : start + clip.slots]


def _commit(job: Job, buffer: np.ndarray, rows: list[dict[str, Any]]) -> None:
    """Write a shard so that a kill at any moment leaves it finished or to be done again.

    The part comes first and names the shard's digest: until the shard itself is in place, the two do not
    agree.
    """
    pieces = [store.encode_shard(piece) for piece in np.split(buffer, job.count)]
    aside = [path.with_name(f".{path.name}.tmp") for path in job.shards]
    for path, piece in zip(aside, pieces, strict=True):
        path.unlink(missing_ok=True)
        if piece:
            write_atomically(path, piece)
    digests = [_md5(path) for path in aside]
    write_atomically(job.part, json.dumps({"shards": digests, "rows": rows}).encode())
    for path, shard in zip(aside, job.shards, strict=True):
        if path.exists():
            path.replace(shard)
        else:
            shard.unlink(missing_ok=True)


def _fill(slot: np.ndarray, job: Job, clip: Clip) -> dict[str, Any]:
    """Put a clip's fields into its slot; return its row, whatever is wrong with the video."""
    row = _row(clip, job.recipe)
    copied = _copy_stored(slot, job, clip)
    if copied is not None:
        return copied
    try:
        length, types, backend = _decode(slot, clip, job.recipe)
    except Exception as error:  # one bad video must not stop the run, whatever it does
        slot[:] = store.MISSING
        what = error.what if isinstance(error, MoclipError) else f"{type(error).__name__}: {error}"
        return row | {"status": "failed", "reason": what}
    slot[length:] = store.MISSING
    return row | {
        "length": length,
        "backend": backend,
        "reason": "" if length == clip.frames else f"{length} of {clip.frames} frames decoded",
        "checksum": store.checksum(slot[:length], types),
        "types": _letters(types),
    }


def _row(clip: Clip, recipe: Recipe) -> dict[str, Any]:
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


def _copy_stored(slot: np.ndarray, job: Job, clip: Clip) -> dict[str, Any] | None:
    """Take over what the shard held before, if it is undamaged."""
    row = clip.stored
    if row is None or row["status"] != "ok":
        return None
    place = np.arange(clip.offset, clip.offset + row["length"])
    try:
        fields = store.read_plain(job.zarr_path, place, job.recipe.grid, job.recipe.shard_frames)
    except (StoreError, ValueError, RuntimeError):
        return None
    if store.checksum(fields, np.frombuffer(row["types"].encode(), np.uint8)) != row["checksum"]:
        return None
    slot[: len(fields)] = fields
    return dict(row)


def _decode(slot: np.ndarray, clip: Clip, recipe: Recipe) -> tuple[int, np.ndarray, str]:
    """Decode a clip into its slot: (frames, their types, the backend that did it)."""
    backend = video.choose_backend(clip.codec, clip.has_b, recipe.backend)
    if backend == "mvextractor":
        try:
            length, types = _decode_with(slot, clip, recipe, backend, refuse_b=clip.codec != "mpeg4")
            if length >= clip.frames:
                return length, types, backend
        except (video.InexactError, VideoError):
            pass  # PyAV decides: it reads on where mvextractor stops
    return (*_decode_with(slot, clip, recipe, "pyav", refuse_b=False), "pyav")


def _decode_with(
    slot: np.ndarray, clip: Clip, recipe: Recipe, backend: str, *, refuse_b: bool
) -> tuple[int, np.ndarray]:
    length = 0
    kinds: list[np.ndarray] = []
    windows = video.windows(clip.path, backend, refuse_b=refuse_b)
    for moved, types in motion.fields(windows, recipe.canvas, recipe.cell, recipe.accumulate):
        fields = motion.quantise(moved, recipe.clip)
        if length + len(fields) > len(slot):
            what = f"more frames decoded than the {clip.frames} indexed"
            raise VideoError(what, where=clip.path, fix="index the videos again")
        slot[length : length + len(fields)] = fields
        kinds.append(types)
        length += len(fields)
    return length, np.concatenate(kinds)


def _letters(types: np.ndarray) -> str:
    return types.astype(np.uint8).tobytes().decode("ascii")


# ------------------------------------------------------------------------------------------------- processes


def _run(jobs: list[Job], workers: int) -> Iterator[Job]:
    """Do the jobs, yielding each when its shard is in place."""
    if workers < 1 or not jobs:
        for job in jobs:
            _do(job)
            yield job
        return
    suspects: list[Job] = []
    waiting = sorted(jobs, key=lambda job: (sum(clip.frames for clip in job.clips), -job.first))
    with processes.one_thread_a_process():
        while waiting:  # a new pool after each one that broke
            for job, _ in processes.run_pool(_do, waiting, suspects, workers):
                yield job
        for job in suspects:
            _do_apart(job)
            yield job


def _do_apart(job: Job) -> None:
    """Do a job whose process died, a video at a time, so that the one that kills its process gets a row."""
    buffer = _blank(job)
    rows: list[dict[str, Any]] = []
    pool = processes.pool(1)
    for clip in job.clips:
        try:
            fields, row = pool.submit(_do_one, job, clip).result()
            _slot(buffer, job, clip)[: len(fields)] = fields
        except BrokenProcessPool:
            pool.shutdown()
            pool = processes.pool(1)
            row = _row(clip, job.recipe) | {"status": "failed", "reason": processes.DIED, "key": ""}
        rows.append(row)
    pool.shutdown()
    _commit(job, buffer, rows)


def _do_one(job: Job, clip: Clip) -> tuple[np.ndarray, dict[str, Any]]:
    slot = np.full((clip.slots, 2, *job.recipe.grid), store.MISSING, np.int8)
    row = _fill(slot, job, clip)
    return slot[: row["length"]], row


# ---------------------------------------------------------------------------------------------------- finish


def _finish(jobs: list[Job], zarr_path: Path, table_path: Path, recipe: Recipe, known: _Known) -> pd.DataFrame:
    """Fold the parts into the table and the frame types, and remove what no video uses any more."""
    parts = _read_parts(zarr_path)
    rows = [
        row
        for job in jobs
        for row in (parts[job.first]["rows"] if job.first in parts else [known.rows[clip.id] for clip in job.clips])
    ]
    shards = max((job.first + job.count for job in jobs), default=0)
    types = np.zeros(shards * recipe.shard_frames, np.uint8)
    for row in rows:
        letters = np.frombuffer(row["types"].encode(), np.uint8)
        types[row["offset"] : row["offset"] + len(letters)] = letters
    _remove_unused(zarr_path, {path for job in jobs for path in job.shards})
    store.write_metadata(zarr_path, types, recipe.grid, recipe.shard_frames, _attributes(recipe))
    rows.sort(key=lambda row: row["id"])
    table = store.as_table(pd.DataFrame(rows, columns=[*store.TABLE_COLUMNS, "types"]))
    store.write_table(table_path, table)
    shutil.rmtree(zarr_path / store.PARTS, ignore_errors=True)
    return table


def _remove_unused(zarr_path: Path, used: set[Path]) -> None:
    """Remove shards that no video lies in, and what a killed run left aside."""
    for path in sorted((zarr_path / "field" / "c").rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in used:
            path.unlink()


def _attributes(recipe: Recipe) -> dict[str, Any]:
    return {
        "units": "px",
        "scale": recipe.clip / motion.LEVELS,
        "clip": recipe.clip,
        "canvas": list(recipe.canvas),
        "cell": recipe.cell,
        "components": ["dx", "dy"],
        "accumulate": recipe.accumulate,
        "backend": recipe.backend,
        "versions": dict(recipe.versions),
        "recipe": recipe.digest,
    }
