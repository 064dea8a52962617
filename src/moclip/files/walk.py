"""List the files below a folder on a disk, with a rule for symbolic links, and without hidden files."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moclip.errors import DatasetError
from moclip.files.hidden import is_hidden

_DVC_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # DVC may link files to its cache


@dataclass
class FoundFiles:
    """What lies below a folder. All names are relative to it, with "/", and sorted.

    files : files, and links to files that are followed.
    folders : folders, and links to folders that are followed.
    hidden : hidden files and folders, and those of operating systems; what is in such a folder is not listed.
    others : what is neither a file nor a folder, such as a pipe, and folders with nothing in them.
    out : links to files and folders elsewhere that are not followed.
    broken : links to nothing, or to themselves.
    again : links to folders whose files are listed already, by another name.
    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def walk_files(root: Path, follow_links: bool = False) -> FoundFiles:
    """List the files below a folder, however deep.

    Links to files and folders below `root` are followed, and links into a DVC cache; others only with `follow_links`. A
    folder is listed once: under its own name if it has one below `root`, else under the first link to it. So links in a
    circle end. Raises DatasetError where a folder cannot be listed.
    """
    return _Walk(root, follow_links).found


def leads_out(root: Path, name: str) -> bool:
    """Return whether the file `name` below `root` is a link out of `root`, and not into a DVC cache."""
    return _is_out(Path(root, name).resolve(), root.resolve())


def _is_out(target: Path, root: Path) -> bool:
    return not target.is_relative_to(root) and not _DVC_CACHE.search(target.as_posix())


class _Walk:
    """A walk through a folder. Links to folders wait until all other folders are listed."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.root, self.target, self.follow_links = root, root.resolve(), follow_links
        self.found = FoundFiles()
        self.seen: set[tuple[int, int]] = set()
        self.linked: deque[str] = deque()
        self._list_all("")
        while self.linked:
            self._list_all(self.linked.popleft())
        for names in vars(self.found).values():
            names.sort()

    def _list_all(self, top: str) -> None:
        """List a folder and the folders in it."""
        waiting = [top]
        while waiting:
            name = waiting.pop()
            if self._is_new(name):
                self.found.folders.append(name)
                waiting += reversed(self._list_one(name))
            else:
                self.found.again.append(name)

    def _is_new(self, name: str) -> bool:
        """Return whether a folder is not listed yet, under any name."""
        with self._reports_errors(name):
            status = (self.root / name).stat()
        key = (status.st_dev, status.st_ino)
        is_new = key not in self.seen
        self.seen.add(key)
        return is_new

    def _list_one(self, folder: str) -> list[str]:
        """Sort the entries of a folder, and return the folders among them."""
        inner, is_empty = [], True
        with self._reports_errors(folder), os.scandir(self.root / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                is_empty = False
                name = f"{folder}/{entry.name}" if folder else entry.name
                if is_hidden(entry.name):
                    self.found.hidden.append(name)
                elif entry.is_symlink():
                    self._sort_link(name)
                elif entry.is_dir():
                    inner.append(name)
                else:
                    (self.found.files if entry.is_file() else self.found.others).append(name)
        if is_empty and folder:
            self.found.others.append(folder)
        return inner

    @contextmanager
    def _reports_errors(self, folder: str) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            what = f"cannot be listed: {problem.strerror}"
            raise DatasetError(what, where=self.root / folder, fix="check its permissions") from None

    def _sort_link(self, name: str) -> None:
        try:
            target = (self.root / name).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a circle
            self.found.broken.append(name)
            return
        if not self.follow_links and _is_out(target, self.target):
            self.found.out.append(name)
        elif target.is_dir():
            self.linked.append(name)
        else:
            (self.found.files if target.is_file() else self.found.others).append(name)
