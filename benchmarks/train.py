"""Training MV-TSN: compare input from the store with decoding at each access, and epochs with either input.

python -m benchmarks.train [--quick] [--out FILE]
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pandas as pd
import torch

from benchmarks.common import UCF_SIZE, index_clips, make_clips, print_progress, real_clips, real_data
from benchmarks.comparison import UCF_TRAIN, Part, Run, import_peer, run_as_program, run_on_pool, warm_pool
from benchmarks.extract import CANVAS, open_store
from benchmarks.read import SEGMENTS, read_fields
from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.crops import crop_and_resize, random_crops
from moclip.data.sampling import segment_frames
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.motion.field import CODEC_CELL
from moclip.motion.windows import motion_fields
from moclip.store.reader import FieldReader
from moclip.training.distributed import World
from moclip.training.mv_batches import MotionData
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_optimiser import make_optimiser
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.mv_tsn import train_mv_tsn
from moclip.video.decoding import picture_type
from moclip.video.geometry import Geometry
from moclip.video.vector_records import DecodedFrame, unpack_vectors

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
    "an epoch": "`train_mv_tsn`, one epoch, with a checkpoint and two clips validated; the next batch is read while "
    "the network works on this one",
    LOADER: "the same network, batch and optimiser in a plain loop; `DataLoader(num_workers=2)`, spawned and "
    "persistent, decodes each sample (plain fields) and applies TSN's group transforms",
}
OPENCV = (
    "decodes from the last key frame on, one thread each on two processes; fields traced back as in CoViAR (`pixel`) "
    "or as they are (`plain`); TSN's group transforms. Sending them to the trainer is not counted"
)
Sample = tuple[str, list[int]]
"""A clip's path, and frames of it."""


def measure(part: Part) -> None:
    """Measure the input for MPEG-4 clips of UCF-101's size and real H.264, then an epoch of each network."""
    real = real_data()
    part.setup |= SETUP
    has_cv2 = part.peer("cv2", "PyAV + OpenCV", OPENCV)
    training = training_rate(part)
    if real is None or part.quick:
        count, frames = (1, 24) if part.quick else (8, 160)
        clips = {"MPEG-4 320x240": index_clips(make_clips(part.folder, "mpeg4", UCF_SIZE, count, frames), 16)}
    else:
        ucf = index_clips(sorted((real / "codecs").glob("*.avi")), 128)
        clips = {"UCF-101 AVI": ucf, "real H.264": index_clips(real_clips(real))}
    for title, table in clips.items():
        print_progress(f"{title}: {len(table)} clips")
        inputs(part, title, table, training, has_cv2)
    table = next(iter(clips.values()))
    for name, (backbone, size, batch) in (QUICK_NETWORKS if part.quick else NETWORKS).items():
        epochs(part, name, Epoch(table, part.folder, backbone, size, batch), has_cv2)


def training_rate(part: Part) -> float:
    """Return the videos per second of forward, backward and step of the paper's network, with pictures in memory."""
    videos = 1 if part.quick else 8
    backbone = "test_resnet" if part.quick else "efficientnet_b0"
    network = MvTsn(MvTsnConfig(backbone, ("a", "b"), PICTURE, 0.5)).to(memory_format=torch.channels_last)
    optimiser = make_optimiser(network.train(), RECIPE)
    shown, labels = torch.randn(videos, SEGMENTS, 2, PICTURE, PICTURE), torch.zeros(videos, dtype=torch.long)

    turns = part.turns({"training step": functools.partial(train_step, network, optimiser, shown, labels)}, 10)
    rate = videos / turns.median("training step")
    part.add_figure(f"forward, backward and step: {EFFICIENTNET}", "videos/s", rate, rounds=turns.rounds)
    return rate


