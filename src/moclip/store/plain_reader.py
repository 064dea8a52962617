"""Read motion fields with plain file access: no threads, for forked processes and for verification."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from typing import Any

import numpy as np

from moclip.errors import StoreError
from moclip.files.folders import Folder, join_path
from moclip.store.layout import ABSENT, CHUNK_FRAMES, MISSING, RERUN, shard_name


class PlainReader:
    """Fields read with plain file access, chunk by chunk: no threads, no cache but the last shard's file.

    Parameters
    ----------
    folder : where the store lies; grid : (rows, columns) of a field; shard : frames in one.
    """

    def __init__(self, folder: Folder, grid: tuple[int, int], shard: int) -> None:
        self.folder, self.grid, self.chunks = folder, grid, shard // CHUNK_FRAMES
        self._opened: tuple[int, Any, np.ndarray] | None = None

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read fields.

        Parameters
        ----------
        frames : int64 (n,), absolute.

        Returns
        -------
        int8 (n, 2, rows, columns), `MISSING` where nothing was stored in a shard that exists.

        Raises
        ------
        StoreError
            A shard is missing or damaged.
        """
        from numcodecs import Zstd

        codec = Zstd()
        out = np.empty((len(frames), 2, *self.grid), np.int8)
        chunks = frames // CHUNK_FRAMES
        for chunk in np.unique(chunks):
            file, index = self._shard(int(chunk) // self.chunks)
            start, size = (int(value) for value in index[int(chunk) % self.chunks])
            here = np.flatnonzero(chunks == chunk)
            if start == ABSENT:
                out[here] = MISSING
                continue
            file.seek(start)
            payload = codec.decode(self._checked(file.read(size)))
            out[here] = np.frombuffer(payload, np.int8).reshape(CHUNK_FRAMES, 2, *self.grid)[
                frames[here] % CHUNK_FRAMES
            ]
        return out

    def _shard(self, number: int) -> tuple[Any, np.ndarray]:
        """A shard's file and its index: uint64 (chunks, 2), start and size in bytes of each chunk."""
        if self._opened is None or self._opened[0] != number:
            name, length = shard_name(number), self.chunks * 16 + 4
            self._opened = None
            try:
                local = self.folder.local
                file: Any = (local / name).open("rb") if local else BytesIO(self.folder.read(name))
                file.seek(-length, os.SEEK_END)
                index = np.frombuffer(self._checked(file.read(length), name), "<u8").reshape(self.chunks, 2)
            except (OSError, ValueError) as error:  # ValueError: shorter than its index
                where = join_path(self.folder.url, name)
                raise StoreError(f"cannot read a shard ({error})", where=where, fix=RERUN) from error
            self._opened = (number, file, index)
        return self._opened[1:]

    def _checked(self, stored: bytes, name: str = "") -> bytes:
        """Strip the CRC-32C that Zarr puts behind chunks and indices, if it is right."""
        import google_crc32c

        content = stored[:-4]
        if struct.pack("<I", google_crc32c.value(content)) != stored[-4:]:
            name = name or shard_name(self._opened[0] if self._opened else 0)
            what, where = "a shard is damaged: a checksum does not match", join_path(self.folder.url, name)
            raise StoreError(what, where=where, fix=RERUN)
        return content
