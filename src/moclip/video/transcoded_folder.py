"""A folder with the transcoded file of each clip of a data set, as the `transcode` stage writes it.

A killed run resumes. A clip that cannot be transcoded gets a reason and never stops a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from moclip.errors import DatasetError, VideoError, as_video_error
from moclip.files.atomic import write_atomically
from moclip.files.folders import join_path
from moclip.files.local_copies import local_copy
from moclip.video.transcode import has_key, transcode_clip, transcode_key, transcoded_name
from moclip.workers.processes import run_jobs
from moclip.workers.time_limit import time_limit

_FAILURES_FILE = "failed.json"
_TRANSCODE_FIX = "run: dvc repro transcode (or: moclip transcode)"


@dataclass(frozen=True)
class _TranscodeJob:
    source: str
    size: int
    target: Path
    key: str


def transcode_clips(
    root: str | Path,
    clips: Sequence[str],
    folder: str | Path,
    workers: int = 1,
    advance: Callable[[int], object] = lambda count: None,
) -> dict[str, str]:
    """Transcode `clips` ("Class/file" below `root`) into `folder`, and remove everything else from it.

    Files made from the same bytes with the same settings and library versions are kept, so a killed run resumes. Clips
    that failed are tried again.

    Parameters
    ----------
    workers : the number of processes.
    advance : called with the number of clips newly finished.

    Returns
    -------
    The reason of each clip that could not be transcoded, sorted by clip. They are also written to `folder`/failed.json.
    """
    folder = Path(folder)
    failures_file = folder / _FAILURES_FILE
    failures_file.unlink(missing_ok=True)  # written last: without it the folder is incomplete
    with ThreadPoolExecutor(workers) as threads:  # hashing releases the GIL
        made_jobs = threads.map(lambda clip: _make_job(join_path(root, clip), folder / transcoded_name(clip)), clips)
        jobs = dict(zip(clips, made_jobs, strict=True))
    failures = {clip: job for clip, job in jobs.items() if isinstance(job, str)}
    clip_of = {
        job: clip for clip, job in jobs.items() if isinstance(job, _TranscodeJob) and not has_key(job.target, job.key)
    }
    advance(len(clips) - len(clip_of))
    waiting = sorted(clip_of, key=lambda job: (job.size, job.source))  # run from the end: the largest first
    for job, reason in run_jobs(_transcode_or_reason, waiting, workers, lambda job, reason: reason):
        if reason:
            failures[clip_of[job]] = reason
        advance(1)
    _remove_others(folder, {folder / transcoded_name(clip) for clip in clips if clip not in failures})
    failures = dict(sorted(failures.items()))
    write_atomically(failures_file, (json.dumps(failures, indent=2, ensure_ascii=False) + "\n").encode())
    return failures


def _make_job(source: str, target: Path) -> _TranscodeJob | str:
    """Return a clip's job, or the reason why its source cannot be read."""
    try:
        with local_copy(source) as file:
            return _TranscodeJob(source, file.stat().st_size, target, transcode_key(file))
    except VideoError as problem:
        return problem.what
    except OSError as problem:  # a manifest may name what is no file
        return problem.strerror or type(problem).__name__


def _transcode_or_reason(job: _TranscodeJob) -> str:
    """Transcode a clip. Return the reason if that fails, else ""."""
    try:
        with local_copy(job.source) as file, time_limit():
            transcode_clip(file, job.target, job.key)
    except Exception as problem:  # one clip never stops the run, whatever is wrong with it
        return as_video_error(problem, job.source).what
    return ""


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    """Remove files that are not `wanted`: of removed and failed clips, and temporary ones of killed runs."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()


def read_failures(folder: Path) -> Mapping[str, str]:
    """Return the reason of each clip that could not be transcoded. Raises DatasetError if `folder` is incomplete."""
    try:
        return dict(json.loads((folder / _FAILURES_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DatasetError("the clips are not all transcoded", where=folder, fix=_TRANSCODE_FIX) from None


def transcoded_path(folder: Path, clip: str) -> Path:
    """Return the path of a clip's transcoded file. Raises DatasetError if it does not exist."""
    path = folder / transcoded_name(clip)
    if not path.is_file():
        raise DatasetError("the clip is not transcoded", where=path, fix=_TRANSCODE_FIX)
    return path


def check_transcoded(source: Path, target: Path) -> None:
    """Raise VideoError unless `target` was made from the source as it is now."""
    if not has_key(target, transcode_key(source)):
        raise VideoError("it has changed since it was transcoded", where=source, fix=_TRANSCODE_FIX)
