"""Allow one run of a stage at a time in a project, say which stage runs, and remove what killed runs left."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moclip.errors import MoclipError, ModelError, StoreError
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


@dataclass(frozen=True)
class RunningStage:
    """A stage that runs in this project. `since` is in seconds since the epoch."""

    name: str
    process: str
    since: float

    def __str__(self) -> str:
        what = "training" if self.name.startswith("train_") else f"the stage {self.name}"
        began = time.localtime(self.since)
        today = time.strftime("%F", began) == time.strftime("%F")
        since = time.strftime("%H:%M" if today else "%F %H:%M", began)
        return f"{what} is running in this project (process {self.process or 'unknown'}, since {since})"


def running_stage() -> RunningStage | None:
    """Return the stage that runs in this project, the latest if there are several; None if none does."""
    running = [found for path in paths.WORK.glob("*.lock") if (found := _holder(path))]
    return max(running, key=lambda found: found.since, default=None)


def _holder(path: Path) -> RunningStage | None:
    """Return the stage that holds a lock; None if its process has ended."""
    try:
        with path.open("rb") as file:
            if _try_lock(file.fileno(), fcntl.LOCK_SH):
                return None
            return RunningStage(path.stem, file.read(20).decode(), path.stat().st_mtime)
    except FileNotFoundError:
        return None


@contextmanager
def explain_running_stage() -> Iterator[None]:
    """Where an artifact of the project is missing or stale because a stage runs, raise MoclipError that says so."""
    try:
        yield
    except (ModelError, StoreError, FileNotFoundError) as problem:
        running = running_stage() if _is_about_artifact(problem) else None
        if running is None:
            raise
        raise MoclipError(f"{running}: wait until it ends") from problem


def _is_about_artifact(problem: MoclipError | FileNotFoundError) -> bool:
    where = problem.where if isinstance(problem, MoclipError) else problem.filename
    folders = (Path("data").absolute(), paths.METRICS.absolute())
    return where is not None and any(Path(where).absolute().is_relative_to(folder) for folder in folders)


def _try_lock(file: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file. Return False if another process holds the lock."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
