"""The store: bytes and random reads by codec and chunking, and the chosen layout beside other ways to keep fields."""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import UCF_SIZE, indexed, make_clips, real_clips, real_data, say
from benchmarks.peers.core import Part, Run, load
from benchmarks.read import BATCH, SEGMENTS, build, read_batches, stored_frames
from moclip.store.layout import CHUNK_FRAMES, DESCRIPTION_FILE, MISSING, SHARD_FRAMES
from moclip.store.reader import FieldReader
from moclip.store.table import rows_of

CHUNKS = (1, 4, 16, 64, 256)  # frames
CODECS: dict[str, list[dict[str, Any]]] = {
    "blosc-zstd bitshuffle": [
        {
            "name": "blosc",
            "configuration": {
                "cname": "zstd", "clevel": 2, "shuffle": "bitshuffle", "typesize": 1, "blocksize": 0,
            },
        }
    ],
    "zstd level 1": [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
    "zstd level 3": [{"name": "zstd", "configuration": {"level": 3, "checksum": False}}],
    "blosc-lz4 bitshuffle": [
        {
            "name": "blosc",
            "configuration": {
                "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "typesize": 1, "blocksize": 0,
            },
        }
    ],
    "none": [],
}  # fmt: skip
OURS = "ours (tensorstore)"
SHARD = 4096  # frames, of the layouts compared
OFTEN = 8  # times as many batches for those who take a few ms each, so that a turn of theirs is no blink either


def measure(part: Part) -> None:
    """Fields of real clips, written every way and read in batches of 240 random ones, each clip's three."""
    reader = fields(part)
    stored = stored_frames(reader.table)
    whole = reader.read_all()[stored]
    batches = 2 if part.quick else 4
    places = drawn(reader, batches * (1 if part.quick else OFTEN))
    part.facts["chosen"] = chosen(Path(reader.path))
    part.facts |= {"fields": len(whole), "batch": BATCH * SEGMENTS, "field_bytes": int(whole[0].nbytes)}
    layouts(part, whole, batches)
    others(part, reader, whole, places)


def fields(part: Part) -> FieldReader:
    """A store of the product's own, of real clips where there are any."""
    real = real_data()
    if part.quick or real is None:
        paths = make_clips(part.folder, "mpeg4", UCF_SIZE, 1 if part.quick else 8, 24 if part.quick else 160)
        clips = indexed(paths, 4 if part.quick else 6)
    else:
        clips = indexed(real_clips(real))
    build(clips, part.folder / "chosen", False, 0 if part.quick else 2)
    part.facts["contents"] = "rendered" if real is None or part.quick else f"{len(clips)} real clips"
    return FieldReader(part.folder / "chosen/mv.zarr", part.folder / "chosen/mv.parquet", 0)


def drawn(reader: FieldReader, batches: int) -> np.ndarray:
    """Three random frames of random clips, in batches: (batches, 240) absolute frames."""
    generator = np.random.default_rng(0)
    rows = reader.table.iloc[generator.integers(len(reader.table), size=batches * BATCH)]
    within = generator.random((len(rows), SEGMENTS)) * rows["length"].to_numpy()[:, None]
    return (rows["offset"].to_numpy()[:, None] + within.astype(np.int64)).reshape(batches, -1)


# ----------------------------------------------------------------------------------------------------- layouts


def layouts(part: Part, whole: np.ndarray, batches: int) -> None:
    """Each codec with each chunking, all in tensorstore: bytes a field, random and whole-clip reads, writing."""
    chunks = (4, 16) if part.quick else CHUNKS
    if part.quick:
        whole = np.resize(whole, (256, *whole.shape[1:]))
    count = len(whole) // (256 if part.quick else SHARD) * (256 if part.quick else SHARD) or 256
    given = np.resize(whole, (count, *whole.shape[1:]))
    random = np.random.default_rng(1).choice(count, (batches, BATCH * SEGMENTS))
    runs: dict[str, Run] = {}
    found: dict[str, dict[str, float]] = {}
    for codec in CODECS:
        for chunk in chunks:
            name = f"{codec}, {chunk}"
            path = part.folder / f"layout-{len(found)}"
            begun = time.perf_counter()
            array = written(path, given, codec, chunk, min(SHARD, count))
            seconds = time.perf_counter() - begun
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            found[name] = {"bytes": size / count, "write": count / seconds}
            runs[f"{name}, random"] = functools.partial(read_all_batches, array, random)
            runs[f"{name}, clips"] = functools.partial(read_clips, array, count)
    say(f"{len(found)} layouts of {count} fields")
    turns = part.turns(runs, 75, spread=1.0)
    best = part.facts["chosen"]
    for name, about in found.items():
        ratio = turns.ratio(f"{best}, random", f"{name}, random")
        about |= {
            "random": random.size / turns.median(f"{name}, random"),
            "clips": 100 * (count // 100) / turns.median(f"{name}, clips"),
            "ratio": ratio.middle,
            "low": ratio.low,
            "high": ratio.high,
        }
    part.facts["layouts"] = {
        name: {key: float(f"{value:.4g}") for key, value in v.items()} for name, v in found.items()
    }
    part.facts["layout rounds"] = turns.rounds


def chosen(path: Path) -> str:
    """The layout, among those compared, that a store is written in: "codec, frames a chunk"."""
    about: Any = json.loads((path / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    sharding = next(codec for codec in about["codecs"] if codec["name"] == "sharding_indexed")["configuration"]
    inner = sharding["codecs"]
    codec: Any = next((one for one in inner if one["name"] not in ("bytes", "crc32c")), {"name": "none"})
    given = codec.get("configuration", {})
    name = codec["name"]
    if name == "blosc":
        name = f"blosc-{given['cname']} {given['shuffle']}"
    elif name == "zstd":
        name = f"zstd level {given['level']}"
    return f"{name}, {sharding['chunk_shape'][0]}"


def written(path: Path, given: np.ndarray, codec: str, chunk: int, shard: int) -> Any:
    """The fields in a Zarr array of this layout; opened without a cache."""
    import tensorstore

    shutil.rmtree(path, ignore_errors=True)
    inner = [{"name": "bytes"}, *CODECS[codec], {"name": "crc32c"}]
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [chunk, *given.shape[1:]],
            "codecs": inner,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        },
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": {
            "shape": list(given.shape),
            "data_type": "int8",
            "fill_value": MISSING,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *given.shape[1:]]}},
            "codecs": [sharding],
        },
    }
    made = tensorstore.open(spec, create=True).result()
    for start in range(0, len(given), shard):
        made[start : start + shard].write(given[start : start + shard]).result()
    context = {"cache_pool": {"total_bytes_limit": 0}}
    return tensorstore.open({**spec, "context": context}, open=True).result()


