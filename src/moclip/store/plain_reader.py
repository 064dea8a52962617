"""Read motion fields without threads, for forked processes and for verification."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from typing import Any

import numpy as np

from moclip.errors import StoreError
from moclip.files.folders import Folder, join_path
from moclip.store.layout import CHUNK_FRAMES, MISSING, RERUN_EXTRACTION, UNWRITTEN, shard_name


class PlainReader:
    """Reads fields chunk by chunk with plain file access. Caches only the last shard's file and index.

    Parameters
    ----------
    folder : the store's.
    grid : (rows, columns) of a field.
    shard_frames : frames in a shard.
    """

    def __init__(self, folder: Folder, grid: tuple[int, int], shard_frames: int) -> None:
        self.folder, self.grid, self.chunks_per_shard = folder, grid, shard_frames // CHUNK_FRAMES
        self._opened: tuple[int, Any, np.ndarray] | None = None

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read fields.

        Parameters
        ----------
        frames : int64 (n,), absolute.

        Returns
        -------
        int8 (n, 2, rows, columns), `MISSING` where nothing was stored in an existing shard.

        Raises
        ------
        StoreError
            A shard is missing or damaged.
        """
        from zstandard import ZstdDecompressor, ZstdError

        decompressor = ZstdDecompressor()
        chunk_bytes = CHUNK_FRAMES * 2 * self.grid[0] * self.grid[1]
        out = np.empty((len(frames), 2, *self.grid), np.int8)
        chunks = frames // CHUNK_FRAMES
        for chunk in np.unique(chunks):
            file, index = self._open_shard(int(chunk) // self.chunks_per_shard)
            start, size = (int(value) for value in index[int(chunk) % self.chunks_per_shard])
            rows = np.flatnonzero(chunks == chunk)
            if start == UNWRITTEN:
                out[rows] = MISSING
                continue
            file.seek(start)
            try:
                payload = decompressor.decompress(self._strip_crc(file.read(size)), chunk_bytes)
                fields = np.frombuffer(payload, np.int8).reshape(CHUNK_FRAMES, 2, *self.grid)
            except (ZstdError, ValueError) as problem:  # its checksum is right, so it was written like this
                where = join_path(self.folder.url, shard_name(int(chunk) // self.chunks_per_shard))
                raise StoreError(f"a shard is damaged: {problem}", where=where, fix=RERUN_EXTRACTION) from problem
            out[rows] = fields[frames[rows] % CHUNK_FRAMES]
        return out

    def _open_shard(self, number: int) -> tuple[Any, np.ndarray]:
        """Return a shard's file and its index: uint64 (chunks, 2), start and size in bytes of each chunk."""
        if self._opened is None or self._opened[0] != number:
            name, length = shard_name(number), self.chunks_per_shard * 16 + 4
            self._opened = None
            try:
                local = self.folder.local
                file: Any = (local / name).open("rb") if local else BytesIO(self.folder.read(name))
                file.seek(-length, os.SEEK_END)
                index = np.frombuffer(self._strip_crc(file.read(length), name), "<u8").reshape(-1, 2)
            except (OSError, ValueError) as error:  # ValueError: the file is shorter than its index
                where = join_path(self.folder.url, name)
                raise StoreError(f"cannot read a shard ({error})", where=where, fix=RERUN_EXTRACTION) from error
            self._opened = (number, file, index)
        return self._opened[1:]

    def _strip_crc(self, stored: bytes, name: str = "") -> bytes:
        """Check and remove the CRC-32C at the end of a chunk or index. `name` is the shard, by default the open one."""
        import google_crc32c

        content = stored[:-4]
        if struct.pack("<I", google_crc32c.value(content)) != stored[-4:]:
            name = name or shard_name(self._opened[0] if self._opened else 0)
            what, where = "a shard is damaged: a checksum does not match", join_path(self.folder.url, name)
            raise StoreError(what, where=where, fix=RERUN_EXTRACTION)
        return content
