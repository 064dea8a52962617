"""Writing files and folders so that a reader, or a kill, meets the old one or the new one, never half of either."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_aside(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` at the end, or goes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield aside
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
