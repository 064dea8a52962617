"""Re-encode clips to MPEG-4 Part 2 as CoViAR did: 340 x 256 px, a key frame every 12 frames, no B-frames, qscale 1.

Called by the `transcode` stage for a folder of clips, and by `predict` for one. `index` and `extract_mv` then read
the new files. What a killed run has finished stays; one bad video gets a reason and never stops a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from moclip.errors import DatasetError, MoclipError, VideoError, clip_problem
from moclip.files.atomic import file_aside, write_atomically
from moclip.files.folders import join_path
from moclip.files.local_copies import local_copy
from moclip.video.clip_files import file_md5
from moclip.video.decoding import open_pictures
from moclip.workers.processes import run_jobs
from moclip.workers.time_limit import time_limit

WIDTH, HEIGHT = 340, 256  # px, whatever the source's shape
GOP = 12  # frames from a key frame to the next
QSCALE = 1  # asked for, as `ffmpeg -q:v 1` asks; the encoder goes no lower than its qmin, so it gives 2
TRANSCODED_SUFFIX = ".avi"
FAILED = "failed.json"

CODEC_OPTIONS = {
    "flags": "+qscale+bitexact",
    "global_quality": str(QSCALE * 118),  # FFmpeg's FF_QP2LAMBDA
    "g": str(GOP),
    "bf": "0",
    "sc_threshold": "1000000000",  # no key frame at a cut of scene: each group has its 12 frames
    "threads": "1",
}
CONTAINER_OPTIONS = {"fflags": "+bitexact"}
# as the ffmpeg command does
SCALING: dict[str, Any] = {"interpolation": Interpolation.BICUBIC, "dst_color_range": ColorRange.MPEG}
REVISION = 1  # of what else makes the bytes of a file: another one means transcoding anew

_RUN_IT = "run: dvc repro (or: python -m stages.transcode)"
_MOST_TICKS = 65535  # a second in MPEG-4 Part 2
_HEADER = 8192  # bytes, the key lies in them


def transcoded_name(clip: str) -> str:
    """The file of the clip "Class/a.mp4", below the folder of transcoded clips: "Class/a.mp4.avi"."""
    return clip + TRANSCODED_SUFFIX


def transcode_clip(source: str | Path, target: str | Path, key: str = "") -> None:
    """Re-encode a video into the AVI file `target`, which is there in whole or not at all.

    One picture for each that decodes, at the source's average rate, without sound; the same source gives the same
    bytes. Pictures are turned as the source asks for. `key` is kept in the file, as its comment.

    Raises
    ------
    VideoError
        The source is no video, is interlaced, or nothing in it decodes.
    MoclipError
        `target` cannot be written.
    """
    with open_pictures(source) as (rate, pictures), file_aside(target) as aside:
        try:
            _write(aside, pictures, _tick(rate), key)
        except (FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, OSError):
                raise MoclipError(f"cannot be written: {reason}", where=target, fix="make room for it") from error
            raise VideoError(f"its pictures cannot be encoded anew ({reason})", where=source) from error


@contextmanager
def transcoded_copy(source: Path) -> Iterator[Path]:
    """Yield a transcoded copy of a video, the bytes that `transcode` gives it, gone at the end. Raises as `encode`."""
    with TemporaryDirectory(prefix="moclip-") as folder:
        target = Path(folder) / transcoded_name(source.name)
        transcode_clip(source, target, _key(source))
        yield target


def _tick(rate: Fraction) -> Fraction:
    """Seconds a frame, as finely as MPEG-4 Part 2 can tell them."""
    return (1 / rate).limit_denominator(_MOST_TICKS) or Fraction(1, _MOST_TICKS)


def _write(path: Path, pictures: Iterator[Any], tick: Fraction, key: str) -> None:
    scale = VideoReformatter()
    with av.open(f"file:{path}", "w", format="avi", container_options=CONTAINER_OPTIONS) as container:
        container.metadata["comment"] = key
        stream: Any = container.add_stream("mpeg4", rate=1 / tick)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.sample_aspect_ratio = Fraction(1)
        stream.codec_context.time_base = tick
        stream.options = dict(CODEC_OPTIONS)
        for number, picture in enumerate(pictures):
            scaled = scale.reformat(picture, WIDTH, HEIGHT, "yuv420p", threads=1, **SCALING)
            scaled.pts, scaled.time_base = number, tick
            scaled.pict_type = 0  # the encoder's choice, not what the source had there
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))


@dataclass(frozen=True)
class _Job:
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
    """Make `folder` hold each of the `clips` ("Class/file" below `root`) as `name_of` names it, and nothing else.

    A file made from the same bytes with the same settings and libraries is kept, so a killed run goes on where it
    stood; one that failed is tried again. `advance` is called with the number of clips newly done, `workers` is the
    number of processes.

    Returns
    -------
    The reason of each clip that could not be transcoded, sorted by clip; also in `folder`/failed.json.
    """
    folder = Path(folder)
    failed_file = folder / FAILED
    failed_file.unlink(missing_ok=True)  # until the end: without it the folder is not finished
    with ThreadPoolExecutor(workers) as threads:  # hashing releases the GIL
        made = threads.map(lambda clip: _job(join_path(root, clip), folder / transcoded_name(clip)), clips)
        jobs = dict(zip(clips, made, strict=True))
    failed = {clip: job for clip, job in jobs.items() if isinstance(job, str)}
    todo = {job: clip for clip, job in jobs.items() if isinstance(job, _Job) and not _is_done(job)}
    advance(len(clips) - len(todo))
    for job, reason in _run(list(todo), workers):
        if reason:
            failed[todo[job]] = reason
        advance(1)
    _keep_only(folder, {folder / transcoded_name(clip) for clip in clips if clip not in failed})
    failed = dict(sorted(failed.items()))
    write_atomically(failed_file, (json.dumps(failed, indent=2, ensure_ascii=False) + "\n").encode())
    return failed


def read_failures(folder: Path) -> Mapping[str, str]:
    """The reasons that `transcode` left in `folder`. Raises DatasetError where it has not run to its end."""
    try:
        return dict(json.loads((folder / FAILED).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DatasetError("the clips are not all transcoded", where=folder, fix=_RUN_IT) from None


def transcoded_path(folder: Path, clip: str) -> Path:
    """The transcoded file of a clip that did not fail. Raises DatasetError where it is not there."""
    path = folder / transcoded_name(clip)
    if not path.is_file():
        raise DatasetError("the clip is not transcoded", where=path, fix=_RUN_IT)
    return path


def check_transcoded(source: Path, target: Path) -> None:
    """Raise VideoError where `target` was not made from the source as it is now."""
    if not _is_done(_Job(str(source), 0, target, _key(source))):
        fix = "run: dvc repro transcode (or: python -m stages.transcode)"
        raise VideoError("it has changed since it was transcoded", where=source, fix=fix)


def _job(source: str, target: Path) -> _Job | str:
    """A clip's job, or why there is none."""
    try:
        with local_copy(source) as file:
            return _Job(source, file.stat().st_size, target, _key(file))
    except VideoError as problem:
        return problem.what


