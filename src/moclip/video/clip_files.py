"""Find clips by path, folder or pattern, and hash them."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from moclip.errors import DatasetError, VideoError
from moclip.files.hidden import is_hidden
from moclip.workers.time_limit import restart_time_limit

VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp", ".wmv", ".asf",
    ".flv", ".ogv", ".divx",
)  # fmt: skip
_HASH_BLOCK = 1 << 20  # bytes


def find_clips(paths: Sequence[Path]) -> list[Path]:
    """Return the files, all clips in the folders, and all that match the patterns ("clips/**/*_g01_*") in `paths`.

    Each file is listed once. The clips of a folder or pattern are sorted. Hidden files and those of operating systems
    are skipped, unless a path or pattern names them.

    Raises
    ------
    DatasetError
        A folder contains no clip, or a pattern matches none.
    """
    clips: list[Path] = []
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises for a name that is too long
            found = _clips_below(path)
            if not found:
                fix = f"clips end in {', '.join(VIDEO_SUFFIXES)}"
                raise DatasetError("no clips in this folder", where=path, fix=fix)
            clips += found
        elif os.path.lexists(path) or not glob.has_magic(str(path)):
            clips.append(path)
        else:
            clips += _matching_clips(path)
    return list(dict.fromkeys(clips))


def _matching_clips(pattern: Path) -> list[Path]:
    """Return the clips that match a pattern, and those in matching folders. Without any, return all matching files."""
    found = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207  may be absolute
    found = [path for path in found if all(_may_match(part, pattern) for part in path.parts)]
    if not found:
        raise DatasetError("no file has this name", where=pattern)
    clips: list[Path] = []
    for path in found:
        if path.is_dir():
            clips += _clips_below(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(path)
    if not clips and all(path.is_dir() for path in found):
        raise DatasetError("no clips in these folders", where=pattern, fix=f"clips end in {', '.join(VIDEO_SUFFIXES)}")
    return clips or [path for path in found if not path.is_dir()]


def _may_match(name: str, pattern: Path) -> bool:
    """Return whether a pattern may match a name: a hidden one only if a hidden part of the pattern matches it."""
    return not is_hidden(name) or any(is_hidden(part) and fnmatch.fnmatchcase(name, part) for part in pattern.parts)


def _clips_below(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not path.is_dir()
        and not any(map(is_hidden, path.relative_to(folder).parts))
    ]


def paths_below(clips: Sequence[Path], folder: Path) -> list[Path]:
    """Return a path below `folder` for what belongs to each clip: `folder`/Class/clip.avi.

    There the clips have their own folders, from the innermost one that holds all clips. So clips of the same name in
    different classes get different paths, even if they come one by one.
    """
    absolute = [Path(os.path.abspath(clip)) for clip in clips]  # noqa: PTH100  resolving would follow links
    shared = Path(os.path.commonpath([clip.parent for clip in absolute])).parent
    return [folder / clip.parent.relative_to(shared) / clip.name for clip in absolute]


def check_regular(path: str | Path) -> None:
    """Raise VideoError for a pipe, a socket or a device: to open it may wait for ever."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return  # whoever opens it says why
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise VideoError("no regular file", where=path, fix="copy the video into a file")


def file_md5(path: str | Path) -> str:
    """Return the MD5 of the file's bytes, in hexadecimal. Raises VideoError as `check_regular`."""
    check_regular(path)
    digest = hashlib.md5()
    with Path(path).open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            restart_time_limit()  # a large file on a slow disk
            digest.update(block)
    return digest.hexdigest()


def check_unchanged(path: Path, md5: str) -> None:
    """Raise VideoError where the file's MD5 is not `md5`. A missing file is left to the decoder to report."""
    if path.exists() and file_md5(path) != md5:
        raise VideoError("it has changed since it was indexed", where=path, fix="run: dvc repro")
