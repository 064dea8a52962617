"""Clips by path: which files are clips, folders and patterns of them, and their MD5."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from moclip.errors import DatasetError, VideoError
from moclip.files.hidden import is_hidden
from moclip.workers.time_limit import restart_time_limit

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")
HASHED_BYTES = 1 << 20  # of a file, read at once


def find_clips(paths: Sequence[Path]) -> list[Path]:
    """The files named; of folders all clips within, of patterns ("clips/**/*_g01_*") all that they meet, sorted.

    Each file once. What is hidden in a folder, and what a system keeps there, is left out unless a path or a pattern
    names it. Raises DatasetError for a folder or a pattern that holds no clip.
    """
    clips: list[Path] = []
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112  false for a name that is too long, where Path's method raises
            found = _clips_below(path)
            if not found:
                fix = f"clips end in {', '.join(VIDEO_SUFFIXES)}"
                raise DatasetError("no clips in this folder", where=path, fix=fix)
            clips += found
        elif os.path.lexists(path) or not glob.has_magic(str(path)):
            clips.append(path)
        else:
            clips += _clips_met(path)
    return list(dict.fromkeys(clips))


def _clips_met(pattern: Path) -> list[Path]:
    """The clips that a pattern meets, and those in folders that it meets; where it meets no clip, all other files."""
    met = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207  may be absolute
    met = [one for one in met if all(_is_asked_for(part, pattern) for part in one.parts)]
    if not met:
        raise DatasetError("no file is called so", where=pattern)
    clips: list[Path] = []
    for one in met:
        if one.is_dir():
            clips += _clips_below(one)
        elif one.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(one)
    if not clips and all(one.is_dir() for one in met):
        raise DatasetError("no clips in these folders", where=pattern, fix=f"clips end in {', '.join(VIDEO_SUFFIXES)}")
    return clips or [one for one in met if not one.is_dir()]


def _is_asked_for(name: str, pattern: Path) -> bool:
    """Whether a pattern may meet a file or folder: a hidden one only where a hidden part of the pattern does."""
    return not is_hidden(name) or any(is_hidden(part) and fnmatch.fnmatchcase(name, part) for part in pattern.parts)


def _clips_below(folder: Path) -> list[Path]:
    return [
        inner
        for inner in sorted(folder.rglob("*"))
        if inner.suffix.lower() in VIDEO_SUFFIXES
        and not inner.is_dir()
        and not any(map(is_hidden, inner.relative_to(folder).parts))
    ]


def file_md5(path: str | Path) -> str:
    """Return the MD5 of the file's bytes, in hexadecimal."""
    whole = hashlib.md5()
    with Path(path).open("rb") as file:
        while piece := file.read(HASHED_BYTES):
            restart_time_limit()  # a large file on a slow disk
            whole.update(piece)
    return whole.hexdigest()


def check_unchanged(path: Path, content: str) -> None:
    """Raise VideoError where the file's MD5 is not `content`; what is missing, decoding will say."""
    if path.exists() and file_md5(path) != content:
        raise VideoError("it has changed since it was indexed", where=path, fix="run: dvc repro")