def train_step(network: MvTsn, optimiser: torch.optim.Optimizer, shown: torch.Tensor, labels: torch.Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(network(shown), labels).backward()
    optimiser.step()


def inputs(part: Part, title: str, clips: pd.DataFrame, training: float, has_cv2: bool) -> None:
    """Measure how many videos per second get their input ready, from the store and from each decoder."""
    reader = open_store(clips, part.folder / "store", 0 if part.quick else WORKERS, accumulate="pixel")
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
        READ: functools.partial(read_fields, reader, places),
    }
    with ExitStack() as stack:
        if has_cv2:
            decoding = decoders(wanted, stack, part.quick)
            runs |= decoding
            amount |= dict.fromkeys(decoding, few)
        turns = part.turns(runs, 45)
    for name in list(runs)[2:]:
        part.add_ratio(title, turns, OURS, name, "videos/s", amounts=(amount[OURS], amount[name]), target=1.0)
    part.add_figure(f"{title}: {READ}", "videos/s", amount[READ] / turns.median(READ), rounds=turns.rounds)
    if has_cv2:
        part.add_ratio(title, turns, READ, ALONE, "videos/s", amounts=(amount[READ], amount[ALONE]), target=100)
    part.facts.setdefault("input's share of a training step", {})[title] = {
        name: round(training * turns.median(name) / amount[name], 4) for name in runs
    }


