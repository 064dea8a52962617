"""Folders by path or by URL (s3://...), read and written alike."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from moclip.errors import StoreError
from moclip.files.atomic import write_atomically

SCHEMES = ("s3", "gs", "file")
FILES_AT_ONCE = 64  # files that are read from an object store at once


def is_url(path: str | Path) -> bool:
    """Whether this is a URL and no path."""
    return "://" in str(path)


def join_path(root: str | Path, name: str) -> str:
    """A file below a folder, both by path or both by URL."""
    return f"{str(root).rstrip('/')}/{name}" if is_url(root) else str(Path(root) / name)


def absolute_path(path: str | Path) -> str:
    """The same place for whoever works in another folder."""
    return str(path) if is_url(path) else str(Path(path).absolute())


class Folder:
    """A folder by path or URL; its files, by their names below it, are read and written whole and atomically.

    Raises StoreError where the URL's kind is unknown, or needs a package that is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        text = str(place)
        self.local: Path | None = None
        if text.startswith("file://"):
            self.local = Path(text.removeprefix("file://"))
        elif not is_url(text):
            self.local = Path(text)
        self.url = str(self.local) if self.local else text.rstrip("/")
        if not self.local:
            self._system, self._base = _file_system(self.url)

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, ...]:  # connections do not travel to other processes
        return Folder, (self.url,)

    def __truediv__(self, name: str) -> Folder:
        return Folder(join_path(self.url, name))

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError, or StoreError where the place cannot be reached."""
        if self.local:
            return (self.local / name).read_bytes()
        return bytes(self._call("cat_file", f"{self._base}/{name}"))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`, or as many of them as the file has."""
        if self.local:
            with (self.local / name).open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        return bytes(self._call("cat_file", f"{self._base}/{name}", start=start, end=end))

    def read_many(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of many files in their order, from an object store several at once."""
        if self.local:
            yield from (self.read(name) for name in names)
            return
        for first in range(0, len(names), FILES_AT_ONCE):
            wanted = [f"{self._base}/{name}" for name in names[first : first + FILES_AT_ONCE]]
            contents = self._call("cat", wanted) if len(wanted) > 1 else {wanted[0]: self._call("cat_file", wanted[0])}
            yield from (bytes(contents[name]) for name in wanted)

    def write(self, name: str, content: bytes) -> None:
        """Set a whole file down: a reader, or a kill, meets the old one or the new one."""
        if self.local:
            write_atomically(self.local / name, content)
        else:
            self._call("pipe_file", f"{self._base}/{name}", content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there, and the folders that this leaves empty."""
        if self.local:
            path = self.local / name
            path.unlink(missing_ok=True)
            while path.parent != self.local and path.parent.is_dir() and not any(path.parent.iterdir()):
                path = path.parent
                path.rmdir()
            return
        with suppress(FileNotFoundError):
            self._call("rm_file", f"{self._base}/{name}")

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        if self.local:
            return (self.local / name).is_file()
        return bool(self._call("isfile", f"{self._base}/{name}"))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Every file below this folder (or the folder `below` in it), in order, and its size in bytes."""
        if self.local:
            top = self.local / below
            files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else []
            return {path.relative_to(self.local).as_posix(): path.stat().st_size for path in files}
        found = self._call("find", f"{self._base}/{below}".rstrip("/"), detail=True)
        start = len(self._base) + 1
        return {name[start:]: int(about["size"]) for name, about in sorted(found.items()) if len(name) > start}

    def stamp(self, name: str) -> str:
        """What changes with a file's content: its MD5, or the tag that an object store gave it; "" if it is absent."""
        try:
            if self.local:
                return hashlib.md5((self.local / name).read_bytes()).hexdigest()
            about = self._call("info", f"{self._base}/{name}")
        except FileNotFoundError:
            return ""
        return str(about.get("ETag") or about.get("etag") or (about["size"], about.get("LastModified")))

    def clear(self) -> None:
        """Remove the folder with all that is in it, if it is there."""
        if self.local:
            shutil.rmtree(self.local, ignore_errors=True)
            return
        for name in self.sizes():
            self.remove(name)

    def upload(self, source: Path) -> None:
        """Copy a local folder's files here, several at once."""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        if self.local:
            for path in files:
                self.write(path.relative_to(source).as_posix(), path.read_bytes())
        else:
            targets = [f"{self._base}/{path.relative_to(source).as_posix()}" for path in files]
            self._call("put", [str(path) for path in files], targets)

    def _call(self, name: str, *given: Any, **named: Any) -> Any:
        """Ask the file system for what lies there now."""
        self._system.invalidate_cache()
        try:
            return getattr(self._system, name)(*given, **named)
        except FileNotFoundError:
            if name not in ("pipe_file", "put", "find"):
                raise
            raise StoreError("there is no such bucket", where=self.url, fix="make it first") from None
        except Exception as problem:  # of the object store's library: each has its own kinds
            reason = " ".join(str(problem).split()) or type(problem).__name__
            fix = "see the address, the credentials and, for a server of your own, AWS_ENDPOINT_URL"
            raise StoreError(f"cannot be reached: {reason}", where=self.url, fix=fix) from None

    def kvstore(self) -> dict[str, Any]:
        """This folder as tensorstore's own drivers name it."""
        if self.local:
            return {"driver": "file", "path": f"{self.local}/"}
        scheme, rest = self.url.split("://", 1)
        bucket, _, path = rest.partition("/")
        if scheme == "gs":
            return {"driver": "gcs", "bucket": bucket, "path": f"{path}/"}
        spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": f"{path}/"}
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            spec["endpoint"] = endpoint
        if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
            spec["aws_region"] = region
        if "AWS_ACCESS_KEY_ID" in os.environ:  # else tensorstore looks for files, and complains aloud of each
            spec["aws_credentials"] = {"type": "environment"}
        return spec

    def zarr_store(self) -> Any:
        """This folder as zarr reads it."""
        if self.local:
            return self.local
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.url, read_only=True)


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    scheme = url.split("://", 1)[0]
    if scheme not in SCHEMES:
        wanted = ", ".join(f"{name}://" for name in SCHEMES)
        raise StoreError("no kind of URL that features or clips are read from", where=url, fix=f"use one of {wanted}")
    try:
        system, base = fsspec.core.url_to_fs(url)
    except ImportError as problem:
        extra = "pip install 'moclip[s3]'" if scheme == "s3" else f"install the package it names ({problem})"
        raise StoreError(f"{scheme}:// needs a package that is not installed", where=url, fix=extra) from None
    return system, base.rstrip("/")


def folder_exists(path: str | Path) -> bool:
    """Whether there is such a folder: on a disk; at a URL any with a file in it."""
    return bool(Folder(path).sizes()) if is_url(path) else Path(path).is_dir()
