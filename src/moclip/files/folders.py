"""Read and write folders on a disk and at URLs (s3://...) in the same way."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from moclip.errors import StoreError
from moclip.files.atomic import write_atomically

SCHEMES = ("s3", "gs", "file")
FILES_AT_ONCE = 64  # read from an object store in parallel


def is_url(path: str | Path) -> bool:
    """Return whether this is a URL, not a path."""
    return "://" in str(path)


def home_expanded(path: str) -> Path:
    """Return a path in which ~ and ~USER are replaced, unless there is no such user: a folder may be called ~x."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises without such a user


def is_absolute(name: str) -> bool:
    """Return whether this is a URL or an absolute path, which no folder has to complete."""
    return name.startswith("/") or _URL.match(name) is not None


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def join_path(root: str | Path, name: str) -> str:
    """Return the path or URL of a file: that of `name` below the folder `root`, or `name` itself if it is absolute."""
    if is_absolute(name):
        return name
    return f"{str(root).rstrip('/')}/{name}" if is_url(root) else str(Path(root) / name)


def absolute_path(path: str | Path) -> str:
    """Return the path or URL in a form that does not depend on the working directory."""
    return str(path) if is_url(path) else str(Path(path).absolute())


class Folder:
    """A folder at a path or URL. Files are named relative to it and written atomically.

    Raises StoreError where the URL's scheme is unknown or needs a package that is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        text = str(path)
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

    def __reduce__(self) -> tuple[Any, ...]:  # connections cannot be pickled
        return Folder, (self.url,)

    def __truediv__(self, name: str) -> Folder:
        return Folder(join_path(self.url, name))

    def read(self, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError, or StoreError where the object store cannot be reached."""
        if self.local:
            return (self.local / name).read_bytes()
        return bytes(self._call("cat_file", f"{self._base}/{name}"))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Read the bytes `start` to `end` (exclusive), fewer where the file is shorter. Raises as `read`."""
        if self.local:
            with (self.local / name).open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        return bytes(self._call("cat_file", f"{self._base}/{name}", start=start, end=end))

    def read_many(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield the contents of files in the order of `names`, from an object store several in parallel."""
        if self.local:
            yield from (self.read(name) for name in names)
            return
        for first in range(0, len(names), FILES_AT_ONCE):
            wanted = [f"{self._base}/{name}" for name in names[first : first + FILES_AT_ONCE]]
            contents = self._call("cat", wanted) if len(wanted) > 1 else {wanted[0]: self._call("cat_file", wanted[0])}
            yield from (bytes(contents[name]) for name in wanted)

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file atomically."""
        if self.local:
            write_atomically(self.local / name, content)
        else:
            self._call("pipe_file", f"{self._base}/{name}", content)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists, and the folders that this leaves empty."""
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
        """Return whether the file exists."""
        if self.local:
            return (self.local / name).is_file()
        return bool(self._call("isfile", f"{self._base}/{name}"))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the size in bytes of every file below this folder, or below its subfolder `below`, sorted by name."""
        if self.local:
            top = self.local / below
            files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else []
            return {path.relative_to(self.local).as_posix(): path.stat().st_size for path in files}
        found = self._call("find", f"{self._base}/{below}".rstrip("/"), detail=True)
        start = len(self._base) + 1
        return {name[start:]: int(info["size"]) for name, info in sorted(found.items()) if len(name) > start}

    def stamp(self, name: str) -> str:
        """Return what identifies a file's content: its MD5, or the object store's ETag. "" where there is no file."""
        try:
            if self.local:
                return hashlib.md5((self.local / name).read_bytes()).hexdigest()
            info = self._call("info", f"{self._base}/{name}")
        except FileNotFoundError:
            return ""
        return str(info.get("ETag") or info.get("etag") or (info["size"], info.get("LastModified")))

    def clear(self) -> None:
        """Remove the folder and everything in it."""
        if self.local:
            shutil.rmtree(self.local, ignore_errors=True)
            return
        for name in self.sizes():
            self.remove(name)

    def upload(self, source: Path) -> None:
        """Copy all files of a local folder here."""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        if self.local:
            for path in files:
                self.write(path.relative_to(source).as_posix(), path.read_bytes())
        else:
            targets = [f"{self._base}/{path.relative_to(source).as_posix()}" for path in files]
            self._call("put", [str(path) for path in files], targets)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the fsspec file system. Raises FileNotFoundError or StoreError."""
        self._system.invalidate_cache()
        try:
            return getattr(self._system, method)(*args, **kwargs)
        except FileNotFoundError:
            if method not in ("pipe_file", "put", "find"):
                raise
            raise StoreError("there is no such bucket", where=self.url, fix="create it first") from None
        except Exception as problem:  # each object store's library has its own errors
            reason = " ".join(str(problem).split()) or type(problem).__name__
            fix = "check the address, the credentials and, for your own server, AWS_ENDPOINT_URL"
            raise StoreError(f"cannot be reached: {reason}", where=self.url, fix=fix) from None

    def kvstore(self) -> dict[str, Any]:
        """Return tensorstore's specification of this folder."""
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
        if (
            "AWS_ACCESS_KEY_ID" in os.environ
        ):  # else tensorstore looks for credential files and prints a warning for each
            spec["aws_credentials"] = {"type": "environment"}
        return spec

    def zarr_store(self) -> Any:
        """Return what zarr opens to read this folder: a path or a zarr store."""
        if self.local:
            return self.local
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.url, read_only=True)


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    scheme = url.split("://", 1)[0]
    if scheme not in SCHEMES:
        wanted = ", ".join(f"{name}://" for name in SCHEMES)
        raise StoreError("this kind of URL is not supported", where=url, fix=f"use one of {wanted}")
    try:
        system, base = fsspec.core.url_to_fs(url)
    except ImportError as problem:
        fix = "pip install 'moclip[s3]'" if scheme == "s3" else f"install the package named here: {problem}"
        raise StoreError(f"{scheme}:// needs a package that is not installed", where=url, fix=fix) from None
    return system, base.rstrip("/")


def file_exists(path: str | Path) -> bool:
    """Return whether there is a file at a path or URL. Raises StoreError where the object store cannot be reached."""
    if not is_url(path):
        return Path(path).is_file()
    folder, _, name = str(path).rpartition("/")
    return Folder(folder).exists(name)


def folder_exists(path: str | Path) -> bool:
    """Return whether the folder exists. A folder at a URL exists if a file is in it."""
    return bool(Folder(path).sizes()) if is_url(path) else Path(path).is_dir()
