"""One run of a stage at a time in a project, and what a killed one left aside."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moclip.errors import MoclipError
from moclip.files.atomic import remove_leftovers
from pipeline import paths

FEW = ("data", "data/features", "data/models", "data/report", "data/work", "data/baselines", "metrics")
MV = paths.MV_STORE
PLACES = [*map(Path, FEW), MV, MV / "field", MV / "frame_type", MV / "frame_type/c"]
"""Where a run sets files aside. Among a store's shards, extraction cleans up by itself."""


@contextmanager
def run_lock(stage: str) -> Iterator[None]:
    """Keep a second run of a stage out of this project meanwhile; at the end nothing is left that was set aside.

    The lock is the kernel's, so it goes with the process that holds it. Of processes launched together, the first has
    it. Raises MoclipError where another run has it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    path = paths.WORK / f"{stage}.lock"
    lock = _locked(path, stage)
    try:
        yield
        for place in [*PLACES, *(path for path in paths.METRICS.rglob("*") if path.is_dir())]:
            remove_leftovers(place)
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path, stage: str) -> int:
    """Open the file and lock it; it holds the number of the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(file):
            number = os.read(file, 20).decode()
            os.close(file)
            what = f"another run of this stage is at work in this folder{f' (process {number})' if number else ''}"
            raise MoclipError(what, where=stage, fix="wait for its end, or stop it")
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            os.truncate(file, 0)
            os.write(file, str(os.getpid()).encode())
            return file
        os.close(file)  # the run that had it has ended since, and removed it


def _lock(file: int) -> bool:
    """Lock an open file, if nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
