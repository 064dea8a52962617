"""A store in an object store, as the project sees it: a folder with one small file that names the URL and the contents.

DVC tracks this link; whoever reads the store follows it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moclip.errors import StoreError
from moclip.files.atomic import folder_aside
from moclip.files.folders import Folder, is_url, join_path

LINK = "link.json"


def follow_link(path: str | Path) -> tuple[Folder, str | None]:
    """The folder that `path` is or stands for, and the digest of its contents that a link asks for.

    Raises StoreError where the link cannot be read.
    """
    if is_url(path):
        return Folder(path), None
    try:
        link = json.loads((Path(path) / LINK).read_text(encoding="utf-8"))
        return Folder(link["url"]), str(link["contents"])
    except (FileNotFoundError, NotADirectoryError):
        return Folder(path), None
    except (ValueError, KeyError) as problem:
        raise StoreError(f"not a link to a store: {problem}", where=Path(path) / LINK) from None


def write_link(path: Path, url: str, contents: str) -> None:
    """Let the folder `path` stand for the store at `url`; whatever lay there goes."""
    with folder_aside(path) as aside:
        aside.mkdir()
        text = json.dumps({"url": url, "contents": contents}, indent=2, sort_keys=True)
        (aside / LINK).write_text(text + "\n", encoding="utf-8")


def folder_digest(folder: Path, counts: Callable[[Path], bool] = lambda file: True) -> str:
    """16 hexadecimal digits that stand for the names and contents of all files below a local folder that count."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and counts(path)):
        whole.update(f"{path.relative_to(folder).as_posix()} ".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


@contextmanager
def folder_to_fill(path: Path, elsewhere: str | None) -> Iterator[Path]:
    """Yield a local folder to fill, which then takes the place of `path`, atomically.

    With a URL `elsewhere` its files go there instead, into a folder named after their contents, so that what older
    links stand for stays as it is; `path` becomes the link.
    """
    if not elsewhere:
        with folder_aside(path) as aside:
            yield aside
        return
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / path.name
        yield made
        contents = folder_digest(made)
        url = join_path(elsewhere, f"{path.stem}-{contents}{path.suffix}")
        Folder(url).upload(made)
        write_link(path, url, contents)
