"""Training MV-TSN: compare input from the store with decoding at each access, and epochs with either input.

python -m benchmarks.train [--quick] [--out FILE]
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import torch

from benchmarks.common import UCF_SIZE, index_clips, make_clips, print_progress, real_clips, real_data
from benchmarks.comparison import UCF_TRAIN, Part, Run, import_peer, run_as_program, warm_pool
from benchmarks.extract import CANVAS, extract_clips
from benchmarks.read import SEGMENTS
from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.crops import crop_and_resize, random_crops
from moclip.data.sampling import segment_frames
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.motion.field import CODEC_CELL
from moclip.motion.windows import motion_fields
from moclip.store.layout import SHARD_FRAMES
from moclip.store.reader import FieldReader
from moclip.training.distributed import World
from moclip.training.mv_batches import MotionData
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_optimiser import make_optimiser
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.mv_tsn import train_mv_tsn
from moclip.video.vector_records import VECTOR_COLUMNS, Vectors

PICTURE, CLIP = 224, 20.0  # px: side of the network's input; largest displacement
BATCH = 16  # videos
WORKERS = 2
SCALES = (1.0, 0.875, 0.75, 0.66)
OURS, READ = "ours", "ours, int8 fields alone"
ALONE = "PyAV + OpenCV, pixel, 1 process"
LOADER = "PyTorch's DataLoader, PyAV + OpenCV"
EFFICIENTNET = "EfficientNet-B0, 224 px"
NETWORKS = {EFFICIENTNET: ("efficientnet_b0", 224, 16), "resnet10t, 64 px": ("resnet10t", 64, 128)}
QUICK_NETWORKS = {"test_resnet, 32 px": ("test_resnet", 32, 4)}
RECIPE = MvTsnRecipe(
    segments=SEGMENTS, epochs=1, batch=BATCH, lr=0.01, eps=1e-3, weight_decay=1e-4, lr_mult_head=1, lr_mult_stem=0.1,
    lr_mult_rest=0.01, lr_steps=(80, 160), crops=SCALES, flip=True, precision="fp32", test_crop=0.875, seed=0,
)  # fmt: skip
SETUP = {
    OURS: f"`FieldReader.read` of {BATCH} x {SEGMENTS} random frames, no cache; `crop_and_resize`: multi-scale crop, "
    f"flip, {PICTURE} px on PyTorch's threads",
    READ: "the same without the pictures, which are made on the GPU if there is one",
    "PyAV + OpenCV": "decodes from the last key frame on, one thread each on two processes; fields traced back as in "
    "CoViAR (`pixel`) or as they are (`plain`); TSN's group transforms. Sending them to the trainer is not counted",
    "an epoch": "`train_mv_tsn`, one epoch, with a checkpoint and two clips validated; the next batch is read while "
    "the network works on this one",
    LOADER: "the same network, batch and optimiser in a plain loop; `DataLoader(num_workers=2)`, spawned and "
    "persistent, decodes each sample (plain fields) and applies TSN's group transforms",
}
Sample = tuple[str, list[int]]
"""A clip's path, and frames of it."""


def measure(part: Part) -> None:
    """Measure the input for MPEG-4 clips of UCF-101's size and real H.264, then an epoch of each network."""
    real = real_data()
    part.setup |= SETUP
    if not has_cv2():
        part.leave_out("PyAV + OpenCV", "cv2 is not installed; `make bench` installs it")
    training = training_rate(part)
    if real is None or part.quick:
        count, frames = (1, 24) if part.quick else (8, 160)
        clips = {"MPEG-4 320x240": index_clips(make_clips(part.folder, "mpeg4", UCF_SIZE, count, frames), 16)}
    else:
        ucf = index_clips(sorted((real / "codecs").glob("*.avi")), 128)
        clips = {"UCF-101 AVI": ucf, "real H.264": index_clips(real_clips(real))}
    for title, table in clips.items():
        print_progress(f"{title}: {len(table)} clips")
        inputs(part, title, table, training)
    table = next(iter(clips.values()))
    for name, (backbone, size, batch) in (QUICK_NETWORKS if part.quick else NETWORKS).items():
        epochs(part, name, Epoch(table, part.folder, backbone, size, batch))


