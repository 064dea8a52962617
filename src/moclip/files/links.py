"""Links to stores at URLs: a local folder with one small file that names the URL and a digest of the contents.

DVC tracks the link. Readers follow it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moclip.errors import StoreError
from moclip.files.atomic import atomic_folder
from moclip.files.folders import Folder, is_url, join_path

LINK_FILE = "link.json"


def follow_link(path: str | Path) -> tuple[Folder, str | None]:
    """Return the folder that `path` is or links to, and the digest of the contents that the link names (None: no link).

    Raises StoreError where the link cannot be read.
    """
    if is_url(path):
        return Folder(path), None
    try:
        link = json.loads((Path(path) / LINK_FILE).read_text(encoding="utf-8"))
        return Folder(link["url"]), str(link["contents"])
    except (FileNotFoundError, NotADirectoryError):
        return Folder(path), None
    except (ValueError, KeyError) as problem:
        raise StoreError(f"cannot read this link to a store: {problem}", where=Path(path) / LINK_FILE) from None


def write_link(path: Path, url: str, contents: str) -> None:
    """Replace the folder `path` by a link to the store at `url`."""
    with atomic_folder(path) as temporary:
        temporary.mkdir()
        text = json.dumps({"url": url, "contents": contents}, indent=2, sort_keys=True)
        (temporary / LINK_FILE).write_text(text + "\n", encoding="utf-8")


def folder_digest(folder: Path, include: Callable[[Path], bool] = lambda file: True) -> str:
    """Return 16 hexadecimal digits of the names and contents of the files below a folder that `include` accepts."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and include(path)):
        digest.update(f"{path.relative_to(folder).as_posix()} ".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@contextmanager
def folder_to_fill(path: Path, storage: str | None) -> Iterator[Path]:
    """Yield a local folder to fill. It then replaces `path` atomically.

    With `storage`, the URL of a folder, the files are uploaded there and `path` becomes a link to them. Their folder is
    named after their contents, so older links stay valid.
    """
    if not storage:
        with atomic_folder(path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as parent:
        filled = Path(parent) / path.name
        yield filled
        contents = folder_digest(filled)
        url = join_path(storage, f"{path.stem}-{contents}{path.suffix}")
        Folder(url).upload(filled)
        write_link(path, url, contents)
