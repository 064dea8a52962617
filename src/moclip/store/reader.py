"""Read motion fields by frame or by video, in batches, through tensorstore."""

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
from moclip.store.layout import MISSING, RERUN_EXTRACTION, read_description, read_frame_types, shard_name
from moclip.store.plain_reader import PlainReader
from moclip.store.table import read_table, rows_of

_tensorstore = {"started": False, "usable": True}  # not usable in a fork of a process that has started its threads


def _note_fork() -> None:
    _tensorstore["usable"] = not _tensorstore["started"]


os.register_at_fork(after_in_child=_note_fork)


class FieldReader:
    """Reads motion fields by frame number or by video, in batches.

    Every process opens the array at its first read, so you can pass a reader to worker processes. In a process forked
    after its parent has read, the reader works without tensorstore, whose threads do not survive a fork. It is then
    somewhat slower and returns the same fields.

    Parameters
    ----------
    zarr_path : the store.
    table : the store's table, or the path or URL of it.
    cache_bytes : limit of the decoded chunks kept in memory, per process.

    Attributes
    ----------
    table : pd.DataFrame, a row per video.
    attributes : of the array: scale, clip, canvas, cell, ...
    frames : the number of frames in the array.
    grid : (rows, columns) of a field.
    shard_frames : frames in a shard.

    Raises
    ------
    StoreError
        The store or its table is missing, unfinished or damaged.
    """

    def __init__(self, zarr_path: str | Path, table: str | Path | pd.DataFrame, cache_bytes: int = 64 << 20) -> None:
        self.path = str(zarr_path)
        self.folder, _ = follow_link(zarr_path)
        self.table = table if isinstance(table, pd.DataFrame) else read_table(table)
        self.cache_bytes = cache_bytes
        self._rows = {name: number for number, name in enumerate(self.table["id"])}
        description = read_description(zarr_path)
        self.attributes: dict[str, Any] = description["attributes"]
        frames, _, rows, columns = description["shape"]
        self.frames, self.grid = int(frames), (int(rows), int(columns))
        self.shard_frames = int(description["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return self.frames

    def with_table(self, table: pd.DataFrame) -> FieldReader:
        """Return a reader of the same array, opened once, for the videos in `table`."""
        self._open()
        other = copy.copy(self)
        other.table, other._rows = table, {name: number for number, name in enumerate(table["id"])}
        return other

    def row(self, video: str) -> Any:
        """Return the table's row of a video.

        Raises
        ------
        StoreError
            The store does not contain it, or its extraction failed.
        """
        if video not in self._rows:
            raise StoreError(f"no motion field of the video {video}", where=self.path, fix=RERUN_EXTRACTION)
        row = self.table.iloc[self._rows[video]]
        if row["status"] != "ok":
            what = f"no motion field of the video {video}: its extraction failed ({row['reason']})"
            raise StoreError(what, where=self.path, fix="repair or remove the video, then extract again")
        return row

    def offset(self, video: str) -> int:
        """Return the absolute number of a video's first frame. Raises as `row`."""
        return int(self.row(video)["offset"])

    def length(self, video: str) -> int:
        """Return the number of a video's stored frames. Raises as `row`."""
        return int(self.row(video)["length"])

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read fields in one batch.

        Parameters
        ----------
        frames : integers of any shape, absolute: a video's `offset` plus the frame's number in the video.

        Returns
        -------
        int8, `frames.shape` + (2, rows, columns). Multiply it by `attributes["scale"]` for px.

        Raises
        ------
        StoreError
            A frame belongs to no video, or its shard is missing or damaged. The message names the videos.
        """
        return self.read_async(frames).result()

    def read_async(self, frames: np.ndarray) -> PendingRead:
        """Start to read as `read` does. `.result()` waits for the fields."""
        frames = np.asarray(frames, np.int64)
        flat = frames.reshape(-1)
        outside = flat[(flat < 0) | (flat >= self.frames)]
        if outside.size:
            raise StoreError(f"no frame {outside[0]} in a store of {self.frames} frames", where=self.path)
        array = self._open()
        pending = array[flat].read() if flat.size and array is not None else None
        return PendingRead(self, frames, pending)

    def read_video(self, video: str) -> np.ndarray:
        """Read all fields of a video: int8 (length, 2, rows, columns). Raises as `row` and `read`."""
        row = self.row(video)
        return self.read(np.arange(row["offset"], row["offset"] + row["length"]))

    def frame_types(self, video: str) -> np.ndarray:
        """Read the types of a video's frames: uint8 (length,), ASCII codes of I, P and B. Raises as `row`."""
        row = self.row(video)
        return read_frame_types(self.folder, int(row["offset"]), int(row["offset"] + row["length"]))

    def read_all(self) -> np.ndarray:
        """Read the whole array: int8 (frames, 2, rows, columns), `MISSING` where no frame is stored."""
        whole = np.full((self.frames, 2, *self.grid), MISSING, np.int8)
        for row in rows_of(self.table[self.table["status"] == "ok"]):
            whole[row.offset : row.offset + row.length] = self.read_video(row.id)
        return whole

    def __getitem__(self, frame: int) -> np.ndarray:
        return self.read(np.array(frame))

    def __getitems__(self, frames: Sequence[int]) -> np.ndarray:
        """Read a batch for torch's DataLoader."""
        return self.read(np.asarray(frames, np.int64))

    def _open(self) -> Any:
        """Return the tensorstore array of this process, or None where tensorstore is not usable."""
        if not _tensorstore["usable"]:
            return None
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), _open_array(self.folder, self.cache_bytes))
        return self._opened[1]

    def _read_error(self, flat: np.ndarray, reason: str) -> StoreError:
        """Return the error that names the unreadable shards of the frames `flat`, and the videos in them."""
        damaged = [number for number in np.unique(flat // self.shard_frames) if not self._is_readable(int(number))]
        if not damaged:
            return StoreError(f"a requested frame belongs to no video ({reason})", where=self.path)
        starts = self.table["offset"] // self.shard_frames
        ends = (self.table["offset"] + self.table["slots"] - 1) // self.shard_frames
        hit = self.table[[any(s <= number <= e for number in damaged) for s, e in zip(starts, ends, strict=True)]]
        names = hit.loc[hit["status"] == "ok", "id"].tolist()
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        what = f"shard {', '.join(map(str, damaged))} is missing or damaged; it holds the videos {shown}"
        file = join_path(self.folder.url, shard_name(int(damaged[0])))
        return StoreError(what, where=self.path, fix=f"delete {file} and {RERUN_EXTRACTION}")

    def _is_readable(self, number: int) -> bool:
        """Return whether every stored frame of a shard can be read."""
        rows = self.table[(self.table["status"] == "ok") & (self.table["shard"] <= number)]
        start, end = number * self.shard_frames, (number + 1) * self.shard_frames
        spans = [np.arange(max(row.offset, start), min(row.offset + row.length, end)) for row in rows_of(rows)]
        frames = np.concatenate([np.arange(0), *spans])
        try:
            return not (PlainReader(self.folder, self.grid, self.shard_frames).read(frames) == MISSING).any()
        except (StoreError, ValueError):
            return False


class PendingRead:
    """A batch that is being read."""

    def __init__(self, reader: FieldReader, frames: np.ndarray, pending: Any) -> None:
        self._reader, self._frames, self._pending = reader, frames, pending

    def result(self) -> np.ndarray:
        """Wait for the fields and return them. Raises as `FieldReader.read`."""
        reader, flat = self._reader, self._frames.reshape(-1)
        try:
            if self._pending is None:
                fields = PlainReader(reader.folder, reader.grid, reader.shard_frames).read(flat)
            else:
                fields = self._pending.result()
        except (ValueError, OSError, StoreError) as error:  # tensorstore raises ValueError
            raise reader._read_error(flat, str(error).splitlines()[0]) from error
        if (fields == MISSING).any():
            raise reader._read_error(flat, "nothing was stored there")
        return fields.reshape(*self._frames.shape, *fields.shape[1:])


def _open_array(folder: Folder, cache_bytes: int) -> Any:
    import tensorstore

    _tensorstore["started"] = True
    spec = {
        "driver": "zarr3",
        "kvstore": (folder / "field").kvstore(),
        "context": {"cache_pool": {"total_bytes_limit": cache_bytes}},
        "recheck_cached_data": "open",
    }
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError as error:
        raise StoreError(f"cannot open the store ({error})", where=folder.url, fix=RERUN_EXTRACTION) from error