def open_store(clips: pd.DataFrame, folder: Path, accumulate: bool | str, workers: int) -> FieldReader:
    """Extract the clips into a new store, and open it without a cache."""
    extract_clips(clips, folder, workers, SHARD_FRAMES, accumulate=accumulate)
    return FieldReader(folder / "mv.zarr", folder / "mv.parquet", 0)


# ------------------------------------------------------------------------------------------------------- input


def training_rate(part: Part) -> float:
    """Return the videos per second of forward, backward and step of the paper's network, with pictures in memory."""
    videos = 1 if part.quick else 8
    backbone = "test_resnet" if part.quick else "efficientnet_b0"
    network = MvTsn(MvTsnConfig(backbone, ("a", "b"), PICTURE, 0.5)).to(memory_format=torch.channels_last)
    optimiser = make_optimiser(network.train(), RECIPE)
    shown, labels = torch.randn(videos, SEGMENTS, 2, PICTURE, PICTURE), torch.zeros(videos, dtype=torch.long)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(shown), labels).backward()
        optimiser.step()

    turns = part.turns({"training step": step}, 10)
    rate = videos / turns.median("training step")
    part.add_figure(f"forward, backward and step: {EFFICIENTNET}", "videos/s", rate, rounds=turns.rounds)
    return rate


def inputs(part: Part, title: str, clips: pd.DataFrame, training: float) -> None:
    """Measure how many videos per second get their input ready, from the store and from each decoder."""
    reader = open_store(clips, part.folder / "store", "pixel", 0 if part.quick else WORKERS)
    generator = np.random.default_rng(0)
    table = reader.table.set_index("id").loc[clips["id"]]
    batches = 1 if part.quick else 12
    picked = generator.integers(len(clips), size=batches * BATCH)
    frames = segment_frames(table["length"].to_numpy()[picked], SEGMENTS, generator)
    places = (table["offset"].to_numpy()[picked, None] + frames).reshape(batches, -1)
    few = 2 if part.quick else 8 if title == "real H.264" else 16
    wanted = [(clips["path"].iloc[clip], numbers.tolist()) for clip, numbers in zip(picked, frames, strict=True)][:few]
    made = min(batches, 2)
    amount = {OURS: made * BATCH, READ: batches * BATCH}
    runs: dict[str, Run] = {
        OURS: functools.partial(read_and_augment, reader, places[:made], generator),
        READ: functools.partial(read, reader, places),
    }
    with ExitStack() as stack:
        for name, run in decoders(wanted, stack, part.quick).items():
            runs[name], amount[name] = run, few
        turns = part.turns(runs, 45, ours=(OURS,))
    for name in list(runs)[2:]:
        part.add_ratio(title, turns, OURS, name, "videos/s", amounts=(amount[OURS], amount[name]), target=1.0)
    part.add_figure(f"{title}: {READ}", "videos/s", amount[READ] / turns.median(READ), rounds=turns.rounds)
    if ALONE in runs:
        part.add_ratio(title, turns, READ, ALONE, "videos/s", amounts=(amount[READ], amount[ALONE]), target=100)
    part.facts.setdefault("input's share of a training step", {})[title] = {
        name: round(training * turns.median(name) / amount[name], 4) for name in runs
    }


def read(reader: FieldReader, places: np.ndarray) -> None:
    for batch in places:
        reader.read(batch)