def _key(source: Path) -> str:
    """A digest of all that a transcoded file depends on."""
    scaling = sorted((name, int(value)) for name, value in SCALING.items())
    settings = (WIDTH, HEIGHT, CODEC_OPTIONS, CONTAINER_OPTIONS, scaling, REVISION)
    versions = (av.__version__, str(av.ffmpeg_version_info))
    return "moclip " + sha256(repr((file_md5(source), settings, versions)).encode()).hexdigest()


def _is_done(job: _Job) -> bool:
    try:
        with job.target.open("rb") as file:
            return job.key.encode() in file.read(_HEADER)
    except OSError:
        return False


def _run(waiting: list[_Job], workers: int) -> Iterator[tuple[_Job, str]]:
    """Do the jobs in other processes, the largest first: (job, reason, or "" where it went well)."""
    waiting.sort(key=lambda job: (job.size, job.source))
    yield from run_jobs(_do, waiting, workers, lambda job, reason: reason)


def _do(job: _Job) -> str:
    try:
        with local_copy(job.source) as file, time_limit():
            transcode_clip(file, job.target, job.key)
    except Exception as problem:  # whatever is wrong with one clip, it costs no other
        return clip_problem(problem, job.source).what
    return ""


def _keep_only(folder: Path, wanted: set[Path]) -> None:
    """Remove what is of no clip any more, what is of a clip that failed, and what a killed run left aside."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()
