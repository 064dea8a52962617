"""The format of a motion-field store: one sharded Zarr array for all videos, its file names, sizes and encoding."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moclip.errors import StoreError
from moclip.files.folders import Folder, join_path
from moclip.files.links import LINK_FILE, follow_link

CHUNK_FRAMES = 4  # frames that one small read decodes; 16 read at 0.6 of the speed to save 2 % of the bytes
SHARD_FRAMES = 8192  # frames in a file, and the unit of work
ZSTD_LEVEL = 1  # without a filter: Blosc's bitshuffle takes a quarter more bytes and a third more time
MISSING = -128  # fill value: no stored field contains it, so frames that were never written cannot pass for zeros
UNWRITTEN = 2**64 - 1  # start and size in a shard's index of a chunk that was never written
PARTS_FOLDER = ".parts"  # exists while an extraction is unfinished
UNFINISHED_FILE = f"{PARTS_FOLDER}/recipe"  # digests of an unfinished extraction's recipe and code
FRAME_TYPES_FILE = "frame_type/c/0"
DESCRIPTION_FILE = "field/zarr.json"
SHARDS_FOLDER = "field/c"
RERUN_EXTRACTION = "run the extraction again (dvc repro extract_mv); it redoes only what is missing"


def shard_name(number: int) -> str:
    """Return the name in the store of a shard's file."""
    return f"{SHARDS_FOLDER}/{number}/0/0/0"


def encode_shard(fields: np.ndarray) -> bytes:
    """Encode one shard, int8 (shard frames, 2, rows, columns), as the bytes of its file (Zarr v3 sharding).

    The file has the compressed chunks in order, each with its CRC-32C, then the index: start and size of each chunk.
    Chunks that hold nothing but `MISSING` are left out. The bytes depend only on the fields.
    """
    from zstandard import ZstdCompressor

    compressor = ZstdCompressor(level=ZSTD_LEVEL)
    index = np.full((len(fields) // CHUNK_FRAMES, 2), UNWRITTEN, "<u8")
    stored: list[bytes] = []
    position = 0
    chunks = fields.reshape(len(index), -1)
    for number in np.flatnonzero((chunks != MISSING).any(1)):
        stored.append(_with_crc(compressor.compress(chunks[number])))
        index[number] = position, len(stored[-1])
        position += len(stored[-1])
    return b"".join([*stored, _with_crc(index.tobytes())]) if stored else b""


def _with_crc(content: bytes) -> bytes:
    import google_crc32c

    return content + struct.pack("<I", google_crc32c.value(content))


def field_array_options(shape: Sequence[int], shard: int) -> dict[str, Any]:
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
    """Write everything in the group except the shards: descriptions, attributes and `frame_type` (one chunk).

    Parameters
    ----------
    frame_type : uint8 (frames,), ASCII codes of I, P and B, 0 where no frame is stored.
    grid : (rows, columns) of a field.
    attributes : of the array `field` (units, scale, canvas, versions...).
    """
    import zarr
    from zarr.storage import MemoryStore

    frames = len(frame_type)
    files: dict[str, Any] = {}
    memory = MemoryStore(files)
    group = zarr.create_group(memory)
    shape = (frames, 2, *grid)
    group.create_array(
        "field", shape=shape, dtype="int8", attributes=dict(attributes), **field_array_options(shape, shard)
    )
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
    with warnings.catch_warnings():  # zarr warns that other Zarr libraries may ignore this
        warnings.simplefilter("ignore", UserWarning)
        zarr.consolidate_metadata(memory)  # xarray reads all descriptions from one file
    store = zarr_path if isinstance(zarr_path, Folder) else Folder(zarr_path)
    store.write(FRAME_TYPES_FILE, frame_type.astype(np.uint8).tobytes())
    for name, content in sorted(files.items()):
        store.write(name, content.to_bytes())


def short_digest(*parts: object) -> str:
    """Return 16 hexadecimal digits that identify a set of values, the same in every run."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def drop_store(zarr_path: str | Path) -> None:
    """Remove a store, if there is one.

    Raises
    ------
    StoreError
        The folder contains something else.
    """
    store = Folder(zarr_path)
    names = store.sizes()
    if names and not any(name.startswith(("field/", "frame_type/", f"{PARTS_FOLDER}/", LINK_FILE)) for name in names):
        raise StoreError("this folder is not a store of motion fields", where=store.url, fix="choose another path")
    store.clear()


def read_description(zarr_path: str | Path) -> dict[str, Any]:
    """Read the array's zarr.json.

    Raises
    ------
    StoreError
        There is no store, its extraction is unfinished, or its contents differ from those that the link to it names.
    """
    folder, contents = follow_link(zarr_path)
    unfinished = folder.exists(UNFINISHED_FILE) if folder.local is None else (folder.local / PARTS_FOLDER).exists()
    if unfinished:
        raise StoreError("its extraction is unfinished", where=zarr_path, fix=RERUN_EXTRACTION)
    try:
        description: dict[str, Any] = json.loads(folder.read(DESCRIPTION_FILE))
    except (OSError, ValueError) as error:
        where = zarr_path if str(zarr_path) == folder.url else f"{zarr_path} ({folder})"
        raise StoreError("no store of motion fields here", where=where, fix=RERUN_EXTRACTION) from error
    if contents not in (None, description["attributes"].get("contents")):
        what = f"{folder} has changed since: it was extracted again, with other clips"
        raise StoreError(what, where=zarr_path, fix="run the extraction again (dvc repro extract_mv)")
    return description


def read_frame_types(zarr_path: str | Path | Folder, start: int = 0, end: int | None = None) -> np.ndarray:
    """Read the types of the frames `start` to `end` (exclusive): uint8 (frames,), 0 where no frame is stored.

    Raises StoreError where they are missing.
    """
    folder = zarr_path if isinstance(zarr_path, Folder) else follow_link(zarr_path)[0]
    try:
        types = folder.read(FRAME_TYPES_FILE) if end is None else folder.read_range(FRAME_TYPES_FILE, start, end)
    except OSError as error:
        raise StoreError(
            "the frame types are missing", where=join_path(folder.url, FRAME_TYPES_FILE), fix=RERUN_EXTRACTION
        ) from error
    return np.frombuffer(types, np.uint8)