def read_and_augment(reader: FieldReader, places: np.ndarray, generator: np.random.Generator) -> None:
    for batch in places:
        fields = torch.from_numpy(reader.read(batch))
        boxes = random_crops(len(batch) // SEGMENTS, reader.grid, SCALES, True, generator).repeat(SEGMENTS)
        crop_and_resize(fields, boxes, PICTURE)


def decoders(wanted: Sequence[Sample], stack: ExitStack, quick: bool) -> dict[str, Run]:
    """Return the contenders that decode these samples in each round, on running processes."""
    if not has_cv2():
        return {}
    warm = functools.partial(warm_films, [path for path, _ in wanted])
    one = stack.enter_context(warm_pool(1, warm))
    two = one if quick else stack.enter_context(warm_pool(WORKERS, warm))
    plain, pixel = (functools.partial(decode_fields, manner=manner) for manner in ("plain", "pixel"))
    return {
        "PyAV + OpenCV, plain": functools.partial(spread, two, plain, wanted),
        "PyAV + OpenCV, pixel": functools.partial(spread, two, pixel, wanted),
        ALONE: functools.partial(spread, one, pixel, wanted),
    }


def spread(executor: Any, decode: Callable[[Sample], Any], wanted: Sequence[Sample]) -> None:
    count = functools.partial(decoded_count, decode)  # sending the pictures back is not counted
    list(executor.map(count, wanted, chunksize=max(1, len(wanted) // (4 * WORKERS))))


def decoded_count(decode: Callable[[Sample], Any], sample: Sample) -> int:
    return len(decode(sample))


def has_cv2() -> bool:
    return importlib.util.find_spec("cv2") is not None


# ------------------------------------------------------------------------- motion, decoded at each access


@dataclass(frozen=True)
class Film:
    """The time stamps of a video's frames in display order, and those of its key frames with their dts, to seek."""

    path: str
    stamps: np.ndarray
    keys: np.ndarray
    key_dts: np.ndarray


@functools.cache
def read_film(path: str) -> Film:
    """List a video's time stamps from its packets, as a data loader would do once."""
    with av.open(path) as container:
        packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    keys = np.array(sorted((pts, dts) for pts, dts, key in packets if key))
    return Film(path, np.array(sorted(pts for pts, _, _ in packets)), keys[:, 0], keys[:, 1])


def warm_films(paths: Sequence[str]) -> None:
    """List the time stamps of all clips, and import libraries, before the timing starts."""
    torch.set_num_threads(1)
    for path in dict.fromkeys(paths):
        read_film(path)


def decode_fields(sample: Sample, manner: str, size: int = PICTURE, seed: int | None = 0) -> np.ndarray:
    """Return pictures of a clip's frames: float32 (segments, 2, size, size)."""
    path, frames = sample
    fields = np.stack([decoded_field(read_film(path), frame, manner == "pixel" and manner) for frame in frames])
    return group_transform(fields, np.random.default_rng(seed), size)


def decoded_field(clip: Film, frame: int, accumulate: bool | str) -> np.ndarray:
    """Decode the field of one frame from its key frame on, on one thread: float64 (2, rows, columns) in px."""
    wanted = clip.stamps[frame]
    entry = np.searchsorted(clip.keys, wanted, side="right") - 1
    raw, types, no_blocks = [], [], np.empty((0, len(VECTOR_COLUMNS)), np.int32)
    with av.open(clip.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        container.seek(int(clip.key_dts[entry]), stream=stream, backward=True)
        for picture in container.decode(stream):
            if picture.pts is None or picture.pts < clip.keys[entry]:
                continue
            side: Any = picture.side_data.get("MOTION_VECTORS")
            raw.append(no_blocks if side is None else columns_of(side.to_ndarray()))
            types.append(ord(av.video.frame.PictureType(picture.pict_type).name))
            if picture.pts >= wanted:
                break
    number = np.repeat(np.arange(len(raw), dtype=np.int32), [len(blocks) for blocks in raw])
    vectors = Vectors(np.concatenate(raw), number, np.array(types, np.uint8), picture.width, picture.height)
    *_, (fields, _) = motion_fields([vectors], CANVAS, CODEC_CELL, accumulate)
    return np.asarray(fields[-1])


def columns_of(records: np.ndarray) -> np.ndarray:
    """Convert FFmpeg's records to int32 (n, 10)."""
    return np.stack([records[name].astype(np.int32) for name in VECTOR_COLUMNS], axis=1)


def group_transform(fields: np.ndarray, generator: np.random.Generator, size: int) -> np.ndarray:
    """Apply TSN's group transforms with OpenCV: (segments, 2, rows, columns) -> (segments, 2, size, size)."""
    cv2 = import_peer("cv2")
    rows, columns = fields.shape[2:]
    height, width = (round(scale * min(rows, columns)) for scale in generator.choice(SCALES, 2))
    top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
    mirrored = generator.random() < 0.5
    group = []
    for field in fields:
        box = field[:, top : top + height, left : left + width].transpose(1, 2, 0).astype(np.float32)
        picture = cv2.resize(box, (size, size), interpolation=cv2.INTER_LINEAR)
        if mirrored:
            picture = picture[:, ::-1] * np.array([-1, 1], np.float32)
        group.append(picture.transpose(2, 0, 1) / np.float32(CLIP))
    return np.stack(group)


# ------------------------------------------------------------------------------------------------------ epochs


class Epoch:
    """Compare an epoch of ours with a plain loop over a DataLoader: same clips, network and batch."""

    def __init__(self, clips: pd.DataFrame, folder: Path, backbone: str, size: int, batch: int) -> None:
        self.clips = clips.iloc[: 3 * batch if size > 64 else batch]
        self.folder = folder / "train"
        self.reader = open_store(self.clips, self.folder, False, 0)
        self.config = MvTsnConfig(backbone, ("a", "b"), size, 0.5)
        self.recipe: MvTsnRecipe = replace(RECIPE, batch=batch)
        self.rows = self.reader.table.set_index("id").loc[self.clips["id"]].reset_index()
        self.labels = np.arange(len(self.rows)) % 2

    def network(self) -> MvTsn:
        torch.manual_seed(0)
        return MvTsn(self.config).to(memory_format=torch.channels_last)

    def ours(self) -> None:
        fields = SampledFields.of(self.reader, self.rows.assign(codec="mpeg4"))
        clips = SplitClips(self.rows["offset"].to_numpy(), self.rows["length"].to_numpy(), self.labels)
        checkpoint = Checkpoint(self.folder / "checkpoint", "", seconds=20.0)
        rows: list[dict[str, float]] = []
        data, cpu = MotionData(fields, clips, clips[:2]), World(torch.device("cpu"))
        train_mv_tsn(self.network(), data, self.recipe, cpu, checkpoint, rows.append)
        checkpoint.path.unlink()

    def plain_loop(self, loader: Any) -> None:
        network = self.network()
        optimiser = make_optimiser(network.train(), self.recipe)
        for shown, labels in loader:
            optimiser.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(network(shown), labels).backward()
            optimiser.step()

    def loader(self, workers: int) -> Any:
        decoded = Decoded(list(self.clips["path"]), self.rows["length"].to_numpy(), self.labels, self.config.size)
        spawned: dict[str, Any] = {
            "num_workers": workers,
            "persistent_workers": True,
            "multiprocessing_context": "spawn",
        }
        return torch.utils.data.DataLoader(decoded, self.recipe.batch, shuffle=True, **(spawned if workers else {}))


class Decoded(torch.utils.data.Dataset[tuple[np.ndarray, int]]):
    """A data set whose samples are decoded at each access."""

    def __init__(self, paths: list[str], lengths: np.ndarray, labels: np.ndarray, size: int) -> None:
        self.paths, self.lengths, self.labels, self.size = paths, lengths, labels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        frames = segment_frames(self.lengths[number : number + 1], SEGMENTS, np.random.default_rng())[0].tolist()
        return decode_fields((self.paths[number], frames), "plain", self.size, None), int(self.labels[number])


def epochs(part: Part, name: str, epoch: Epoch) -> None:
    count = len(epoch.clips)
    print_progress(f"an epoch of {name}: {count} clips")
    runs: dict[str, Run] = {OURS: epoch.ours}
    if has_cv2():
        runs[LOADER] = functools.partial(epoch.plain_loop, epoch.loader(0 if part.quick else WORKERS))
    turns = part.turns(runs, 100, least=2)
    each = turns.median(OURS) / count
    label = f"{name}: an epoch of UCF-101's {UCF_TRAIN:,} clips, from {count}"
    part.add_figure(label, "s", each * UCF_TRAIN, rounds=turns.rounds)
    if LOADER in runs:
        part.add_ratio(f"{name}: an epoch", turns, OURS, LOADER, "videos/s", amounts=(count, count), target=1.0)


if __name__ == "__main__":
    run_as_program("train", __doc__)
