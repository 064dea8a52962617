"""Measure reading from the store against reading without it: `make bench-read`.

    python -m benchmarks.read [--quick] [--scale SHARE] [--out FILE]

Every figure is a ratio within one run, both sides by turns, with warm file cache; the best of three runs counts. The
last part fills a store as large as UCF-101's (a few GB in the temporary folder) and asks what it costs to keep.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import torch

from benchmarks.common import (
    REAL_DATA,
    RESULTS,
    UCF_SIZE,
    Row,
    arguments,
    by_turns,
    indexed,
    make_clips,
    real_clips,
    real_data,
    report,
    say,
)
from moclip.data.crops import crop_and_resize, random_crops
from moclip.data.sampling import segment_frames
from moclip.motion.extract import extract
from moclip.motion.field import CODEC_CELL
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.store.layout import (
    CHUNK_FRAMES,
    MISSING,
    SHARD_FRAMES,
    encode_shard,
    read_frame_types,
    shard_name,
    write_metadata,
)
from moclip.store.reader import FieldReader
from moclip.store.slots import plan_slots
from moclip.store.table import read_table, rows_of, write_table
from moclip.video.decoding import P_FRAME
from moclip.video.vector_records import VECTOR_COLUMNS, Vectors

BATCH, SEGMENTS, PICTURE = 80, 3, 224  # clips, frames of each, px: the paper's batch
CANVAS, CLIP = (240, 320), 20.0  # (height, width) and largest displacement, px
SCALES = (1.0, 0.875, 0.75, 0.66)
AUGMENTED = 3  # batches turned into pictures, a fraction of a second each
UCF_CLIPS, UCF_FRAMES = 13_320, 2_400_000
PROCESSES = 2
MANNERS = ("pixel", "grid")  # of accumulating: CoViAR's, and the quicker one


@dataclass(frozen=True)
class Size:
    """How much is measured: repetitions, names of the UCF-101 clip, clips encoded, batches, reads, and samples."""

    times: int
    ucf: int
    made: int
    batches: int
    one_by_one: int
    samples: int
    scale: float


FULL = Size(times=3, ucf=120, made=8, batches=100, one_by_one=500, samples=80, scale=1.0)
QUICK = Size(times=1, ucf=4, made=1, batches=3, one_by_one=20, samples=4, scale=0.005)


# ----------------------------------------------------------------------------------------- random fields


def build(clips: pd.DataFrame, folder: Path, accumulate: bool | str, workers: int = PROCESSES) -> None:
    """Extract the clips into a store in `folder`."""
    table = extract(
        clips,
        root=folder,
        zarr_path=folder / "mv.zarr",
        table_path=folder / "mv.parquet",
        canvas=CANVAS,
        clip=CLIP,
        accumulate=accumulate,
        workers=workers,
    )
    if (table["status"] != "ok").any():
        raise SystemExit("not all clips could be extracted")


def opened(folder: Path, cache_bytes: int = 0) -> FieldReader:
    return FieldReader(folder / "mv.zarr", folder / "mv.parquet", cache_bytes)


def stored_frames(table: pd.DataFrame) -> np.ndarray:
    """The absolute numbers of all frames in a store: int64 (frames,)."""
    return np.concatenate([np.arange(row.offset, row.offset + row.length) for row in rows_of(table)])


def drawn(table: pd.DataFrame, count: int, seed: int = 0) -> np.ndarray:
    """`count` random frames of a store."""
    return np.random.default_rng(seed).choice(stored_frames(table), count)


def read_batches(reader: FieldReader, frames: np.ndarray) -> None:
    for start in range(0, len(frames), BATCH * SEGMENTS):
        reader.read(frames[start : start + BATCH * SEGMENTS])


def read_singly(array: Any, frames: np.ndarray) -> None:
    for frame in frames.tolist():
        array[frame]


def open_and_read(folder: Path, frames: np.ndarray) -> None:
    opened(folder).read(frames)


def random_fields(folder: Path, size: Size) -> list[Row]:
    """Batches of random fields, from disk and cached, against zarr-python's own reads one by one."""
    import zarr

    table = read_table(folder / "mv.parquet")
    many, few = drawn(table, size.batches * BATCH * SEGMENTS), drawn(table, size.one_by_one)
    reader, cached = opened(folder), opened(folder, 64 << 20)
    array = zarr.open_group(folder / "mv.zarr", mode="r")["field"]
    say(f"random fields of {reader.frames}")
    read_batches(cached, many)
    took = by_turns(
        {
            "batches": functools.partial(read_batches, reader, many),
            "batches, cached": functools.partial(read_batches, cached, many),
            "zarr one by one": functools.partial(read_singly, array, few),
            "all": reader.read_all,
            "open and first batch": functools.partial(open_and_read, folder, many[: BATCH * SEGMENTS]),
        },
        size.times,
    )
    ours, theirs = len(many) / took["batches"], len(few) / took["zarr one by one"]
    return [
        Row("random fields, batches of 240", ours, unit="fields/s", target=40_000),
        Row("random fields, batches / zarr-python one by one", ours, theirs, unit="fields/s", target=50),
        Row("random fields, cache of 64 MiB / none", len(many) / took["batches, cached"], ours, unit="fields/s"),
        Row("the whole store into memory", reader.frames / took["all"], unit="fields/s"),
        Row("opening and a first batch", took["open and first batch"], unit="s"),
    ]