def read_and_augment(reader: FieldReader, places: np.ndarray, generator: np.random.Generator) -> None:
    for batch in places:
        fields = torch.from_numpy(reader.read(batch))
        boxes = random_crops(len(batch) // SEGMENTS, reader.grid, SCALES, True, generator).repeat(SEGMENTS)
        crop_and_resize(fields, boxes, PICTURE)


def decoders(wanted: Sequence[Sample], stack: ExitStack, quick: bool) -> dict[str, Run]:
    """Return the contenders that decode these samples in each round, on running processes."""
    warm = functools.partial(warm_films, [path for path, _ in wanted])
    one = stack.enter_context(warm_pool(1, warm))
    two = one if quick else stack.enter_context(warm_pool(WORKERS, warm))
    plain, pixel = (functools.partial(decode_only, manner=manner) for manner in ("plain", "pixel"))
    chunk = max(1, len(wanted) // (4 * WORKERS))
    return {
        "PyAV + OpenCV, plain": functools.partial(run_on_pool, two, plain, wanted, chunk),
        "PyAV + OpenCV, pixel": functools.partial(run_on_pool, two, pixel, wanted, chunk),
        ALONE: functools.partial(run_on_pool, one, pixel, wanted, chunk),
    }


def decode_only(sample: Sample, manner: str) -> None:
    """Decode pictures and drop them: sending them back is not counted."""
    decode_fields(sample, manner)


class Film(NamedTuple):
    """The time stamps of a video's frames in display order, and those of its key frames with their dts, to seek."""

    stamps: np.ndarray
    keys: np.ndarray
    key_dts: np.ndarray


@functools.cache
def read_film(path: str) -> Film:
    """List a video's time stamps from its packets, as a data loader would do once."""
    with av.open(path) as container:
        packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    keys = np.array(sorted((pts, dts) for pts, dts, key in packets if key))
    return Film(np.array(sorted(pts for pts, _, _ in packets)), keys[:, 0], keys[:, 1])


def warm_films(paths: Sequence[str]) -> None:
    """List the time stamps of all clips, and import libraries, before the timing starts."""
    torch.set_num_threads(1)
    for path in dict.fromkeys(paths):
        read_film(path)


def decode_fields(sample: Sample, manner: str, size: int = PICTURE, seed: int | None = 0) -> np.ndarray:
    """Return pictures of a clip's frames: float32 (segments, 2, size, size)."""
    path, frames = sample
    fields = np.stack([decoded_field(path, frame, manner == "pixel" and manner) for frame in frames])
    return group_transform(fields, np.random.default_rng(seed), size)


def decoded_field(path: str, frame: int, accumulate: bool | str) -> np.ndarray:
    """Decode the field of one frame from its key frame on, on one thread: float64 (2, rows, columns) in px."""
    film = read_film(path)
    wanted = film.stamps[frame]
    entry = np.searchsorted(film.keys, wanted, side="right") - 1
    decoded: list[DecodedFrame] = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        container.seek(int(film.key_dts[entry]), stream=stream, backward=True)
        for picture in container.decode(stream):
            if picture.pts is None or picture.pts < film.keys[entry]:
                continue
            vectors = picture.side_data.get("MOTION_VECTORS")
            geometry = Geometry(picture.width, picture.height)
            found = DecodedFrame(picture, picture_type(picture), vectors, True, geometry)
            decoded.append(found.without_picture())
            if picture.pts >= wanted:
                break
    *_, (fields, _) = motion_fields([unpack_vectors(decoded)], CANVAS, CODEC_CELL, accumulate)
    return np.asarray(fields[-1])


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


def motion_data(reader: FieldReader, clips: pd.DataFrame, validated: int) -> MotionData:
    """Return clips of a store to train on, of two classes; the first `validated` ones are also those to validate."""
    rows = reader.table.set_index("id").loc[clips["id"]].reset_index()
    train = SplitClips.of(rows.assign(label=np.arange(len(rows)) % 2))
    return MotionData(SampledFields.of(reader, rows.assign(codec="mpeg4")), train, train[:validated])


class Epoch:
    """Compare an epoch of ours with a plain loop over a DataLoader: same clips, network and batch."""

    def __init__(self, clips: pd.DataFrame, folder: Path, backbone: str, size: int, batch: int) -> None:
        self.clips = clips.iloc[: 3 * batch if size > 64 else batch]
        self.folder = folder / "train"
        self.reader = open_store(self.clips, self.folder)
        self.config = MvTsnConfig(backbone, ("a", "b"), size, 0.5)
        self.recipe: MvTsnRecipe = replace(RECIPE, batch=batch)
        self.data = motion_data(self.reader, self.clips, 2)

    def network(self) -> MvTsn:
        torch.manual_seed(0)
        return MvTsn(self.config).to(memory_format=torch.channels_last)

    def ours(self) -> None:
        checkpoint = Checkpoint(self.folder / "checkpoint", "", seconds=20.0)
        rows: list[dict[str, float]] = []
        train_mv_tsn(self.network(), self.data, self.recipe, World(torch.device("cpu")), checkpoint, rows.append)
        checkpoint.path.unlink()

    def plain_loop(self, loader: Any) -> None:
        network = self.network()
        optimiser = make_optimiser(network.train(), self.recipe)
        for shown, labels in loader:
            train_step(network, optimiser, shown, labels)

    def loader(self, workers: int) -> Any:
        clips = self.data.train
        decoded = Decoded(list(self.clips["path"]), clips.lengths, clips.labels, self.config.size)
        return torch.utils.data.DataLoader(
            decoded,
            self.recipe.batch,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
        )


class Decoded(torch.utils.data.Dataset[tuple[np.ndarray, int]]):
    """A data set whose samples are decoded at each access."""

    def __init__(self, paths: list[str], lengths: np.ndarray, labels: np.ndarray, size: int) -> None:
        self.paths, self.lengths, self.labels, self.size = paths, lengths, labels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        frames = segment_frames(self.lengths[number : number + 1], SEGMENTS, np.random.default_rng())[0].tolist()
        return decode_fields((self.paths[number], frames), "plain", self.size, None), int(self.labels[number])


def epochs(part: Part, name: str, epoch: Epoch, has_cv2: bool) -> None:
    count = len(epoch.clips)
    print_progress(f"an epoch of {name}: {count} clips")
    runs: dict[str, Run] = {OURS: epoch.ours}
    if has_cv2:
        runs[LOADER] = functools.partial(epoch.plain_loop, epoch.loader(0 if part.quick else WORKERS))
    turns = part.turns(runs, 100, least=2)
    each = turns.median(OURS) / count
    label = f"{name}: an epoch of UCF-101's {UCF_TRAIN:,} clips, from {count}"
    part.add_figure(label, "s", each * UCF_TRAIN, rounds=turns.rounds)
    if has_cv2:
        part.add_ratio(f"{name}: an epoch", turns, OURS, LOADER, "videos/s", amounts=(count, count), target=1.0)


if __name__ == "__main__":
    run_as_program("train", __doc__)
