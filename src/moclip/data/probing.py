"""Probe one clip for the index: its row, or the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from moclip.data.clip_folder import written
from moclip.errors import VideoError
from moclip.files.folders import join_path
from moclip.files.local_copies import check_inside, local_copy
from moclip.video.clip_files import file_md5
from moclip.video.probe import probe
from moclip.video.transcoded_folder import check_transcoded, transcoded_path
from moclip.workers.time_limit import time_limit


@dataclass(frozen=True)
class ClipToProbe:
    """A clip to describe: below the root, and where it is read. `failed` is why it could not be transcoded, if so."""

    root: str
    clip: str
    place: str
    failed: str | None

    @property
    def is_transcoded(self) -> bool:
        """Whether what is read was made from the clip."""
        return self.place != join_path(self.root, self.clip)


def clip_path(root: str | Path, clip: str, transcoded: Path | None, failed: Mapping[str, str]) -> str:
    if transcoded is None or clip in failed:
        return join_path(root, clip)
    return str(transcoded_path(transcoded, clip))


def probe_clip(job: ClipToProbe) -> dict[str, object]:
    try:
        if job.clip != written(job.clip):
            raise VideoError("its name is not UTF-8", fix="rename it")
        check_inside(job.root, job.clip)
        if job.is_transcoded:
            with local_copy(join_path(job.root, job.clip)) as source:
                check_transcoded(source, Path(job.place))
        with local_copy(job.place) as file:
            return _row(file, job)
    except VideoError as problem:  # it could not be fetched
        return probe_lost(job, problem.what)
    except Exception as problem:  # whatever is wrong with one clip, it stops no other
        return probe_lost(job, getattr(problem, "strerror", None) or f"{type(problem).__name__}: {problem}")


def probe_lost(job: ClipToProbe, reason: str) -> dict[str, object]:
    name = written(job.clip)
    return {"id": name, "path": name, "md5": ""} | unusable("failed", reason)


def _row(file: Path, job: ClipToProbe) -> dict[str, object]:
    row: dict[str, object] = {"id": job.clip, "path": job.clip, "md5": file_md5(file)}
    if job.failed is not None:
        return row | unusable("failed", job.failed)
    try:
        with time_limit():
            found = asdict(probe(file))
    except VideoError as problem:
        return row | unusable("failed", problem.what)
    return row | {
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


def unusable(status: str, reason: str) -> dict[str, object]:
    nothing = {"codec": "", "w": 0, "h": 0, "fps": 0.0, "frames": 0, "gop": 0, "has_b": False, "bytes": 0}
    nothing |= {"damage": "", "seekable": False}
    return nothing | {"status": status, "reason": reason}
