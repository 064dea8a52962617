"""Allow one run of a stage at a time in a project, and remove the temporary files of killed runs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moclip.errors import MoclipError
from moclip.files.atomic import remove_leftovers
from pipeline import paths

MV = paths.MV_STORE
TEMPORARY_FILE_FOLDERS = [
    *map(Path, ("data", "data/features", "data/models", "data/report", "data/work", "data/baselines", "metrics")),
    *(MV, MV / "field", MV / "frame_type", MV / "frame_type/c"),
]
"""Folders that a run writes temporary files to. Extraction itself cleans up among a store's shards."""


@contextmanager
def run_lock(stage: str) -> Iterator[None]:
    """Hold the lock of a stage in this project, and remove leftover temporary files when the block ends well.

    The kernel releases the lock when the process dies. Of several processes that train together, the first one holds
    it. Raises MoclipError if another run holds it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    path = paths.WORK / f"{stage}.lock"
    lock = _open_locked(path, stage)
    try:
        yield
        for folder in [*TEMPORARY_FILE_FOLDERS, *(path for path in paths.METRICS.rglob("*") if path.is_dir())]:
            remove_leftovers(folder)
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _open_locked(path: Path, stage: str) -> int:
    """Open the lock file, lock it, and write the process id to it. Return the file descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _try_lock(file):
            process = os.read(file, 20).decode()
            os.close(file)
            what = f"this stage is already running in this folder{f' (process {process})' if process else ''}"
            raise MoclipError(what, where=stage, fix="wait until it ends, or stop it")
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            os.truncate(file, 0)
            os.write(file, str(os.getpid()).encode())
            return file
        os.close(file)  # the run that held it has ended, and removed the file


def _try_lock(file: int) -> bool:
    """Lock an open file. Return False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
