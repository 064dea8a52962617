"""Names, sizes and the encoding of a motion-field store: one sharded Zarr array for all videos."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moclip.errors import StoreError
from moclip.files.folders import Folder, join_path
from moclip.files.links import LINK, follow_link

CHUNK_FRAMES = 4  # frames: what one small read decodes; 16 read at 0.6 of the speed to save 2 % of the bytes
SHARD_FRAMES = 8192  # frames: a file, and the unit of work
ZSTD_LEVEL = (
    1  # of zstd, with nothing in front of it: Blosc's bitshuffle takes a quarter more bytes and a third more time
)
MISSING = -128  # the array's fill value: no stored field holds it, so what was never written cannot pass for zeros
ABSENT = 2**64 - 1  # start and size, in a shard's index, of a chunk that was never written
PARTS_FOLDER = ".parts"  # beside the arrays while an extraction runs
FRAME_TYPES_FILE = "frame_type/c/0"
DESCRIPTION_FILE = "field/zarr.json"
RERUN = "run the extraction again (dvc repro extract_mv); it redoes only what is missing"

SHARDS_FOLDER = "field/c"


def shard_name(number: int) -> str:
    """The file of one shard of `field`, by its name in the store."""
    return f"{SHARDS_FOLDER}/{number}/0/0/0"


def encode_shard(fields: np.ndarray) -> bytes:
    """Encode one shard, int8 (shard frames, 2, rows, columns), as the bytes of its file (Zarr v3 sharding).

    Chunks follow each other in order, compressed on the calling thread, each with its CRC-32C; then their
    index: start and size of each. A chunk that holds nothing but `MISSING` is left out. The bytes depend on
    the fields alone.
    """
    from numcodecs import Zstd

    codec = Zstd(ZSTD_LEVEL)
    index = np.full((len(fields) // CHUNK_FRAMES, 2), ABSENT, "<u8")
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
        "chunks": (CHUNK_FRAMES, *shape[1:]),
        "shards": (shard, *shape[1:]),
        "fill_value": MISSING,
        "compressors": [ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
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
        store.write(FRAME_TYPES_FILE, frame_type.astype(np.uint8).tobytes())
        for file in sorted(path for path in aside.rglob("*") if path.is_file()):
            store.write(file.relative_to(aside).as_posix(), file.read_bytes())


def short_digest(*parts: object) -> str:
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
    if there and not any(name.startswith(("field/", "frame_type/", f"{PARTS_FOLDER}/", LINK)) for name in there):
        raise StoreError("this folder is no store of motion fields", where=store.url, fix="choose another path")
    store.clear()


def read_description(zarr_path: str | Path) -> dict[str, Any]:
    """What the array says of itself: the content of its zarr.json.

    Raises
    ------
    StoreError
        There is no store, it is not finished, or it no longer holds what the link to it was made for.
    """
    folder, contents = follow_link(zarr_path)
    unfinished = (
        folder.exists(f"{PARTS_FOLDER}/recipe") if folder.local is None else (folder.local / PARTS_FOLDER).exists()
    )
    if unfinished:
        raise StoreError("its extraction did not end", where=zarr_path, fix=RERUN)
    try:
        about: dict[str, Any] = json.loads(folder.read(DESCRIPTION_FILE))
    except (OSError, ValueError) as error:
        where = zarr_path if str(zarr_path) == folder.url else f"{zarr_path} ({folder})"
        raise StoreError("no store of motion fields here", where=where, fix=RERUN) from error
    if contents not in (None, about["attributes"].get("contents")):
        what = f"{folder} has changed since: it was extracted again, with other clips"
        raise StoreError(what, where=zarr_path, fix="run the extraction again (dvc repro extract_mv)")
    return about


def read_frame_types(zarr_path: str | Path | Folder, start: int = 0, end: int | None = None) -> np.ndarray:
    """The types of all frames, or of those from `start` to before `end`: uint8 (frames,), 0 where no frame lies."""
    folder = zarr_path if isinstance(zarr_path, Folder) else follow_link(zarr_path)[0]
    try:
        read = folder.read(FRAME_TYPES_FILE) if end is None else folder.read_range(FRAME_TYPES_FILE, start, end)
    except OSError as error:
        raise StoreError(
            "the frame types are missing", where=join_path(folder.url, FRAME_TYPES_FILE), fix=RERUN
        ) from error
    return np.frombuffer(read, np.uint8)
