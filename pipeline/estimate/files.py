"""Time a sample of the clips' files: transcoding, probing and hashing them, and extracting their motion vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.probing import ProbeJob, failed_row, probe_clip
from moclip.errors import MoclipError
from moclip.files.folders import Folder, is_url, join_path
from moclip.motion.extract_plan import FieldRecipe, ShardJob, StoredState, make_plan, make_shard_job
from moclip.motion.extract_workers import write_shard
from moclip.store.layout import CHUNK_FRAMES, SHARDS_FOLDER
from moclip.store.table import as_table
from moclip.video.clip_files import file_md5
from moclip.video.transcode import transcode_clip, transcode_key
from moclip.workers.processes import run_jobs_in_order
from pipeline.estimate.sample import shorten
from pipeline.estimate.timing import NOTHING, Took, peak_memory, timed


@dataclass(frozen=True)
class FileJob:
    """A file to time. `folder` is its own, for a shortened or transcoded copy and for its motion vectors."""

    clip: str
    path: str
    folder: Path
    transcode: bool


@dataclass(frozen=True)
class TimedFile:
    """What was found of a file.

    row : its row of the index, of the file at `motion_path`, which the motion is read from. `frames` and `bytes` are
        those of the whole clip.
    share : how much of the clip was read. The seconds are those of the whole clip if nothing else ran.
    took : what all of it took.
    """

    clip: str
    row: dict[str, Any]
    motion_path: str
    still_path: str
    share: float = 1.0
    hash_seconds: float = 0.0
    transcode_seconds: float = 0.0
    probe_seconds: float = 0.0
    extract_seconds: float = 0.0
    store_bytes: float = 0.0
    worker_bytes: int = 0
    size: int = 0
    plan: dict[str, Any] = field(default_factory=dict)
    took: Took = NOTHING

    @property
    def is_read(self) -> bool:
        return bool(self.row["status"] == "ok")


def time_files(jobs: Sequence[FileJob], recipe: FieldRecipe, workers: int) -> list[TimedFile]:
    """Probe the files and extract their motion vectors, in as many processes as the stages use."""
    probed = list(run_jobs_in_order(_time_probe, jobs, workers, _not_probed))
    readable = [found for found in probed if found.is_read]
    folders = {job.clip: job.folder for job in jobs}
    extracted = run_jobs_in_order(
        _time_extraction,
        [(found, _shard_job(found, recipe, folders[found.clip])) for found in readable],
        workers,
        _as_probed,
    )
    by_clip = {found.clip: found for found in extracted}
    return [by_clip.get(found.clip, found) for found in probed]


def file_size(path: str) -> int:
    """Return the bytes of a file; 1 if they are not known, as those at a URL."""
    if is_url(path):
        return 1
    file = Path(path)
    return file.stat().st_size if file.is_file() else 1


def videos_table(files: Iterable[TimedFile]) -> pd.DataFrame:
    """Return a row for each file that was read, as `moclip.motion.extract.extract` takes it."""
    return pd.DataFrame([found.plan for found in files if found.is_read])


# ------------------------------------------------------------------------------------------- in a worker process


def _time_probe(job: FileJob) -> TimedFile:
    probe_job = ProbeJob("", job.clip, job.path, None)
    try:
        return _probe_parts(job)
    except MoclipError as problem:
        return TimedFile(job.clip, failed_row(probe_job, problem.what), job.path, job.path)
    except (OSError, ValueError) as problem:
        return TimedFile(job.clip, failed_row(probe_job, str(problem)), job.path, job.path)


def _probe_parts(job: FileJob) -> TimedFile:
    """Shorten a long file, transcode it if that is wanted, and probe it."""
    size = file_size(job.path)
    file, share = (job.path, 1.0) if is_url(job.path) else _shortened(job)
    still_path, transcoding = file, NOTHING
    hashing = NOTHING if is_url(file) else timed(file_md5, Path(file))[0]
    if job.transcode:
        target = job.folder / "mpeg4.avi"
        transcoding = timed(transcode_clip, file, target, transcode_key(Path(file)))[0]
        file = str(target)
    # the absolute path is the clip, so that it is taken for a file of its own
    probing, row = timed(probe_clip, ProbeJob("", file, file, None))
    plan = {"id": job.clip, "path": file, **{name: row[name] for name in ("md5", "frames", "codec", "has_b", "damage")}}
    plan |= {"seekable": row["seekable"]}
    whole = row | {"id": job.clip, "path": job.clip, "frames": max(0, round(row["frames"] / share))}
    whole["bytes"] = round(row["bytes"] / share)
    return TimedFile(
        job.clip,
        whole,
        file,
        still_path,
        share,
        hashing.alone / share,
        transcoding.alone / share,
        probing.alone / share,
        size=size,
        plan=plan,
        took=hashing + transcoding + probing,
    )


def _shortened(job: FileJob) -> tuple[str, float]:
    path, share = shorten(Path(job.path), job.folder / "short.mkv")
    return str(path), share


def _not_probed(job: FileJob, reason: str) -> TimedFile:
    return TimedFile(job.clip, failed_row(ProbeJob("", job.clip, job.path, None), reason), job.path, job.path)


def _shard_job(found: TimedFile, recipe: FieldRecipe, folder: Path) -> ShardJob:
    """Return the job that extracts one file into a shard of its own."""
    frames = CHUNK_FRAMES * -(-max(1, found.plan["frames"]) // CHUNK_FRAMES)
    own = replace(recipe, shard_frames=frames)
    store = Folder(folder / "mv.zarr")
    nothing = StoredState(as_table(pd.DataFrame()), np.zeros(0, np.uint8), frozenset(), frozenset())
    plan = make_plan(pd.DataFrame([found.plan]), "", store, own, nothing)
    return make_shard_job(plan, plan.jobs[0])


def _time_extraction(job: tuple[TimedFile, ShardJob]) -> TimedFile:
    found, shard = job
    extracting, _ = timed(write_shard, shard)
    stored = sum(shard.folder.sizes(SHARDS_FOLDER).values())
    shard.folder.clear()
    return replace(
        found,
        extract_seconds=extracting.alone / found.share,
        store_bytes=stored / found.share,
        worker_bytes=peak_memory(),
        took=found.took + extracting,
    )


def _as_probed(job: tuple[TimedFile, ShardJob], reason: str) -> TimedFile:
    return job[0]


# ------------------------------------------------------------------------------------------------ the whole set


def scaled_sum(files: Sequence[TimedFile], name: str, sizes: np.ndarray) -> float:
    """Return what all files of `sizes` (bytes) would take of the figure `name`, by bytes."""
    of_sample = sum(found.size for found in files)
    return sum(getattr(found, name) for found in files) / max(1, of_sample) * float(sizes.sum())


def by_frames(files: Sequence[TimedFile], name: str, videos: pd.DataFrame) -> float:
    """Return what all `videos` (columns codec, w, h, frames) would take of the figure `name`, by frames.

    The rate is that of the timed files of the same codec and size, or else of all of them by pixels.
    """
    read = [found for found in files if found.is_read]
    if not read or videos.empty:
        return 0.0
    rates: dict[tuple[Any, ...], tuple[float, float]] = {}
    for found in read:
        key = (found.row["codec"], found.row["w"], found.row["h"])
        before = rates.get(key, (0.0, 0.0))
        rates[key] = (before[0] + getattr(found, name), before[1] + found.row["frames"])
    pixels = sum(found.row["w"] * found.row["h"] * found.row["frames"] for found in read)
    overall = sum(getattr(found, name) for found in read) / max(1, pixels)
    total = 0.0
    for _, own in videos.groupby(["codec", "w", "h"]):
        frames, first = float(own["frames"].sum()), own.iloc[0]
        key = (first["codec"], first["w"], first["h"])
        amount, timed_frames = rates.get(key, (overall * first["w"] * first["h"], 1.0))
        total += frames * amount / max(1.0, timed_frames)
    return total


def absolute(root: str, clip: str) -> str:
    """Return the path or URL of a clip, whatever the current folder is."""
    path = join_path(root, clip)
    return path if is_url(path) else str(Path(path).absolute())