def read_all_batches(array: Any, places: np.ndarray) -> None:
    for batch in places:
        array[batch].read().result()


def read_clips(array: Any, count: int) -> None:
    """Whole clips of 100 frames, one after the other."""
    for start in range(0, count - 99, 100):
        array[start : start + 100].read().result()


# ------------------------------------------------------------------------------------------------------ others


def others(part: Part, reader: FieldReader, whole: np.ndarray, places: np.ndarray) -> None:
    """The same batches of the same fields from each way to keep them, the first of them from the slow ones."""
    path = Path(reader.path)
    flat = np.full(reader.frames, -1)
    flat[stored_frames(reader.table)] = np.arange(len(whole))  # where a frame lies among all that are stored
    packed = flat[places]
    some, few = places[:4], places[:1, : 24 if part.quick else 240]
    runs: dict[str, Run] = {OURS: functools.partial(read_batches, reader, places.reshape(-1))}
    counts: dict[str, int] = {OURS: places.size}
    sizes = {OURS: _size(path)}
    part.setup[OURS] = (
        f"`FieldReader.read`, a batch of {BATCH * SEGMENTS}, no cache; {chosen(path)} frames a chunk, "
        f"shards of {SHARD_FRAMES} frames, CRC-32C"
    )
    ways: dict[str, Callable[[], tuple[Run, int, int]]] = {
        "zarr-python": functools.partial(_zarr, path, few),
        "numpy memmap": functools.partial(_memmap, part.folder, whole, packed),
        ".npy a clip": functools.partial(_npy, part.folder, reader, whole, flat, some),
        ".pt a clip": functools.partial(_pt, part.folder, reader, whole, flat, few),
    }
    part.setup |= {
        "zarr-python": "the same array, `oindex` with the batch's frames",
        "numpy memmap": "all fields raw in one `.npy`, indexed with the batch's frames: the floor, ten times the bytes",
        ".npy a clip": "`np.load(mmap_mode='r')[frames]`, a file a clip",
        ".pt a clip": "`torch.load(weights_only=True)[frames]`, a file a clip: the reference code's way",
    }
    if part.peer(
        "zarrs", "zarrs", "the same array, `zarrs.ZarrsCodecPipeline`, field by field (quicker than `oindex`)"
    ):
        ways["zarrs"] = functools.partial(_zarrs, path, few)
    if part.peer("h5py", "HDF5", f"chunks of {CHUNK_FRAMES} frames, shuffle and gzip 1; each frame by itself"):
        ways["HDF5"] = functools.partial(_hdf5, part.folder, whole, packed[:1, : few.size])
    for name, way in ways.items():
        prepared: list[tuple[Run, int, int]] = []

        def prepare(way: Callable[[], tuple[Run, int, int]] = way, into: list[Any] = prepared) -> None:
            into.append(way())

        if part.try_(name, prepare):
            runs[name], counts[name], sizes[name] = prepared[0]
    say(f"{len(whole)} fields kept in {len(runs)} ways")
    # Each reads a number of fields that takes it about as long as the others: rates, not times, are set side by side.
    turns = part.turns(runs, 40)
    ours = counts[OURS] / turns.median(OURS)
    part.row(f"random fields, batches of {BATCH * SEGMENTS}", "fields/s", ours, target=40_000, rounds=turns.rounds)
    for name in runs:
        if name == OURS:
            continue
        ratio, scale = turns.ratio(OURS, name), counts[OURS] / counts[name]
        ratio = type(ratio)(*(value * scale for value in ratio))
        theirs = counts[name] / turns.median(name)
        label = "random fields"
        part.row(label, "fields/s", ours, theirs, who=(OURS, name), ratio=ratio, rounds=turns.rounds)
    for name in runs:
        if name not in (OURS, "zarrs", "zarr-python"):
            each = [sizes[who] / len(whole) for who in (OURS, name)]
            part.row("size of a field", "B", *each, who=(OURS, name), less=True)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def _zarrs(path: Path, frames: np.ndarray) -> tuple[Run, int, int]:
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array: Any = zarr.open_group(path, mode="r")["field"]
    wanted = frames[0].tolist()

    def read() -> None:
        np.stack([array[frame] for frame in wanted])

    return read, len(wanted), _size(path)


