"""Run one job of an extraction: decode its clips, fill its shards and write them.

A clip that cannot be extracted gets a row with the reason. The other clips are not affected.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from moclip.errors import MoclipError, StoreError, VideoError
from moclip.files.folders import is_url
from moclip.files.local_copies import local_copy
from moclip.motion.extract_plan import ClipToExtract, FieldRecipe, ShardJob, type_letters
from moclip.motion.quantise import clip_of, quantise
from moclip.motion.windows import motion_fields
from moclip.store.layout import MISSING, UNFINISHED_FILE, encode_shard
from moclip.store.plain_reader import PlainReader
from moclip.store.table import field_checksum
from moclip.video.clip_files import check_unchanged
from moclip.video.mvextractor_backend import InexactError
from moclip.video.probe import probe
from moclip.video.vectors import DamagedError, choose_backend, vector_windows
from moclip.workers.cluster import check_same_versions, check_visible
from moclip.workers.processes import SingleWorker, WorkerDiedError
from moclip.workers.time_limit import enable_time_limit, time_limit

FIELD_REVISION = 4  # raise it when this code stores other bytes for a video: everything is then extracted again


def field_versions(backend: str) -> tuple[tuple[str, str], ...]:
    """Return the names and versions of the code and libraries that the stored bytes depend on."""
    names = {"revision": str(FIELD_REVISION), "av": av.__version__, "ffmpeg": str(av.ffmpeg_version_info)}
    if backend == "mvextractor":
        names["mvextractor"] = importlib.metadata.version("motion-vector-extractor")
    return tuple(sorted(names.items()))


def write_shard(job: ShardJob) -> None:
    """Extract a job's clips and write its shards."""
    buffer, reader = _empty_buffer(job), _stored_fields(job)
    rows = [_fill_slot(_slot_of(clip, job, buffer), job, clip, reader) for clip in job.clips]
    _write(job, buffer, rows)


def write_shard_by_clip(job: ShardJob) -> None:
    """Do what `write_shard` does for a job whose process died: read the clips one by one in another process.

    The clip that ends this process gets a row with the reason.
    """
    buffer = _empty_buffer(job)
    rows: list[dict[str, Any]] = []
    with SingleWorker() as worker:
        for clip in job.clips:
            try:
                fields, row = worker.run(read_clip, job, clip)
                _slot_of(clip, job, buffer)[: len(fields)] = fields
            except WorkerDiedError as died:
                row = _empty_row(clip, job.recipe) | {"status": "failed", "reason": str(died), "key": ""}
            rows.append(row)
    _write(job, buffer, rows)


def write_shard_on_cluster(job: ShardJob, lost_workers: int) -> None:
    """Do what `write_shard` does on a machine of a cluster. `lost_workers` were lost while they ran this job.

    Raises ClusterError if this machine has other versions, or does not see the videos or the store.
    """
    check_same_versions(dict(field_versions(job.recipe.backend)), dict(job.recipe.versions))
    check_visible(job.folder.exists(UNFINISHED_FILE), job.store)
    check_visible(is_url(job.root) or Path(job.root).is_dir(), job.root)
    if lost_workers:
        write_shard_by_clip(job)
    else:
        enable_time_limit()
        write_shard(job)


def read_clip(job: ShardJob, clip: ClipToExtract) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a clip's fields, int8 (frames, 2, rows, columns), and its row."""
    slot = np.full((clip.slots, 2, *job.recipe.grid), MISSING, np.int8)
    row = _fill_slot(slot, job, clip, _stored_fields(job))
    return slot[: row["length"]], row


def _empty_buffer(job: ShardJob) -> np.ndarray:
    shape = (job.count * job.recipe.shard_frames, 2, *job.recipe.grid)
    return np.full(shape, MISSING, np.int8)


def _slot_of(clip: ClipToExtract, job: ShardJob, buffer: np.ndarray) -> np.ndarray:
    start = clip.offset - job.first * job.recipe.shard_frames
    return buffer[start : start + clip.slots]


def _stored_fields(job: ShardJob) -> PlainReader:
    """Return a reader of the fields that the store holds before the job."""
    return PlainReader(job.folder, job.recipe.grid, job.recipe.shard_frames)