def chunk_sizes(folder: Path, aside: Path, size: Size) -> list[Row]:
    """The same fields in chunks of 16 frames and in the product's."""
    source = opened(folder)
    many = drawn(source.table, size.batches * BATCH * SEGMENTS)
    say("chunk sizes")
    fields = source.read_all()
    readers, weights = {}, {}
    for chunk in (CHUNK_FRAMES, 16):
        path = aside / f"chunks_of_{chunk}.zarr"
        weights[chunk] = rewrite(path, fields, source, chunk)
        readers[chunk] = FieldReader(path, source.table, 0)
    took = by_turns({chunk: functools.partial(read_batches, readers[chunk], many) for chunk in readers}, size.times)
    speeds = {chunk: len(many) / seconds for chunk, seconds in took.items()}
    per_field = {chunk: weight / len(stored_frames(source.table)) for chunk, weight in weights.items()}
    name = f"chunks of {CHUNK_FRAMES} / of 16 frames"
    return [
        Row(f"{name}: random fields", speeds[CHUNK_FRAMES], speeds[16], unit="fields/s"),
        Row(f"{name}: size", per_field[CHUNK_FRAMES], per_field[16], unit="B/field"),
    ]


def rewrite(path: Path, fields: np.ndarray, source: FieldReader, chunk: int) -> int:
    """Write the same array with chunks of another length; returns the bytes of its shards."""
    product, CHUNK_FRAMES = CHUNK_FRAMES, chunk
    try:
        for number, shard in enumerate(np.split(fields, len(fields) // source.shard_frames)):
            file = path / shard_name(number)
            file.parent.mkdir(parents=True)
            file.write_bytes(encode_shard(shard))
        types = read_frame_types(source.folder)
        write_metadata(path, types, source.grid, source.shard_frames, source.attributes)
    finally:
        CHUNK_FRAMES = product
    return sum(file.stat().st_size for file in (path / "field" / "c").rglob("*") if file.is_file())


# ---------------------------------------------------------------------------------------- training samples


@dataclass(frozen=True)
class Film:
    """Where to enter a video: time stamps of its frames in order of display, and of its key frames with their dts."""

    path: str
    stamps: np.ndarray
    keys: np.ndarray
    key_dts: np.ndarray


@functools.cache
def film(path: str) -> Film:
    """Look at a video's packets once, before the clock runs: a loader would keep such a list too."""
    with av.open(path) as container:
        packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    keys = np.array(sorted((pts, dts) for pts, dts, key in packets if key))
    return Film(path, np.array(sorted(pts for pts, _, _ in packets)), keys[:, 0], keys[:, 1])


def decoded_field(clip: Film, frame: int, manner: str | bool) -> np.ndarray:
    """The accumulated field of one frame, decoded from its key frame on one thread: float64 (2, rows, columns), px."""
    wanted = clip.stamps[frame]
    entry = np.searchsorted(clip.keys, wanted, side="right") - 1
    raw: list[np.ndarray] = []
    types: list[int] = []
    with av.open(clip.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        container.seek(int(clip.key_dts[entry]), stream=stream, backward=True)
        for picture in container.decode(stream):
            if picture.pts is None or picture.pts < clip.keys[entry]:
                continue
            side: Any = picture.side_data.get("MOTION_VECTORS")
            raw.append(np.empty((0, 10), np.int32) if side is None else columns_of(side.to_ndarray()))
            types.append(ord(av.video.frame.PictureType(picture.pict_type).name))
            if picture.pts >= wanted:
                break
    number = np.repeat(np.arange(len(raw), dtype=np.int32), [len(blocks) for blocks in raw])
    look = picture.width, picture.height
    vectors = Vectors(np.concatenate(raw), number, np.array(types, np.uint8), *look)
    *_, (fields, _) = motion_fields([vectors], CANVAS, CODEC_CELL, manner)
    return np.asarray(fields[-1])


def columns_of(records: np.ndarray) -> np.ndarray:
    """FFmpeg's records as int32 (n, 10)."""
    return np.stack([records[name].astype(np.int32) for name in VECTOR_COLUMNS], axis=1)


def decode_sample(clip: Film, frames: Sequence[int], manner: str | bool) -> np.ndarray:
    """(segments, 2, rows, columns) px."""
    return np.stack([decoded_field(clip, frame, manner) for frame in frames])


def group_transform(fields: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """TSN's group transforms with OpenCV: (segments, 2, rows, columns) -> (segments, 2, 224, 224), one box a clip."""
    import cv2

    rows, columns = fields.shape[2:]
    height, width = (round(scale * min(rows, columns)) for scale in generator.choice(SCALES, 2))
    top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
    mirrored = generator.random() < 0.5
    group = []
    for field in fields:
        box = field[:, top : top + height, left : left + width].transpose(1, 2, 0).astype(np.float32)
        picture = cv2.resize(box, (PICTURE, PICTURE), interpolation=cv2.INTER_LINEAR)
        if mirrored:
            picture = picture[:, ::-1] * np.array([-1, 1], np.float32)
        group.append(picture.transpose(2, 0, 1) / np.float32(CLIP))
    return np.stack(group)


class Samples:
    """The same training samples both ways: random frames of random clips, in batches of `BATCH` clips."""

    def __init__(self, folder: Path, manner: str, clips: pd.DataFrame, count: int, batches: int) -> None:
        self.reader, self.manner = opened(folder), manner
        table = self.reader.table.set_index("id").loc[clips["id"]]
        self.generator = np.random.default_rng(0)
        chosen = self.generator.integers(len(clips), size=BATCH * batches)
        self.frames = segment_frames(table["length"].to_numpy()[chosen], SEGMENTS, self.generator)
        places = table["offset"].to_numpy()[chosen, None] + self.frames
        self.batches = np.split(places.reshape(-1), batches)
        self.films = [film(path) for path in clips["path"].iloc[chosen[:count]]]

    def read(self) -> None:
        for places in self.batches:
            self.reader.read(places)

    def read_and_augment(self) -> None:
        for places in self.batches[:AUGMENTED]:
            fields = torch.from_numpy(self.reader.read(places))
            boxes = random_crops(BATCH, self.reader.grid, SCALES, True, self.generator).repeat(SEGMENTS)
            crop_and_resize(fields, boxes, PICTURE)

    def decode(self) -> list[np.ndarray]:
        wanted = zip(self.films, self.frames.tolist(), strict=False)
        return [decode_sample(clip, frames, self.manner) for clip, frames in wanted]

    def decode_and_augment(self) -> None:
        for fields in self.decode():
            group_transform(fields, self.generator)

    def agree(self) -> float:
        """The share of decoded fields that are exactly the stored ones."""
        decoded = quantise(np.concatenate(self.decode()), CLIP)
        return float((decoded == self.reader.read(self.batches[0])[: len(decoded)]).all((1, 2, 3)).mean())


def samples(title: str, folder: Path, manner: str, clips: pd.DataFrame, size: Size) -> tuple[list[Row], float]:
    """Reading samples from the store against decoding them; and how many of the fields are the same."""
    both = Samples(folder, manner, clips, size.samples, size.batches)
    same = both.agree()
    say(f"training samples of {title}: {same:.1%} of the fields are the same both ways")
    runs: dict[str, Callable[[], object]] = {"read": both.read, "decode": both.decode}
    if has_cv2():
        runs |= {"read, augment": both.read_and_augment, "decode, augment": both.decode_and_augment}
    took = by_turns(runs, size.times)
    count = len(both.films)
    read, decoded = BATCH * size.batches / took["read"], count / took["decode"]
    rows = [Row(f"{title}: samples read / decoded", read, decoded, "samples/s", 100 if manner == "pixel" else None)]
    if has_cv2():
        name = f"{title}: samples as {PICTURE} px pictures / decoded, OpenCV"
        ours = BATCH * min(AUGMENTED, size.batches) / took["read, augment"]
        rows.append(Row(name, ours, count / took["decode, augment"], "samples/s", 1))
    return rows, same


def has_cv2() -> bool:
    return importlib.util.find_spec("cv2") is not None


# ------------------------------------------------------------------------------------------ UCF-101's size


def full_size(folder: Path, source: FieldReader, share: float, times: int) -> list[Row]:
    """A store of as many clips and frames as UCF-101 has: files, `dvc status`, opening, random batches."""
    generator = np.random.default_rng(0)
    count = max(2, round(UCF_CLIPS * share))
    mean = UCF_FRAMES / UCF_CLIPS
    lengths = np.clip(np.rint(generator.gamma(5, mean / 5, count)), 29, 1776).astype(np.int64)
    names = [f"clip_{number:05d}" for number in range(count)]
    clips = pd.DataFrame({"id": names, "md5": "", "frames": lengths})
    say(f"a store of {count} clips, {lengths.sum()} frames")
    begun = time.perf_counter()
    fill(folder, clips, source)
    weight = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    files = sum(path.is_file() for path in folder.rglob("*"))
    say(f"  {files} files, {weight / 2**30:.2f} GiB, written in {time.perf_counter() - begun:.0f} s")
    status = dvc_status(folder, times)
    table = read_table(folder / "mv.parquet")
    batch = drawn(table, BATCH * SEGMENTS)
    many = drawn(table, 40 * BATCH * SEGMENTS)
    reader, cached = opened(folder), opened(folder, 64 << 20)
    took = by_turns(
        {
            "open and first batch": functools.partial(open_and_read, folder, batch),
            "batches": functools.partial(read_batches, reader, many),
            "batches, cached": functools.partial(read_batches, cached, many),
        },
        times,
    )
    speed = len(many) / took["batches"]
    title = f"{count:,} clips"
    return [
        Row(f"{title}: files in the store", files, unit="files", target=500, at_most=True),
        Row(f"{title}: dvc status, nothing changed", status, unit="s", target=3, at_most=True),
        Row(f"{title}: opening and a first batch", took["open and first batch"], unit="s", target=0.5, at_most=True),
        Row(f"{title}: random fields, batches of 240", speed, unit="fields/s"),
        Row(f"{title}: cache of 64 MiB / none", len(many) / took["batches, cached"], speed, unit="fields/s"),
        Row(f"{title}: size of the store", weight / 2**20, unit="MiB"),
    ]


def fill(folder: Path, clips: pd.DataFrame, source: FieldReader) -> None:
    """Write a store of these clips (id, md5, frames), with fields drawn from another one's."""
    path, bank = folder / "mv.zarr", folder.parent / "bank.npy"
    slots = plan_slots(clips)
    shards = int(slots["shard"].max()) + 1
    whole = source.read_all()
    np.save(bank, whole[stored_frames(source.table)])
    places = [slots[slots["shard"] == number].merge(clips, on="id") for number in range(shards)]
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        for number, _ in enumerate(pool.map(functools.partial(fill_shard, path, bank), range(shards), places)):
            if number % 50 == 49:
                say(f"  {number + 1} of {shards} shards")
    bank.unlink()
    types = np.full(shards * SHARD_FRAMES, P_FRAME, np.uint8)
    write_metadata(path, types, source.grid, SHARD_FRAMES, source.attributes)
    rest: dict[str, Any] = {"backend": "pyav", "status": "ok", "reason": "", "checksum": 0, "key": ""}
    table = slots.assign(length=clips["frames"], md5=clips["md5"], **rest)
    write_table(folder / "mv.parquet", table)


def fill_shard(path: Path, bank: Path, number: int, places: pd.DataFrame) -> None:
    """Write one shard: each clip is a stretch of the bank, moved round the picture by some cells."""
    fields = np.load(bank, mmap_mode="r")
    generator = np.random.default_rng(number)
    buffer = np.full((SHARD_FRAMES, *fields.shape[1:]), MISSING, np.int8)
    for place in rows_of(places):
        begin = generator.integers(len(fields))
        stretch = fields[np.arange(begin, begin + place.frames) % len(fields)]
        down, right = (int(generator.integers(cells)) for cells in fields.shape[2:])
        start = place.offset - number * SHARD_FRAMES
        buffer[start : start + place.frames] = np.roll(stretch, (down, right), (2, 3))
    file = path / shard_name(number)
    file.parent.mkdir(parents=True)
    file.write_bytes(encode_shard(buffer))


def dvc_status(folder: Path, times: int) -> float:
    """Put the store under DVC in a repository of its own; the median time of `dvc status` afterwards, s."""
    surroundings = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder.parent / "dvc-site")}

    def run(*command: str) -> float:
        begun = time.perf_counter()
        subprocess.run(command, cwd=folder, env=surroundings, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    dvc = (sys.executable, "-m", "dvc")
    run("git", "init", "--quiet")
    run(*dvc, "init", "--quiet")
    say(f"  dvc add: {run(*dvc, 'add', '--quiet', 'mv.zarr'):.1f} s")
    took = [run(*dvc, "status") for _ in range(max(3, times))]
    say(f"  dvc status: {', '.join(f'{seconds:.2f}' for seconds in took)} s")
    return float(np.median(took))


# ------------------------------------------------------------------------------------------------------ main


def main() -> None:
    """Measure everything, print the table, write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument("--scale", type=float, help="share of UCF-101's clips to fill the large store with")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    share = size.scale if given.scale is None else given.scale
    real = real_data()
    left_out = [] if has_cv2() else ["rows with OpenCV: cv2 is not installed"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("extracting clips")
        if real is None:
            left_out.append(f"real clips: {REAL_DATA} is not set; rendered ones took their place")
            mpeg4 = indexed(make_clips(folder, "mpeg4", UCF_SIZE, size.made, 160), 4)
            h264 = indexed(make_clips(folder, "h264", UCF_SIZE, size.made, 160, b_frames=2), 4)
            parts = {"MPEG-4": mpeg4, "H.264": h264}
        else:
            fight = indexed(real_clips(real)[: 4 if given.quick else None])
            parts = {"UCF-101 AVI": indexed(sorted((real / "codecs").glob("*.avi")), size.ucf), "fight_surv": fight}
        clips = pd.concat(parts.values(), ignore_index=True)
        build(clips, folder / "plain", False)
        for manner in MANNERS:
            build(clips, folder / manner, manner)
        rows = random_fields(folder / "plain", size)
        rows += chunk_sizes(folder / "plain", folder, size)
        agreement = {}
        for title, part in parts.items():
            for manner in MANNERS:
                label = f"{title}, {manner}"
                found, agreement[label] = samples(label, folder / manner, manner, part, size)
                rows += found
        rows += full_size(folder / "ucf", opened(folder / "plain"), share, size.times)
    facts = {
        "contents": "rendered" if real is None else "real clips",
        "clips": {title: {"clips": len(part), "frames": int(part["frames"].sum())} for title, part in parts.items()},
        "decoded fields equal to the stored ones": agreement,
        "quick": given.quick,
        "repetitions": size.times,
        "scale": share,
    }
    out = given.out or (None if given.quick else RESULTS / "read.json")
    report("reading from the store", rows, left_out, facts, out)


if __name__ == "__main__":
    main()