def _zarr(path: Path, frames: np.ndarray) -> tuple[Run, int, int]:
    import zarr

    array: Any = zarr.open_group(path, mode="r")["field"]
    wanted = np.sort(frames[0])
    return lambda: array.oindex[wanted], len(wanted), _size(path)


def _memmap(folder: Path, whole: np.ndarray, packed: np.ndarray) -> tuple[Run, int, int]:
    file = folder / "memmap.npy"
    np.save(file, whole)
    array = np.load(file, mmap_mode="r")

    def read() -> None:
        for batch in packed:
            np.asarray(array[batch])

    return read, packed.size, _size(file)


def _hdf5(folder: Path, whole: np.ndarray, packed: np.ndarray) -> tuple[Run, int, int]:
    h5py = load("h5py")
    file = folder / "fields.h5"
    with h5py.File(file, "w") as made:
        chunks = (CHUNK_FRAMES, *whole.shape[1:])
        made.create_dataset("field", data=whole, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True)
    array = h5py.File(file, "r")["field"]
    out, wanted = np.empty((packed.size, *whole.shape[1:]), np.int8), packed.reshape(-1).tolist()

    def read() -> None:
        for number, frame in enumerate(wanted):
            array.read_direct(out, np.s_[frame], np.s_[number])

    return read, packed.size, _size(file)


def _clips_of(reader: FieldReader, whole: np.ndarray, flat: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(row.offset, whole[flat[row.offset] : flat[row.offset] + row.length]) for row in rows_of(reader.table)]


def _by_clip(reader: FieldReader, places: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Number of the clip, and frames within it, of each sample."""
    offsets = np.sort(reader.table["offset"].to_numpy())
    samples = places.reshape(-1, SEGMENTS)
    clips = np.searchsorted(offsets, samples[:, 0], side="right") - 1
    return [(int(clip), sample - offsets[clip]) for clip, sample in zip(clips, samples, strict=True)]


def _npy(
    folder: Path, reader: FieldReader, whole: np.ndarray, flat: np.ndarray, places: np.ndarray
) -> tuple[Run, int, int]:
    folder = folder / "npy"
    folder.mkdir()
    for number, (_, fields) in enumerate(sorted(_clips_of(reader, whole, flat), key=lambda pair: pair[0])):
        np.save(folder / f"{number}.npy", fields)
    wanted = _by_clip(reader, places)

    def read() -> None:
        np.concatenate([np.load(folder / f"{clip}.npy", mmap_mode="r")[frames] for clip, frames in wanted])

    return read, places.size, _size(folder)


def _pt(
    folder: Path, reader: FieldReader, whole: np.ndarray, flat: np.ndarray, places: np.ndarray
) -> tuple[Run, int, int]:
    folder = folder / "pt"
    folder.mkdir()
    for number, (_, fields) in enumerate(sorted(_clips_of(reader, whole, flat), key=lambda pair: pair[0])):
        torch.save(torch.from_numpy(fields.copy()), folder / f"{number}.pt")
    wanted = _by_clip(reader, places)

    def read() -> None:
        torch.cat([torch.load(folder / f"{clip}.pt", weights_only=True)[frames] for clip, frames in wanted])

    return read, places.size, _size(folder)
