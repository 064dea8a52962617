"""Reading random fields: compare the store with other formats.

python -m benchmarks.read [--quick] [--out FILE]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common import UCF_SIZE, index_clips, make_clips, print_progress, real_clips, real_data
from benchmarks.comparison import Part, Run, import_peer, run_as_program
from benchmarks.extract import open_store
from moclip.store.layout import CHUNK_FRAMES, SHARD_FRAMES, ZSTD_LEVEL
from moclip.store.reader import FieldReader
from moclip.store.table import rows_of

BATCH, SEGMENTS = 80, 3  # clips and frames of each: a training step of the paper reads 240 fields
OURS = "ours (tensorstore)"
OFTEN = 8  # times as many batches for fast formats, so that their rounds are long enough to time
Format = tuple[Run, int, Path]
"""A function that reads batches, the number of fields that it reads, and the path of the stored fields."""


def measure(part: Part) -> None:
    """Write fields of real clips in each format and read them in batches: three random frames of each of 80 clips."""
    clips = subjects(part)
    reader = open_store(clips, part.folder / "chosen", 0 if part.quick else 2)
    whole = reader.read(stored_frames(reader.table))
    part.facts |= {
        "contents": f"{len(clips)} {'rendered' if part.quick or real_data() is None else 'real'} clips",
        "fields": len(whole),
        "field_bytes": int(whole[0].nbytes),
    }
    batches = 2 if part.quick else 4
    others(part, reader, whole, drawn(reader, batches * (1 if part.quick else OFTEN)))


def subjects(part: Part) -> pd.DataFrame:
    real = real_data()
    if part.quick or real is None:
        paths = make_clips(part.folder, "mpeg4", UCF_SIZE, 1 if part.quick else 8, 24 if part.quick else 160)
        return index_clips(paths, 4 if part.quick else 6)
    return index_clips(real_clips(real))


def stored_frames(table: pd.DataFrame) -> np.ndarray:
    """Return the absolute numbers of all frames in a store, in order: int64 (frames,)."""
    rows = rows_of(table.sort_values("offset"))
    return np.concatenate([np.arange(row.offset, row.offset + row.length) for row in rows])


def drawn(reader: FieldReader, batches: int) -> np.ndarray:
    """Draw three random frames of random clips, in batches: (batches, 240) absolute frame numbers."""
    generator = np.random.default_rng(0)
    rows = reader.table.iloc[generator.integers(len(reader.table), size=batches * BATCH)]
    within = generator.random((len(rows), SEGMENTS)) * rows["length"].to_numpy()[:, None]
    return (rows["offset"].to_numpy()[:, None] + within.astype(np.int64)).reshape(batches, -1)


def others(part: Part, reader: FieldReader, whole: np.ndarray, places: np.ndarray) -> None:
    """Compare formats on the same batches of the same fields. Slow formats read fewer batches."""
    path = Path(reader.path)
    packed = np.searchsorted(stored_frames(reader.table), places)  # the numbers of the same fields in `whole`
    few = np.s_[:1, : 24 if part.quick else 240]
    clips = np.split(whole, np.cumsum(reader.table.sort_values("offset")["length"])[:-1])
    load_npy, load_pt = functools.partial(np.load, mmap_mode="r"), functools.partial(torch.load, weights_only=True)
    formats: dict[str, Callable[[], Format]] = {
        "zarr-python": functools.partial(_zarr, path, places[few]),
        "numpy memmap": functools.partial(_memmap, part.folder, whole, packed),
        ".npy a clip": functools.partial(_files, part.folder / "npy", clips, packed[:4], _save_npy, load_npy),
        ".pt a clip": functools.partial(_files, part.folder / "pt", clips, packed[few], _save_pt, load_pt),
    }
    part.setup |= {
        OURS: f"`FieldReader.read`, a batch of {BATCH * SEGMENTS}, no cache; zstd level {ZSTD_LEVEL}, {CHUNK_FRAMES} "
        f"frames a chunk, shards of {SHARD_FRAMES} frames, CRC-32C",
        "zarr-python": "the same array, `oindex` with the batch's frames",
        "numpy memmap": "all fields uncompressed in one `.npy`, indexed with the batch's frames: the floor",
        ".npy a clip": "`np.load(mmap_mode='r')[frames]`, a file a clip",
        ".pt a clip": "`torch.load(weights_only=True)[frames]`, a file a clip: the reference code's way",
    }
    if part.peer("zarrs", "zarrs", "the same array, `zarrs.ZarrsCodecPipeline`, field by field (faster than `oindex`)"):
        formats["zarrs"] = functools.partial(_zarrs, path, places[few])
    if part.peer("h5py", "HDF5", f"chunks of {CHUNK_FRAMES} frames, shuffle and gzip 1; each frame by itself"):
        formats["HDF5"] = functools.partial(_hdf5, part.folder, whole, packed[few])
    made: dict[str, Format] = {OURS: (functools.partial(read_fields, reader, places), places.size, path)}
    for name, write in formats.items():
        part.runs(name, functools.partial(_add, made, name, write))
    print_progress(f"{len(whole)} fields in {len(made)} formats")
    # formats read different numbers of fields, so that each takes about as long: compare rates
    turns = part.turns({name: one[0] for name, one in made.items()}, 40)
    amount = made[OURS][1]
    part.add_figure(
        f"random fields, batches of {BATCH * SEGMENTS}", "fields/s", amount / turns.median(OURS), target=40_000,
        rounds=turns.rounds,
    )  # fmt: skip
    for name in list(made)[1:]:
        part.add_ratio("random fields", turns, OURS, name, "fields/s", amounts=(amount, made[name][1]))
    for name in list(made)[1:]:
        if made[name][2] != path:
            each = [bytes_of(made[who][2]) / len(whole) for who in (OURS, name)]
            part.add_figure("size of a field", "B", *each, who=(OURS, name), less=True)


def _add(made: dict[str, Format], name: str, write: Callable[[], Format]) -> None:
    made[name] = write()


def bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def read_fields(reader: FieldReader, places: np.ndarray) -> None:
    for batch in places:
        reader.read(batch)


def _zarrs(path: Path, frames: np.ndarray) -> Format:
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array: Any = zarr.open_group(path, mode="r")["field"]
    wanted = frames[0].tolist()
    return lambda: np.stack([array[frame] for frame in wanted]), len(wanted), path


def _zarr(path: Path, frames: np.ndarray) -> Format:
    import zarr

    array: Any = zarr.open_group(path, mode="r")["field"]
    wanted = np.sort(frames[0])
    return lambda: array.oindex[wanted], len(wanted), path


def _memmap(folder: Path, whole: np.ndarray, packed: np.ndarray) -> Format:
    file = folder / "memmap.npy"
    np.save(file, whole)
    array = np.load(file, mmap_mode="r")
    return lambda: [np.asarray(array[batch]) for batch in packed], packed.size, file


def _hdf5(folder: Path, whole: np.ndarray, packed: np.ndarray) -> Format:
    h5py = import_peer("h5py")
    file = folder / "fields.h5"
    with h5py.File(file, "w") as made:
        chunks = (CHUNK_FRAMES, *whole.shape[1:])
        made.create_dataset("field", data=whole, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True)
    array = h5py.File(file, "r")["field"]
    out, wanted = np.empty((packed.size, *whole.shape[1:]), np.int8), packed.reshape(-1).tolist()

    def read() -> None:
        for number, frame in enumerate(wanted):
            array.read_direct(out, np.s_[frame], np.s_[number])

    return read, packed.size, file


def _files(
    folder: Path,
    clips: Sequence[np.ndarray],
    packed: np.ndarray,
    save: Callable[[np.ndarray, Path], object],
    load: Callable[[Path], Any],
) -> Format:
    """Write a file per clip."""
    folder.mkdir()
    for number, fields in enumerate(clips):
        save(fields, folder / str(number))
    starts, samples = np.cumsum([0, *map(len, clips)]), packed.reshape(-1, SEGMENTS)
    picked = np.searchsorted(starts, samples[:, 0], side="right") - 1
    wanted = [(folder / str(clip), sample - starts[clip]) for clip, sample in zip(picked, samples, strict=True)]
    return lambda: np.concatenate([load(file)[frames] for file, frames in wanted]), packed.size, folder


def _save_npy(fields: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, fields)


def _save_pt(fields: np.ndarray, path: Path) -> None:
    torch.save(torch.from_numpy(fields.copy()), path)


if __name__ == "__main__":
    run_as_program("read", __doc__)
