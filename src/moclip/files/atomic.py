"""Writing files and folders so that a reader, or a kill, meets the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moclip.errors import MoclipError

_ASIDE = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]*)-(?P<process>\d+)\.tmp")
LONGEST_NAME = 255  # bytes of a file's name, on most file systems
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def file_aside(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` at the end, or goes."""
    path = Path(path)
    aside = _beside(path)
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a whole file at once."""
    with file_aside(path) as aside:
        aside.write_bytes(content)


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to fill; it takes the place of `path` at the end, or goes."""
    aside = _beside(path)
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            yield aside
            shutil.rmtree(path, ignore_errors=True)
            aside.rename(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine set aside in a folder and left there when they were killed."""
    for path in folder.iterdir() if folder.is_dir() else ():
        aside = _ASIDE.fullmatch(path.name)
        if aside and aside["host"] == _host() and not _lives(int(aside["process"])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def cannot_write(error: OSError, path: str | Path | None = None) -> MoclipError | None:
    """The message where there is no room, or no right, to write; None for another error."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _NO_ROOM:
        fix = "make room, then run the same command again"
        return MoclipError(f"cannot be written: {reason}", where=path or error.filename, fix=fix)
    if error.errno in _NO_RIGHT:
        fix = "see who may read and write there, then run the same command again"
        return MoclipError(f"no access: {reason}", where=error.filename or path, fix=fix)
    return None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = cannot_write(error, path)
        if told is None:
            raise
        raise told from error


def _beside(path: Path) -> Path:
    end = f".{_host()}-{os.getpid()}.tmp"
    name = os.fsdecode(os.fsencode(path.name)[: LONGEST_NAME - len(os.fsencode(end)) - 1])
    return path.with_name(f".{name}{end}")


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
