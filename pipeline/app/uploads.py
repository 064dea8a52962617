"""The files that visitors have sent. Each is deleted when it is answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moclip.errors import VideoError

KEPT = 600.0
"""Seconds after which a file is deleted that nobody asked about."""
LONGEST_WAIT = 12
"""So many times as long a file waits for its answer."""


class Uploads:
    """The files in a folder, and how many answers are due for each.

    Gradio gives files with the same content and name the same path. So a file that was sent twice is deleted after the
    second answer, and none is deleted while one arrives.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._due: Counter[Path] = Counter()
        self._in_use: Counter[Path] = Counter()
        self._asked: Counter[Path] = Counter()  # answers that wait for their turn
        self._answered: set[Path] = set()
        self._arriving = 0
        self._lock = threading.Lock()

    def holds(self, path: str) -> bool:
        """Return whether a path is that of a file in the folder."""
        try:
            found = Path(path).resolve()
            return found.is_relative_to(self.folder) and found.is_file()
        except (OSError, ValueError):  # too long, or with a zero byte
            return False

    @contextmanager
    def arriving(self) -> Iterator[list[str]]:
        """Yield a list for the paths of the files that arrive while the block runs."""
        paths: list[str] = []
        with self._lock:
            self._arriving += 1
        try:
            yield paths
        finally:
            with self._lock:
                self._arriving -= 1
                self._due.update(Path(path).resolve() for path in paths)
                self._delete_answered()

    def expect(self, paths: Iterable[str]) -> None:
        """Note that an answer to each of these files waits for its turn."""
        with self._lock:
            self._asked.update(Path(path).resolve() for path in paths)

    @contextmanager
    def in_use(self, path: str) -> Iterator[Path]:
        """Yield the file for an answer; then delete it, unless another answer is due.

        Raises VideoError where there is no such file in the folder.
        """
        if not self.holds(path):
            raise VideoError("it is not here any more", where=Path(path).name, fix="send it again")
        file = Path(path).resolve()
        with self._lock:
            self._in_use[file] += 1
        try:
            yield file
        finally:
            with self._lock:
                self._in_use[file] -= 1
            self.give_up([path])

    def give_up(self, paths: Iterable[str]) -> None:
        """Note that one answer fewer is due for each of these files."""
        with self._lock:
            for path in paths:
                file = Path(path).resolve()
                self._due[file] -= 1
                self._asked[file] -= 1
                self._answered.add(file)
            self._delete_answered()

    def _delete_answered(self) -> None:
        if self._arriving:
            return
        for file in self._answered:
            if self._due[file] <= 0 and not self._in_use[file]:
                file.unlink(missing_ok=True)
                del self._due[file], self._in_use[file], self._asked[file]
        self._answered &= set(self._due)

    def sweep(self, seconds: float = KEPT) -> None:
        """Delete files that are older and not in use, and folders that are older and empty.

        Files that wait for an answer are kept longer, but not for ever: a visitor may have left the queue.
        """
        now = time.time()
        with self._lock:
            for path in sorted(self.folder.rglob("*"), reverse=True):  # files before their folders
                kept = LONGEST_WAIT * seconds if self._asked[path] > 0 else seconds
                if path.stat().st_mtime >= now - kept or self._in_use[path]:
                    continue
                if path.is_file():
                    path.unlink()
                    del self._due[path]
                elif not any(path.iterdir()):
                    path.rmdir()