def _write(job: ShardJob, buffer: np.ndarray, rows: list[dict[str, Any]]) -> None:
    """Write a job's shards and its part, so that after a kill at any moment the job is either finished or repeated.

    The part is empty while the shards are written. Then it gets their rows, and stamps that identify their contents.
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


def _fill_slot(slot: np.ndarray, job: ShardJob, clip: ClipToExtract, reader: PlainReader) -> dict[str, Any]:
    """Put a clip's fields into its slot. Return its row, which has the reason if the clip cannot be extracted."""
    row = _empty_row(clip, job.recipe)
    copied = _copy_stored(slot, clip, reader)
    if copied is not None:
        return copied
    try:
        with local_copy(clip.path) as file:
            check_unchanged(file, clip.md5)
            with time_limit():
                length, types, backend = _decode(slot, replace(clip, path=str(file)), job.recipe)
    except Exception as error:  # one bad video must not stop the run
        slot[:] = MISSING
        what = error.what if isinstance(error, MoclipError) else f"{type(error).__name__}: {error}"
        return row | {"status": "failed", "reason": what}
    slot[length:] = MISSING
    return row | {
        "length": length,
        "backend": backend,
        "reason": "" if length == clip.frames else f"{length} of {clip.frames} frames decoded",
        "checksum": field_checksum(slot[:length], types),
        "types": type_letters(types),
    }


def _empty_row(clip: ClipToExtract, recipe: FieldRecipe) -> dict[str, Any]:
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


def _copy_stored(slot: np.ndarray, clip: ClipToExtract, reader: PlainReader) -> dict[str, Any] | None:
    """Copy a clip's stored fields into its slot and return its row, or None if they are missing or damaged."""
    row = clip.stored
    if row is None or row["status"] != "ok":
        return None
    frames = np.arange(clip.offset, clip.offset + row["length"])
    try:
        fields = reader.read(frames)
    except (StoreError, ValueError, RuntimeError):
        return None
    if field_checksum(fields, np.frombuffer(row["types"].encode(), np.uint8)) != row["checksum"]:
        return None
    slot[: len(fields)] = fields
    return dict(row)


def _decode(slot: np.ndarray, clip: ClipToExtract, recipe: FieldRecipe) -> tuple[int, np.ndarray, str]:
    """Decode a clip into its slot. Return its number of frames, their types, and the backend that read them."""
    backend = choose_backend(clip.codec, clip.has_b, recipe.backend)
    damaged = bool(probe(clip.path).damage) if backend == "mvextractor" and clip.damaged is None else clip.damaged
    if backend == "mvextractor" and not damaged:
        try:
            length, types = _decode_with(slot, clip, recipe, backend, refuse_b=clip.codec != "mpeg4")
            if length == clip.frames:
                return length, types, backend
        except (InexactError, VideoError):
            pass  # use PyAV, which can read past the place where mvextractor stops
    try:
        return (*_decode_with(slot, clip, recipe, "pyav", damaged=damaged), "pyav")
    except DamagedError:
        return (*_decode_with(slot, clip, recipe, "pyav", damaged=True), "pyav")


def _decode_with(
    slot: np.ndarray,
    clip: ClipToExtract,
    recipe: FieldRecipe,
    backend: str,
    *,
    refuse_b: bool = False,
    damaged: bool | None = None,
) -> tuple[int, np.ndarray]:
    """Decode a clip into its slot. Return its number of frames and their types. For the flags see `vector_windows`."""
    length, saturation = 0, clip_of(clip.path, recipe.clip, recipe.per)
    frame_types: list[np.ndarray] = []
    windows = vector_windows(clip.path, backend, refuse_b=refuse_b, moving_only=True, damaged=damaged)
    for fields_px, types in motion_fields(windows, recipe.canvas, recipe.cell, recipe.accumulate):
        fields = quantise(fields_px, saturation)
        if length + len(fields) > len(slot):
            what = f"more frames decoded than the {clip.frames} indexed"
            raise VideoError(what, where=clip.path, fix="index the videos again")
        slot[length : length + len(fields)] = fields
        frame_types.append(types)
        length += len(fields)
    return length, np.concatenate(frame_types)
