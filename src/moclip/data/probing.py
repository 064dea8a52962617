"""Probe one clip for the index: its row, or the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from moclip.data.clip_folder import printable_name
from moclip.errors import MoclipError, VideoError
from moclip.files.folders import file_exists, join_path
from moclip.files.local_copies import check_inside, local_copy
from moclip.video.clip_files import file_md5
from moclip.video.probe import probe
from moclip.video.transcoded_folder import check_transcoded, transcoded_path
from moclip.workers.time_limit import time_limit


@dataclass(frozen=True)
class ProbeJob:
    """A clip to probe: "Class/file" below the root, and the file that is indexed for it.

    transcode_failure : the reason why the clip could not be transcoded, if there is one.
    in_manifest : a manifest names the clip, so its file may be missing.
    """

    root: str
    clip: str
    indexed_file: str
    transcode_failure: str | None
    in_manifest: bool = False

    @property
    def is_transcoded(self) -> bool:
        return self.indexed_file != join_path(self.root, self.clip)


def indexed_file(root: str | Path, clip: str, transcoded: Path | None, failures: Mapping[str, str]) -> str:
    """Return the path or URL of the file to index for a clip: the transcoded one if there is one."""
    if transcoded is None or clip in failures:
        return join_path(root, clip)
    return str(transcoded_path(transcoded, clip))


def probe_clip(job: ProbeJob) -> dict[str, object]:
    """Return a clip's row of the index. Whatever is wrong with the clip becomes the row's reason."""
    try:
        if job.clip != printable_name(job.clip):
            raise VideoError("its name is not UTF-8", fix="rename it")
        if job.in_manifest and not file_exists(join_path(job.root, job.clip)):
            return _unread_row(job) | unusable_columns("missing", "named in the manifest, but there is no such file")
        check_inside(job.root, job.clip)
        if job.is_transcoded:
            with local_copy(join_path(job.root, job.clip)) as source:
                check_transcoded(source, Path(job.indexed_file))
        with local_copy(job.indexed_file) as file:
            return _probe_file(file, job)
    except MoclipError as problem:  # it could not be fetched
        return failed_row(job, problem.what)
    except Exception as problem:  # one bad clip must not stop the others
        return failed_row(job, getattr(problem, "strerror", None) or f"{type(problem).__name__}: {problem}")


def failed_row(job: ProbeJob, reason: str) -> dict[str, object]:
    """Return the row of a clip that could not be probed."""
    return _unread_row(job) | unusable_columns("failed", reason)


def _unread_row(job: ProbeJob) -> dict[str, object]:
    name = printable_name(job.clip)
    return {"id": name, "path": name, "md5": ""}


def _probe_file(file: Path, job: ProbeJob) -> dict[str, object]:
    row: dict[str, object] = {"id": job.clip, "path": job.clip, "md5": file_md5(file)}
    if job.transcode_failure is not None:
        return row | unusable_columns("failed", job.transcode_failure)
    try:
        with time_limit():
            info = asdict(probe(file))
    except VideoError as problem:
        return row | unusable_columns("failed", problem.what)
    return row | {
        "codec": info["codec"],
        "w": info["width"],
        "h": info["height"],
        "fps": round(info["fps"], 6),
        "frames": info["frames"],
        "gop": info["gop"],
        "has_b": info["has_b"],
        "bytes": file.stat().st_size,
        "status": "ok",
        "reason": "",
        "damage": info["damage"],
        "seekable": info["seekable"] and not job.is_transcoded,
    }


def unusable_columns(status: str, reason: str) -> dict[str, object]:
    """Return the columns of a clip that was not probed."""
    nothing = {"codec": "", "w": 0, "h": 0, "fps": 0.0, "frames": 0, "gop": 0, "has_b": False, "bytes": 0}
    nothing |= {"damage": "", "seekable": False}
    return nothing | {"status": status, "reason": reason}
