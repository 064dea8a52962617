"""Read motion fields by frame or by video, many at once, through tensorstore."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.files.folders import Folder, join_path
from moclip.files.links import follow_link
from moclip.store.layout import MISSING, RERUN, read_description, read_frame_types, shard_name
from moclip.store.plain_reader import PlainReader
from moclip.store.table import read_table, rows_of

_forked = {"started": False, "unsafe": False}  # tensorstore's threads do not survive a fork


def after_fork() -> None:
    _forked["unsafe"] = _forked["started"]


os.register_at_fork(after_in_child=after_fork)


class FieldReader:
    """Read motion fields by frame number or by video, many at once.

    Opens the array when first asked, once in every process, so that it can travel to worker processes. A
    process forked after its parent has read goes on without tensorstore, whose threads do not survive a fork:
    somewhat
    slower, the same fields.

    Parameters
    ----------
    zarr_path, table : the store and its table (a path, or the table itself).
    cache_bytes : bound of the decoded chunks kept in memory, in bytes a process.

    Attributes
    ----------
    table : pd.DataFrame, a row a video.
    attributes : what the array says of itself: scale, clip, canvas, cell, ...
    grid : (rows, columns) of a field.
    """

    def __init__(self, zarr_path: str | Path, table: str | Path | pd.DataFrame, cache_bytes: int = 64 << 20) -> None:
        self.path = str(zarr_path)
        self.folder, _ = follow_link(zarr_path)
        self.table = table if isinstance(table, pd.DataFrame) else read_table(table)
        self.cache_bytes = cache_bytes
        self._rows = {name: number for number, name in enumerate(self.table["id"])}
        about = read_description(zarr_path)
        self.attributes: dict[str, Any] = about["attributes"]
        self.frames, self.grid = int(about["shape"][0]), (int(about["shape"][2]), int(about["shape"][3]))
        self.shard = int(about["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return self.frames

    def of(self, table: pd.DataFrame) -> FieldReader:
        """The same array, opened once, with other rows of its table (those of a part of the videos)."""
        self._array()
        other = copy.copy(self)
        other.table, other._rows = table, {name: number for number, name in enumerate(table["id"])}
        return other

    # -- places

    def row(self, video: str) -> Any:
        """The table's row of a video.

        Raises
        ------
        StoreError
            The store does not have it, or its extraction failed.
        """
        if video not in self._rows:
            raise StoreError(f"no motion field of the video {video}", where=self.path, fix=RERUN)
        row = self.table.iloc[self._rows[video]]
        if row["status"] != "ok":
            what = f"no motion field of the video {video}: its extraction failed ({row['reason']})"
            raise StoreError(what, where=self.path, fix="mend or remove the video, then extract again")
        return row

    def offset(self, video: str) -> int:
        """The absolute number of a video's first frame."""
        return int(self.row(video)["offset"])

    def length(self, video: str) -> int:
        """How many frames of a video were decoded and stored."""
        return int(self.row(video)["length"])

    # -- fields

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read fields in one batch.

        Parameters
        ----------
        frames : whole numbers of any shape, absolute: a video's `offset` plus the frame's number in it.

        Returns
        -------
        int8, `frames.shape` + (2, rows, columns); times `attributes["scale"]` it is px.

        Raises
        ------
        StoreError
            A frame lies in no video, or its shard is missing or damaged; the message names the videos.
        """
        return self.read_async(frames).result()

    def read_async(self, frames: np.ndarray) -> PendingRead:
        """Start reading as `read` does; `.result()` waits for the fields."""
        wanted = np.asarray(frames, np.int64)
        flat = wanted.reshape(-1)
        beyond = flat[(flat < 0) | (flat >= self.frames)]
        if beyond.size:
            raise StoreError(f"no frame {beyond[0]} in a store of {self.frames} frames", where=self.path)
        array = self._array()
        pending = array[flat].read() if flat.size and array is not None else None
        return PendingRead(self, wanted, pending)

    def video(self, video: str) -> np.ndarray:
        """All fields of a video: int8 (length, 2, rows, columns)."""
        row = self.row(video)
        return self.read(np.arange(row["offset"], row["offset"] + row["length"]))

    def frame_types(self, video: str) -> np.ndarray:
        """The types of a video's frames: uint8 (length,), the letters I, P and B in ASCII."""
        row = self.row(video)
        return read_frame_types(self.folder, int(row["offset"]), int(row["offset"] + row["length"]))

    def read_all(self) -> np.ndarray:
        """The whole array in memory: int8 (frames, 2, rows, columns); `MISSING` where no frame lies."""
        whole = np.full((self.frames, 2, *self.grid), MISSING, np.int8)
        for row in rows_of(self.table[self.table["status"] == "ok"]):
            whole[row.offset : row.offset + row.length] = self.video(row.id)
        return whole

    def __getitem__(self, frame: int) -> np.ndarray:
        return self.read(np.array(frame))

    def __getitems__(self, frames: Sequence[int]) -> np.ndarray:
        """What torch's DataLoader asks a data set for: a batch at once."""
        return self.read(np.asarray(frames, np.int64))

    # -- inside

    def _array(self) -> Any:
        """The tensorstore array of this process, or None in a process where tensorstore cannot run."""
        if _forked["unsafe"]:
            return None
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_array(self.folder, self.cache_bytes))
        return self._opened[1]

    def _fail(self, flat: np.ndarray, why: str) -> StoreError:
        """Name the shards that cannot be read, and the videos in them."""
        bad = [n for n in np.unique(flat // self.shard) if not self._readable(int(n))]
        if not bad:
            return StoreError(f"a frame asked for lies in no video ({why})", where=self.path)
        starts = self.table["offset"] // self.shard
        ends = (self.table["offset"] + self.table["slots"] - 1) // self.shard
        hit = self.table[[any(s <= n <= e for n in bad) for s, e in zip(starts, ends, strict=True)]]
        names = hit.loc[hit["status"] == "ok", "id"].tolist()
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        what = f"shard {', '.join(map(str, bad))} is missing or damaged; it holds the videos {shown}"
        file = join_path(self.folder.url, shard_name(int(bad[0])))
        return StoreError(what, where=self.path, fix=f"delete {file} and {RERUN}")

    def _readable(self, number: int) -> bool:
        rows = self.table[(self.table["status"] == "ok") & (self.table["shard"] <= number)]
        inside = [
            np.arange(max(r.offset, number * self.shard), min(r.offset + r.length, (number + 1) * self.shard))
            for r in rows_of(rows)
        ]
        frames = np.concatenate([np.arange(0), *inside])
        try:
            return not (PlainReader(self.folder, self.grid, self.shard).read(frames) == MISSING).any()
        except (StoreError, ValueError):
            return False


class PendingRead:
    """A read under way."""

    def __init__(self, reader: FieldReader, frames: np.ndarray, pending: Any) -> None:
        self._reader, self._frames, self._pending = reader, frames, pending

    def result(self) -> np.ndarray:
        """Wait for the fields; see `FieldReader.read`."""
        reader, flat = self._reader, self._frames.reshape(-1)
        try:
            if self._pending is None:
                read = PlainReader(reader.folder, reader.grid, reader.shard).read(flat)
            else:
                read = self._pending.result()
        except (ValueError, OSError, StoreError) as error:  # tensorstore's own errors are ValueErrors
            raise reader._fail(flat, str(error).splitlines()[0]) from error
        if (read == MISSING).any():
            raise reader._fail(flat, "nothing was ever stored there")
        return read.reshape(*self._frames.shape, *read.shape[1:])


def open_array(folder: Folder, cache_bytes: int) -> Any:
    import tensorstore

    _forked["started"] = True
    spec = {
        "driver": "zarr3",
        "kvstore": (folder / "field").kvstore(),
        "context": {"cache_pool": {"total_bytes_limit": cache_bytes}},
        "recheck_cached_data": "open",
    }
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError as error:
        raise StoreError(f"cannot open the store ({error})", where=folder.url, fix=RERUN) from error
