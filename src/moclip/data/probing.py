"""Probe one file for the index: its row, or the reason why it cannot be used; and the frames of spans of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from moclip.data.clip_folder import printable_name
from moclip.data.spans import cut_frames
from moclip.errors import MoclipError, VideoError
from moclip.files.folders import file_exists, join_path
from moclip.files.local_copies import check_inside, local_copy
from moclip.video.clip_files import file_md5
from moclip.video.messages import NO_VECTORS
from moclip.video.probe import VideoInfo, count_packets, probe, probe_frames
from moclip.video.times import read_times
from moclip.video.transcoded_folder import check_transcoded, transcoded_path
from moclip.workers.time_limit import time_limit


@dataclass(frozen=True)
class ProbeJob:
    """A clip to probe: "Class/file" below the root, and the file that is indexed for it.

    transcode_failure : the reason why the clip could not be transcoded, if there is one.
    in_manifest : a manifest names the clip, so its file may be missing.
    follow_links : the clip's file may be a link that leads out of the root.
    spans : starts and ends of clips that are spans of this file, int64 (n, 2) in microseconds. None: it is one clip.
    """

    root: str
    clip: str
    indexed_file: str
    transcode_failure: str | None
    in_manifest: bool = False
    spans: np.ndarray | None = None
    follow_links: bool = False

    @property
    def is_transcoded(self) -> bool:
        return self.indexed_file != join_path(self.root, self.clip)


def indexed_file(root: str | Path, clip: str, transcoded: Path | None, failures: Mapping[str, str]) -> str:
    """Return the path or URL of the file to index for a clip: the transcoded one if there is one."""
    if transcoded is None or clip in failures:
        return join_path(root, clip)
    return str(transcoded_path(transcoded, clip))


def probe_clip(job: ProbeJob) -> dict[str, Any]:
    """Return a file's row of the index. Whatever is wrong with the file becomes the row's reason.

    If spans of the file are wanted, and it can be read, the row also has `cuts`, the result of `spans.cut_frames`.
    """
    try:
        if job.clip != printable_name(job.clip):
            raise VideoError("its name is not UTF-8", fix="rename it")
        if job.in_manifest and not file_exists(join_path(job.root, job.clip)):
            return _unread_row(job) | unusable_columns("missing", "named in the manifest, but there is no such file")
        if not job.follow_links:
            check_inside(job.root, job.clip)
        times, packets = None, None
        if job.is_transcoded:
            with local_copy(join_path(job.root, job.clip)) as source, time_limit():
                check_transcoded(source, Path(job.indexed_file))
                packets = count_packets(source)
                times = None if job.spans is None else read_times(source)
        with local_copy(job.indexed_file) as file:
            row = _probe_file(file, job, times)
        if packets and row["status"] == "ok":  # the transcoded file has what decodes of its source
            row["damage"] = packets.damage(cast(int, row["frames"]))
        return row
    except MoclipError as problem:  # it could not be fetched
        return failed_row(job, problem.what)
    except Exception as problem:  # one bad clip must not stop the others
        return failed_row(job, getattr(problem, "strerror", None) or f"{type(problem).__name__}: {problem}")


def failed_row(job: ProbeJob, reason: str) -> dict[str, Any]:
    """Return the row of a clip that could not be probed."""
    return _unread_row(job) | unusable_columns("failed", reason)


def _unread_row(job: ProbeJob) -> dict[str, object]:
    name = printable_name(job.clip)
    return {"id": name, "path": name, "md5": ""}


def _probe_file(file: Path, job: ProbeJob, times: np.ndarray | None) -> dict[str, object]:
    """Return the row of a file. `times` are those of the pictures of the file that it was transcoded from, if any."""
    row: dict[str, object] = {"id": job.clip, "path": job.clip, "md5": file_md5(file)}
    if job.transcode_failure is not None:
        return row | unusable_columns("failed", job.transcode_failure)
    try:
        with time_limit():
            info, cuts = (probe(file), {}) if job.spans is None else _probe_spans(file, job.spans, times)
    except VideoError as problem:
        return row | unusable_columns("failed", _reason(problem))
    found = asdict(info)
    return (
        row
        | {
            "codec": found["codec"],
            "w": found["width"],
            "h": found["height"],
            "fps": round(found["fps"], 6),
            "frames": found["frames"],
            "gop": found["gop"],
            "has_b": found["has_b"],
            "bytes": file.stat().st_size,
            "status": "ok",
            "reason": "",
            "damage": found["damage"],
            "seekable": found["seekable"] and not job.is_transcoded,
        }
        | cuts
    )


def _reason(problem: VideoError) -> str:
    """Return why a file cannot be used; where a key makes it usable, with the key."""
    return (
        f"{problem.what}; to use it, set index.transcode: mpeg4" if problem.what.endswith(NO_VECTORS) else problem.what
    )


def _probe_spans(file: Path, spans: np.ndarray, times: np.ndarray | None) -> tuple[VideoInfo, dict[str, np.ndarray]]:
    info, shown = probe_frames(file)
    if times is not None:  # a transcoded file has a constant frame rate; the spans are of its source
        if len(times) != info.frames:
            what = f"{len(times)} pictures in the file, {info.frames} in the transcoded one"
            raise VideoError(what, where=file, fix="transcode it again")
        duration = shown.end - shown.times[-1]
        shown = replace(shown, times=times, end=times[-1] + duration)
    return info, {"cuts": cut_frames(shown, spans[:, 0], spans[:, 1])}


def unusable_columns(status: str, reason: str) -> dict[str, object]:
    """Return the columns of a clip that was not probed."""
    nothing = {"codec": "", "w": 0, "h": 0, "fps": 0.0, "frames": 0, "gop": 0, "has_b": False, "bytes": 0}
    nothing |= {"damage": "", "seekable": False}
    return nothing | {"status": status, "reason": reason}
