"""Local copies of files at URLs, for libraries that read local files only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from moclip.errors import StoreError, VideoError
from moclip.files.folders import Folder, is_absolute, is_url
from moclip.files.walk import leads_out


@contextmanager
def local_text_files(path: str | Path) -> Iterator[Path]:
    """Yield a folder of lists as a local one: itself, or a temporary copy of the *.txt files in the folder at a URL."""
    if not is_url(path):
        yield Path(path)
        return
    folder = Folder(path)
    with tempfile.TemporaryDirectory(prefix="moclip-") as temporary:
        for name in folder.sizes():
            if "/" not in name and name.endswith(".txt"):
                (Path(temporary) / name).write_bytes(folder.read(name))
        yield Path(temporary)


def check_inside(root: str | Path, name: str) -> None:
    """Raise VideoError where the file `name` below `root` is a link out of `root`, unless into DVC's cache.

    An absolute `name` was given by the user, and may be anywhere.
    """
    if is_url(root) or is_absolute(name):
        return
    if leads_out(Path(root), name):
        what = "a link that leads out of dataset.root; to read it, set dataset.follow_links: true"
        raise VideoError(what, where=name)


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """Yield a clip as a local file: itself, or a temporary copy of the one at a URL.

    Raises VideoError where it cannot be downloaded.
    """
    if not is_url(path):
        yield Path(path)
        return
    folder, _, name = str(path).rpartition("/")
    with tempfile.TemporaryDirectory(prefix="moclip-") as temporary:
        local = Path(temporary) / PurePosixPath(name).name
        try:
            local.write_bytes(Folder(folder).read(name))
        except FileNotFoundError:
            raise VideoError("it no longer exists", where=str(path), fix="index the videos again") from None
        except StoreError as problem:
            raise VideoError(problem.what, where=str(path), fix=problem.fix) from None
        yield local
