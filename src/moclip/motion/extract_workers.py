"""What a worker does with a job: decode its clips, fill its shard, write it. In this process, beside it, or elsewhere.

Whatever is wrong with one video costs no other: it gets a row with the reason.
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
from moclip.motion.extract_plan import ClipToExtract, FieldRecipe, ShardJob, letters
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.store.layout import MISSING, PARTS_FOLDER, encode_shard
from moclip.store.plain_reader import PlainReader
from moclip.store.table import field_checksum
from moclip.video.clip_files import check_unchanged
from moclip.video.mvextractor_backend import InexactError
from moclip.video.probe import probe
from moclip.video.vectors import DamagedError, choose_backend, vector_windows
from moclip.workers.cluster import check_seen, check_versions
from moclip.workers.processes import SingleWorker, WorkerDiedError
from moclip.workers.time_limit import enable_time_limit, time_limit

REVISION = 4  # of what is done between a video and its stored bytes: another one means extracting anew
MARK = f"{PARTS_FOLDER}/recipe"  # the recipe of an extraction that is not finished


def versions(backend: str) -> tuple[tuple[str, str], ...]:
    """What the stored bytes depend on, beside videos and parameters."""
    names = {"revision": str(REVISION), "av": av.__version__, "ffmpeg": str(av.ffmpeg_version_info)}
    if backend == "mvextractor":
        names["mvextractor"] = importlib.metadata.version("motion-vector-extractor")
    return tuple(sorted(names.items()))


def write_shard(job: ShardJob) -> None:
    """Fill a job's shards and write them, in whatever process this runs."""
    buffer, before = _empty(job), _before(job)
    rows = [_fill(_slot(buffer, job, clip), job, clip, before) for clip in job.clips]
    _commit(job, buffer, rows)


def write_shard_by_clip(job: ShardJob) -> None:
    """The same for a job whose process died: each clip in a process of its own, so that the culprit gets a row."""
    buffer = _empty(job)
    rows: list[dict[str, Any]] = []
    with SingleWorker() as apart:
        for clip in job.clips:
            try:
                fields, row = apart.run(read_clip, job, clip)
                _slot(buffer, job, clip)[: len(fields)] = fields
            except WorkerDiedError as lost:
                row = _row(clip, job.recipe) | {"status": "failed", "reason": str(lost), "key": ""}
            rows.append(row)
    _commit(job, buffer, rows)


def write_shard_on_cluster(job: ShardJob, lost: int) -> None:
    """The same on a machine of a cluster, where `lost` workers were lost at the job before.

    Raises ClusterError where this machine has other versions, or does not see the videos or the store.
    """
    check_versions(dict(versions(job.recipe.backend)), dict(job.recipe.versions))
    check_seen(job.folder.exists(MARK), job.store)
    check_seen(is_url(job.root) or Path(job.root).is_dir(), job.root)
    if lost:
        write_shard_by_clip(job)
    else:
        enable_time_limit()
        write_shard(job)


def read_clip(job: ShardJob, clip: ClipToExtract) -> tuple[np.ndarray, dict[str, Any]]:
    """A clip's fields, int8 (frames, 2, rows, columns), and its row."""
    slot = np.full((clip.slots, 2, *job.recipe.grid), MISSING, np.int8)
    row = _fill(slot, job, clip, _before(job))
    return slot[: row["length"]], row


def _empty(job: ShardJob) -> np.ndarray:
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
        "types": letters(types),
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
            length, types = _decode_with(slot, clip, recipe, backend, refuse_b=clip.codec != "mpeg4")
            if length == clip.frames:
                return length, types, backend
        except (InexactError, VideoError):
            pass  # PyAV decides: it reads on where mvextractor stops
    try:
        return (*_decode_with(slot, clip, recipe, "pyav"), "pyav")
    except DamagedError:
        return (*_decode_with(slot, clip, recipe, "pyav", damaged=True), "pyav")


def _decode_with(
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
