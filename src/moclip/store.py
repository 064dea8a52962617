"""The motion-field store: one sharded Zarr array for all videos, a table that says where each one lies.

`extract` plans slots and writes shards; training, `draw` and the command line read through `FieldReader`. The store
is named by a path, by a URL, or by a path with a link to a URL (`storage`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.storage import LINK, Folder, follow, join

CHUNK = 4  # frames: what one small read decodes; 16 read at 0.6 of the speed to save 2 % of the bytes
SHARD = 8192  # frames: a file, and the unit of work
LEVEL = 1  # of zstd, with nothing in front of it: Blosc's bitshuffle takes a quarter more bytes and a third more time
MISSING = -128  # the array's fill value: no stored field holds it, so what was never written cannot pass for zeros
ABSENT = 2**64 - 1  # start and size, in a shard's index, of a chunk that was never written
PARTS = ".parts"  # beside the arrays while an extraction runs
TYPES = "frame_type/c/0"
ABOUT = "field/zarr.json"
RERUN = "run the extraction again (dvc repro extract_mv); it redoes only what is missing"

TABLE_COLUMNS = {
    "id": "str", "md5": "str", "offset": "int64", "length": "int64", "slots": "int64", "shard": "int64",
    "backend": "str", "status": "str", "reason": "str", "checksum": "int64", "key": "str",
}  # fmt: skip


# --------------------------------------------------------------------------------------------------- writing


SHARDS = "field/c"


def shard_name(number: int) -> str:
    """The file of one shard of `field`, by its name in the store."""
    return f"{SHARDS}/{number}/0/0/0"


def encode_shard(fields: np.ndarray) -> bytes:
    """Encode one shard, int8 (shard frames, 2, rows, columns), as the bytes of its file (Zarr v3 sharding).

    Chunks follow each other in order, compressed on the calling thread, each with its CRC-32C; then their
    index: start and size of each. A chunk that holds nothing but `MISSING` is left out. The bytes depend on
    the fields alone.
    """
    from numcodecs import Zstd

    codec = Zstd(LEVEL)
    index = np.full((len(fields) // CHUNK, 2), ABSENT, "<u8")
    stored: list[bytes] = []
    position = 0
    chunks = fields.reshape(len(index), -1)
    for number in np.flatnonzero((chunks != MISSING).any(1)):
        stored.append(_with_crc(codec.encode(chunks[number])))
        index[number] = position, len(stored[-1])
        position += len(stored[-1])
    return b"".join([*stored, _with_crc(index.tobytes())]) if stored else b""


def _with_crc(content: bytes) -> bytes:
    import google_crc32c

    return content + struct.pack("<I", google_crc32c.value(content))


def _layout(shape: Sequence[int], shard: int) -> dict[str, Any]:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return {
        "chunks": (CHUNK, *shape[1:]),
        "shards": (shard, *shape[1:]),
        "fill_value": MISSING,
        "compressors": [ZstdCodec(level=LEVEL), Crc32cCodec()],
        "dimension_names": ("frame", "component", "row", "column"),
    }


def write_metadata(
    zarr_path: str | Path | Folder,
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
        store = zarr_path if isinstance(zarr_path, Folder) else Folder(zarr_path)
        store.write(TYPES, frame_type.astype(np.uint8).tobytes())
        for file in sorted(path for path in aside.rglob("*") if path.is_file()):
            store.write(file.relative_to(aside).as_posix(), file.read_bytes())


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write the table of videos (columns and dtypes of `TABLE_COLUMNS`) as Parquet, atomically, to a path or URL."""
    folder, _, name = str(path).rpartition("/")
    content = BytesIO()
    as_table(table).to_parquet(content, index=False)
    Folder(folder or ".").write(name, content.getvalue())


