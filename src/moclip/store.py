"""The motion-field store: one sharded Zarr array for all videos, a table that says where each one lies.

`extract` plans slots and writes shards; training, `draw` and the command line read through `FieldReader`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.files import file_aside, write_atomically

CHUNK = 4  # frames: what one small read decodes; 16 read at 0.6 of the speed to save 2 % of the bytes
SHARD = 8192  # frames: a file, and the unit of work
LEVEL = 2  # of zstd: 3 takes half as long again to save 2 to 8 % of the bytes
MISSING = -128  # the array's fill value: no stored field holds it, so what was never written cannot pass for zeros
ABSENT = 2**64 - 1  # start and size, in a shard's index, of a chunk that was never written
PARTS = ".parts"  # beside the arrays while an extraction runs
RERUN = "run the extraction again (dvc repro extract_mv); it redoes only what is missing"

TABLE_COLUMNS = {
    "id": "str", "md5": "str", "offset": "int64", "length": "int64", "slots": "int64", "shard": "int64",
    "backend": "str", "status": "str", "reason": "str", "checksum": "int64", "key": "str",
}  # fmt: skip


# --------------------------------------------------------------------------------------------------- writing


def shard_path(zarr_path: str | Path, number: int) -> Path:
    """The file of one shard of `field`."""
    return Path(zarr_path) / "field" / "c" / str(number) / "0" / "0" / "0"


def encode_shard(fields: np.ndarray) -> bytes:
    """Encode one shard, int8 (shard frames, 2, rows, columns), as the bytes of its file (Zarr v3 sharding).

    Chunks follow each other in order, compressed on the calling thread, each with its CRC-32C; then their
    index: start and size of each. A chunk that holds nothing but `MISSING` is left out. The bytes depend on
    the fields alone.
    """
    from numcodecs import Blosc, blosc

    codec = Blosc(cname="zstd", clevel=LEVEL, shuffle=Blosc.BITSHUFFLE, blocksize=0)
    index = np.full((len(fields) // CHUNK, 2), ABSENT, "<u8")
    stored: list[bytes] = []
    position = 0
    before, blosc.use_threads = blosc.use_threads, False
    try:
        chunks = fields.reshape(len(index), -1)
        for number in np.flatnonzero((chunks != MISSING).any(1)):
            stored.append(_with_crc(codec.encode(chunks[number])))
            index[number] = position, len(stored[-1])
            position += len(stored[-1])
    finally:
        blosc.use_threads = before
    return b"".join([*stored, _with_crc(index.tobytes())]) if stored else b""


def _with_crc(content: bytes) -> bytes:
    import google_crc32c

    return content + struct.pack("<I", google_crc32c.value(content))


def _layout(shape: Sequence[int], shard: int) -> dict[str, Any]:
    from zarr.codecs import BloscCodec, Crc32cCodec

    return {
        "chunks": (CHUNK, *shape[1:]),
        "shards": (shard, *shape[1:]),
        "fill_value": MISSING,
        "compressors": [BloscCodec(cname="zstd", clevel=LEVEL, shuffle="bitshuffle"), Crc32cCodec()],
        "dimension_names": ("frame", "component", "row", "column"),
    }


def write_metadata(
    zarr_path: str | Path,
    frame_type: np.ndarray,
    grid: tuple[int, int],
    shard: int,
    attributes: Mapping[str, Any],
) -> None:
    """Write all of the group but its shards: descriptions, attributes and `frame_type` (one chunk).

    Parameters
    ----------
    frame_type : uint8 (frames,), letters in ASCII, 0 where no frame lies.
    grid : (rows, columns) of a field.
    attributes : what `field` says of itself (units, scale, canvas, versions...).
    """
    import zarr

    frames = len(frame_type)
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / "mv.zarr"
        group = zarr.create_group(aside)
        shape = (frames, 2, *grid)
        group.create_array("field", shape=shape, dtype="int8", attributes=dict(attributes), **_layout(shape, shard))
        group.create_array(
            "frame_type",
            shape=(frames,),
            chunks=(max(1, frames),),
            dtype="uint8",
            fill_value=0,
            compressors=None,
            dimension_names=("frame",),
            attributes={"meaning": "ASCII letter of the frame's type (I, P, B); 0: no frame here"},
        )
        with warnings.catch_warnings():  # that other Zarr libraries may pass over it
            warnings.simplefilter("ignore", UserWarning)
            zarr.consolidate_metadata(aside)  # xarray wants all descriptions in one place
        for file in sorted(path for path in aside.rglob("*") if path.is_file()):
            write_atomically(Path(zarr_path) / file.relative_to(aside), file.read_bytes())
    write_atomically(Path(zarr_path) / "frame_type" / "c" / "0", frame_type.astype(np.uint8).tobytes())


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write the table of videos (columns and dtypes of `TABLE_COLUMNS`) as Parquet, atomically."""
    with file_aside(path) as aside:
        as_table(table).to_parquet(aside, index=False)


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """A table's rows, a named tuple each."""
    return iter(table.itertuples(index=False))


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The table's columns, in order and with their dtypes."""
    return rows.reindex(columns=list(TABLE_COLUMNS)).astype(TABLE_COLUMNS).reset_index(drop=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read the table of videos.

    Raises
    ------
    StoreError
        It is not there, or is no such table.
    """
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise StoreError("no table of motion fields", where=path, fix=RERUN) from error
    except Exception as error:
        raise StoreError(f"not a table of motion fields ({error})", where=path, fix=RERUN) from error
    absent = [name for name in TABLE_COLUMNS if name not in table]
    if absent:
        raise StoreError(f"no table of motion fields: it lacks {', '.join(absent)}", where=path, fix=RERUN)
    return table


def checksum(fields: np.ndarray, frame_types: np.ndarray) -> int:
    """CRC-32 of a video's int8 fields followed by its frame types."""
    return zlib.crc32(frame_types.tobytes(), zlib.crc32(fields.tobytes()))


def digest(*parts: object) -> str:
    """A short name (16 hexadecimal digits) for a set of values, the same in every run."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def drop_store(zarr_path: str | Path) -> None:
    """Remove a store's arrays, if there are any.

    Raises
    ------
    StoreError
        Something else lies there.
    """
    path = Path(zarr_path)
    ours = (path / "field").is_dir() or (path / PARTS).is_dir()
    if path.exists() and not ours and any(path.iterdir()):
        raise StoreError("this folder is no store of motion fields", where=path, fix="choose another path")
    shutil.rmtree(path, ignore_errors=True)


# --------------------------------------------------------------------------------------------------- reading

_forked = {"started": False, "unsafe": False}  # tensorstore's threads do not survive a fork


def _after_fork() -> None:
    _forked["unsafe"] = _forked["started"]


os.register_at_fork(after_in_child=_after_fork)


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
        self.path = Path(zarr_path)
        self.table = table if isinstance(table, pd.DataFrame) else read_table(table)
        self.cache_bytes = cache_bytes
        self._rows = {name: number for number, name in enumerate(self.table["id"])}
        self._description = _describe(self.path)
        self.attributes: dict[str, Any] = self._description["attributes"]
        shape = self._description["shape"]
        self.frames, self.grid = int(shape[0]), (int(shape[2]), int(shape[3]))
        self.shard = int(self._description["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._opened: tuple[int, Any] | None = None
        self._types: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return self.frames

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
        if self._types is None:
            self._types = read_frame_types(self.path)
        return self._types[row["offset"] : row["offset"] + row["length"]]

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
            self._opened = (os.getpid(), _open(self.path, self.cache_bytes))
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
        return StoreError(what, where=self.path, fix=f"delete {shard_path(self.path, int(bad[0]))} and {RERUN}")

    def _readable(self, number: int) -> bool:
        rows = self.table[(self.table["status"] == "ok") & (self.table["shard"] <= number)]
        inside = [
            np.arange(max(r.offset, number * self.shard), min(r.offset + r.length, (number + 1) * self.shard))
            for r in rows_of(rows)
        ]
        frames = np.concatenate([np.arange(0), *inside])
        try:
            return not (read_plain(self.path, frames, self.grid, self.shard) == MISSING).any()
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
                read = read_plain(reader.path, flat, reader.grid, reader.shard)
            else:
                read = self._pending.result()
        except (ValueError, OSError, StoreError) as error:  # tensorstore's own errors are ValueErrors
            raise reader._fail(flat, str(error).splitlines()[0]) from error
        if (read == MISSING).any():
            raise reader._fail(flat, "nothing was ever stored there")
        return read.reshape(*self._frames.shape, *read.shape[1:])


def _describe(zarr_path: Path) -> dict[str, Any]:
    if (zarr_path / PARTS).exists():
        raise StoreError("its extraction did not end", where=zarr_path, fix=RERUN)
    try:
        description: dict[str, Any] = json.loads((zarr_path / "field" / "zarr.json").read_text())
    except (OSError, ValueError) as error:
        raise StoreError("no store of motion fields here", where=zarr_path, fix=RERUN) from error
    return description


def _open(zarr_path: Path, cache_bytes: int) -> Any:
    import tensorstore

    _forked["started"] = True
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{zarr_path / 'field'}/"},
        "context": {"cache_pool": {"total_bytes_limit": cache_bytes}},
        "recheck_cached_data": "open",
    }
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError as error:
        raise StoreError(f"cannot open the store ({error})", where=zarr_path, fix=RERUN) from error


def read_frame_types(zarr_path: str | Path) -> np.ndarray:
    """The types of all frames: uint8 (frames,), 0 where no frame lies."""
    file = Path(zarr_path) / "frame_type" / "c" / "0"
    try:
        return np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise StoreError("the frame types are missing", where=file, fix=RERUN) from error


def read_plain(zarr_path: str | Path, frames: np.ndarray, grid: tuple[int, int], shard: int) -> np.ndarray:
    """Read fields with plain file access, chunk by chunk: no threads, no cache.

    Parameters
    ----------
    frames : int64 (n,), absolute; grid : (rows, columns); shard : frames in one.

    Returns
    -------
    int8 (n, 2, rows, columns), `MISSING` where nothing was stored in a shard that exists.

    Raises
    ------
    StoreError
        A shard is missing or damaged.
    """
    from numcodecs import Blosc

    out = np.empty((len(frames), 2, *grid), np.int8)
    chunks, shards = frames // CHUNK, frames // shard
    for number in np.unique(shards):
        path = shard_path(zarr_path, int(number))
        with _shard_file(path, shard // CHUNK) as (file, index):
            for chunk in np.unique(chunks[shards == number]):
                start, size = (int(v) for v in index[int(chunk) % len(index)])
                here = np.flatnonzero(chunks == chunk)
                if start == ABSENT:
                    out[here] = MISSING
                    continue
                file.seek(start)
                payload = Blosc().decode(_checked(file.read(size), path))
                out[here] = np.frombuffer(payload, np.int8).reshape(CHUNK, 2, *grid)[frames[here] % CHUNK]
    return out


@contextmanager
def _shard_file(path: Path, chunks: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Open a shard and its index: uint64 (chunks, 2), start and size in bytes of each chunk."""
    length = chunks * 16 + 4
    try:
        with path.open("rb") as file:
            file.seek(-length, os.SEEK_END)
            yield file, np.frombuffer(_checked(file.read(length), path), "<u8").reshape(chunks, 2)
    except OSError as error:
        raise StoreError(f"cannot read a shard ({error})", where=path, fix=RERUN) from error


def _checked(stored: bytes, path: Path) -> bytes:
    """Strip the CRC-32C that Zarr puts behind chunks and indices, if it is right."""
    import google_crc32c

    content = stored[:-4]
    if struct.pack("<I", google_crc32c.value(content)) != stored[-4:]:
        raise StoreError("a shard is damaged: a checksum does not match", where=path, fix=RERUN)
    return content


# ---------------------------------------------------------------------------------------------- verification


def verify(zarr_path: str | Path, table: str | Path | pd.DataFrame) -> list[str]:
    """Recompute every video's checksum; return a line for each problem, naming the video."""
    reader = FieldReader(zarr_path, table)
    types = read_frame_types(zarr_path)
    problems = []
    for row in rows_of(reader.table[reader.table["status"] == "ok"]):
        place = np.arange(row.offset, row.offset + row.length)
        try:
            fields = read_plain(reader.path, place, reader.grid, reader.shard)
        except (StoreError, ValueError, RuntimeError) as error:
            shards = f"{row.offset // reader.shard}"
            problems.append(f"{row.id}: shard {shards} cannot be read ({_first_line(error)})")
            continue
        if checksum(fields, types[place]) != row.checksum:
            problems.append(f"{row.id}: what is stored is not what was extracted (checksum)")
    return problems


def _first_line(error: BaseException) -> str:
    return getattr(error, "what", None) or str(error).splitlines()[0]
