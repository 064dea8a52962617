"""Write files and folders atomically: a reader, or a kill, finds the old version or the new one, never a mixture."""

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

_TEMPORARY_NAME = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]*)-(?P<process>\d+)\.tmp")
_MAX_NAME_BYTES = 255  # of a file's name, on most file systems
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to. It replaces `path` at the end; after an error it is removed."""
    path = Path(path)
    temporary = _temporary_path(path)
    with _explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a whole file."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield the path of a folder to create. It replaces `path` at the end; after an error it is removed."""
    temporary = _temporary_path(path)
    with _explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that killed processes of this machine left in a folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY_NAME.fullmatch(path.name)
        if match and match["host"] == _host() and not _is_running(int(match["process"])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def write_error(error: OSError, path: str | Path | None = None) -> MoclipError | None:
    """Return the message for missing space or permission, or None for any other error."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _NO_SPACE:
        fix = "make room, then run the same command again"
        return MoclipError(f"cannot be written: {reason}", where=path or error.filename, fix=fix)
    if error.errno in _NO_PERMISSION:
        fix = "check who may read and write there, then run the same command again"
        return MoclipError(f"no access: {reason}", where=error.filename or path, fix=fix)
    return None


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        explained = write_error(error, path)
        if explained is None:
            raise
        raise explained from error


def _temporary_path(path: Path) -> Path:
    end = f".{_host()}-{os.getpid()}.tmp"
    name = os.fsdecode(os.fsencode(path.name)[: _MAX_NAME_BYTES - len(os.fsencode(end)) - 1])
    return path.with_name(f".{name}{end}")


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