def contents(table: pd.DataFrame) -> str:
    """16 hexadecimal digits for what a store holds: which videos, where, and their checksums."""
    return digest(*(table[name].tolist() for name in ("id", "offset", "length", "checksum")))


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """A table's rows, a named tuple each."""
    return iter(table.itertuples(index=False))


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The table's columns, in order and with their dtypes."""
    return rows.reindex(columns=list(TABLE_COLUMNS)).astype(TABLE_COLUMNS).reset_index(drop=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read the table of videos, from a path or URL.

    Raises
    ------
    StoreError
        It is not there, or is no such table.
    """
    try:
        folder, _, name = str(path).rpartition("/")
        table = pd.read_parquet(BytesIO(Folder(folder or ".").read(name)))
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
    store = Folder(zarr_path)
    there = store.sizes()
    if there and not any(name.startswith(("field/", "frame_type/", f"{PARTS}/", LINK)) for name in there):
        raise StoreError("this folder is no store of motion fields", where=store.url, fix="choose another path")
    store.clear()


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
        self.path = str(zarr_path)
        self.folder, _ = follow(zarr_path)
        self.table = table if isinstance(table, pd.DataFrame) else read_table(table)
        self.cache_bytes = cache_bytes
        self._rows = {name: number for number, name in enumerate(self.table["id"])}
        about = describe(zarr_path)
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
            self._opened = (os.getpid(), _open(self.folder, self.cache_bytes))
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
        file = join(self.folder.url, shard_name(int(bad[0])))
        return StoreError(what, where=self.path, fix=f"delete {file} and {RERUN}")

    def _readable(self, number: int) -> bool:
        rows = self.table[(self.table["status"] == "ok") & (self.table["shard"] <= number)]
        inside = [
            np.arange(max(r.offset, number * self.shard), min(r.offset + r.length, (number + 1) * self.shard))
            for r in rows_of(rows)
        ]
        frames = np.concatenate([np.arange(0), *inside])
        try:
            return not (Plain(self.folder, self.grid, self.shard).read(frames) == MISSING).any()
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
                read = Plain(reader.folder, reader.grid, reader.shard).read(flat)
            else:
                read = self._pending.result()
        except (ValueError, OSError, StoreError) as error:  # tensorstore's own errors are ValueErrors
            raise reader._fail(flat, str(error).splitlines()[0]) from error
        if (read == MISSING).any():
            raise reader._fail(flat, "nothing was ever stored there")
        return read.reshape(*self._frames.shape, *read.shape[1:])


def describe(zarr_path: str | Path) -> dict[str, Any]:
    """What the array says of itself: the content of its zarr.json.

    Raises
    ------
    StoreError
        There is no store, it is not finished, or it no longer holds what the link to it was made for.
    """
    folder, contents = follow(zarr_path)
    unfinished = folder.exists(f"{PARTS}/recipe") if folder.local is None else (folder.local / PARTS).exists()
    if unfinished:
        raise StoreError("its extraction did not end", where=zarr_path, fix=RERUN)
    try:
        about: dict[str, Any] = json.loads(folder.read(ABOUT))
    except (OSError, ValueError) as error:
        where = zarr_path if str(zarr_path) == folder.url else f"{zarr_path} ({folder})"
        raise StoreError("no store of motion fields here", where=where, fix=RERUN) from error
    if contents not in (None, about["attributes"].get("contents")):
        what = f"{folder} has changed since: it was extracted again, with other clips"
        raise StoreError(what, where=zarr_path, fix="run the extraction again (dvc repro extract_mv)")
    return about


def _open(folder: Folder, cache_bytes: int) -> Any:
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


def read_frame_types(zarr_path: str | Path | Folder, start: int = 0, end: int | None = None) -> np.ndarray:
    """The types of all frames, or of those from `start` to before `end`: uint8 (frames,), 0 where no frame lies."""
    folder = zarr_path if isinstance(zarr_path, Folder) else follow(zarr_path)[0]
    try:
        read = folder.read(TYPES) if end is None else folder.read_range(TYPES, start, end)
    except OSError as error:
        raise StoreError("the frame types are missing", where=join(folder.url, TYPES), fix=RERUN) from error
    return np.frombuffer(read, np.uint8)


class Plain:
    """Fields read with plain file access, chunk by chunk: no threads, no cache but the last shard's file.

    Parameters
    ----------
    folder : where the store lies; grid : (rows, columns) of a field; shard : frames in one.
    """

    def __init__(self, folder: Folder, grid: tuple[int, int], shard: int) -> None:
        self.folder, self.grid, self.chunks = folder, grid, shard // CHUNK
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
        chunks = frames // CHUNK
        for chunk in np.unique(chunks):
            file, index = self._shard(int(chunk) // self.chunks)
            start, size = (int(value) for value in index[int(chunk) % self.chunks])
            here = np.flatnonzero(chunks == chunk)
            if start == ABSENT:
                out[here] = MISSING
                continue
            file.seek(start)
            payload = codec.decode(self._checked(file.read(size)))
            out[here] = np.frombuffer(payload, np.int8).reshape(CHUNK, 2, *self.grid)[frames[here] % CHUNK]
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
                where = join(self.folder.url, name)
                raise StoreError(f"cannot read a shard ({error})", where=where, fix=RERUN) from error
            self._opened = (number, file, index)
        return self._opened[1:]

    def _checked(self, stored: bytes, name: str = "") -> bytes:
        """Strip the CRC-32C that Zarr puts behind chunks and indices, if it is right."""
        import google_crc32c

        content = stored[:-4]
        if struct.pack("<I", google_crc32c.value(content)) != stored[-4:]:
            name = name or shard_name(self._opened[0] if self._opened else 0)
            what, where = "a shard is damaged: a checksum does not match", join(self.folder.url, name)
            raise StoreError(what, where=where, fix=RERUN)
        return content


# ---------------------------------------------------------------------------------------------- verification


def verify(zarr_path: str | Path, table: str | Path | pd.DataFrame) -> list[str]:
    """Recompute every video's checksum; return a line for each problem, naming the video."""
    reader = FieldReader(zarr_path, table)
    types = read_frame_types(zarr_path)
    problems = []
    plain = Plain(reader.folder, reader.grid, reader.shard)
    for row in rows_of(reader.table[reader.table["status"] == "ok"].sort_values("offset")):
        place = np.arange(row.offset, row.offset + row.length)
        try:
            fields = plain.read(place)
        except (StoreError, ValueError, RuntimeError) as error:
            shards = f"{row.offset // reader.shard}"
            problems.append(f"{row.id}: shard {shards} cannot be read ({_first_line(error)})")
            continue
        if checksum(fields, types[place]) != row.checksum:
            problems.append(f"{row.id}: what is stored is not what was extracted (checksum)")
    return sorted(problems)


def _first_line(error: BaseException) -> str:
    return getattr(error, "what", None) or str(error).splitlines()[0]
