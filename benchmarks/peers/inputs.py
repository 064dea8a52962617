"""Input of the model: augmented videos a second, ours beside decoding at each access; and the training step."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch

from benchmarks.common import UCF_SIZE, indexed, make_clips, real_clips, real_data, say
from benchmarks.peers.core import Part, Run, load, pool
from benchmarks.read import (
    PICTURE,
    SCALES,
    SEGMENTS,
    build,
    decode_sample,
    film,
    group_transform,
    has_cv2,
)
from moclip.data.crops import crop_and_resize, random_crops
from moclip.data.sampling import segment_frames
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.store.reader import FieldReader
from moclip.training.mv_tsn import MvTsnRecipe, optimiser_for

BATCH = 16  # videos
WORKERS = 2
OURS, READ = "ours", "ours, int8 fields alone"
ALONE = "PyAV + OpenCV, pixel, 1 process"
RECIPE = MvTsnRecipe(
    segments=SEGMENTS, epochs=1, batch=BATCH, lr=0.01, eps=1e-3, weight_decay=1e-4, lr_mult_head=1, lr_mult_stem=0.1,
    lr_mult_rest=0.01, lr_steps=(80, 160), crops=SCALES, flip=True, precision="fp32", test_crop=0.875, seed=0,
)  # fmt: skip
SETUP = {
    OURS: f"`FieldReader.read` of {BATCH} x {SEGMENTS} random frames, no cache; `augment.pictures`: multi-scale crop, "
    f"flip, {PICTURE} px on PyTorch's threads",
    READ: "the same without the pictures, which on a GPU are made there",
    "PyAV + OpenCV": "from the last key frame on, one thread each on two processes; the field as CoViAR traces it "
    "back (`pixel`), or as it is (`plain`); TSN's group transforms. What goes back to the trainer is not counted",
    "torchcodec": "`VideoDecoder(num_ffmpeg_threads=1).get_frames_at` on two processes, RGB; crop, flip, bilinear to "
    "224 px, float. Loads the FFmpeg libraries that PyAV brings along",
    "decord": "`VideoReader(num_threads=1).get_batch` on two processes, then the same",
}


def measure(part: Part) -> None:
    """For MPEG-4 clips at UCF-101's size, and real H.264 clips."""
    training = training_rate(part)
    part.facts["training"] = {"videos/s": training, "network": "EfficientNet-B0, 224 px, three segments"}
    if part.quick:
        part.leave_out("torchcodec, decord, the field as CoViAR traces it", "not in the quick form")
    for number, (title, clips) in enumerate(subjects(part).items()):
        say(f"{title}: {len(clips)} clips")
        one_kind(part, title, clips, part.folder / f"inputs{number}", training)


def subjects(part: Part) -> dict[str, pd.DataFrame]:
    real = real_data()
    if real is None or part.quick:
        count, frames = (1, 24) if part.quick else (8, 160)
        return {"MPEG-4 320x240": indexed(make_clips(part.folder, "mpeg4", UCF_SIZE, count, frames), 4)}
    return {
        "UCF-101 AVI": indexed(sorted((real / "codecs").glob("*.avi")), 60),
        "real H.264": indexed(real_clips(real)),
    }


def training_rate(part: Part) -> float:
    """Videos a second through forward, backward and step of the paper's network, their pictures lying ready."""
    videos = 1 if part.quick else 8
    backbone = "test_resnet" if part.quick else "efficientnet_b0"
    network = MvTsn(MvTsnConfig(backbone, ("a", "b"), PICTURE, 0.5)).to(memory_format=torch.channels_last)
    optimiser = optimiser_for(network.train(), RECIPE)
    shown, labels = torch.randn(videos, SEGMENTS, 2, PICTURE, PICTURE), torch.zeros(videos, dtype=torch.long)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(shown), labels).backward()
        optimiser.step()

    turns = part.turns({"training step": step}, 10)
    rate = videos / turns.median("training step")
    part.row("forward, backward and step: EfficientNet-B0, 224 px", "videos/s", rate, rounds=turns.rounds)
    return float(f"{rate:.4g}")


def one_kind(part: Part, title: str, clips: pd.DataFrame, folder: Path, training: float) -> None:
    build(clips, folder, "pixel", 0 if part.quick else 2)
    reader = FieldReader(folder / "mv.zarr", folder / "mv.parquet", 0)
    generator = np.random.default_rng(0)
    table = reader.table.set_index("id").loc[clips["id"]]
    batches = 1 if part.quick else 12
    chosen = generator.integers(len(clips), size=batches * BATCH)
    frames = segment_frames(table["length"].to_numpy()[chosen], SEGMENTS, generator)
    places = (table["offset"].to_numpy()[chosen, None] + frames).reshape(batches, -1)
    few = (2 if part.quick else 16) if title != "real H.264" else 8
    wanted = [(clips["path"].iloc[clip], numbers.tolist()) for clip, numbers in zip(chosen, frames, strict=True)][:few]
    count = {OURS: 2 * BATCH if batches > 1 else BATCH, READ: batches * BATCH}
    runs: dict[str, Run] = {
        OURS: functools.partial(ours, reader, places[: count[OURS] // BATCH], generator),
        READ: functools.partial(read_only, reader, places),
    }
    part.setup |= {name: SETUP[name] for name in (OURS, READ)}
    with ExitStack() as stack:
        for name, run in peers(part, title, wanted, stack).items():
            runs[name], count[name] = run, few
        turns = part.turns(runs, 45, ours=(OURS,))
    rate = {name: count[name] / turns.median(name) for name in runs}
    for name in runs:
        scaled = turns.ratio(OURS, name)
        ratio = type(scaled)(*(value * count[OURS] / count[name] for value in scaled))
        if name in (OURS, READ):
            part.row(f"{title}: {name}", "videos/s", rate[name], rounds=turns.rounds)
            continue
        aim = 1.0 if name.startswith("PyAV") else None
        part.row(
            title, "videos/s", rate[OURS], rate[name], who=(OURS, name), ratio=ratio, rounds=turns.rounds, target=aim
        )
        if name == ALONE:
            scaled = turns.ratio(READ, name)
            ratio = type(scaled)(*(value * count[READ] / count[name] for value in scaled))
            part.row(
                title,
                "videos/s",
                rate[READ],
                rate[name],
                who=(READ, name),
                ratio=ratio,
                rounds=turns.rounds,
                target=100,
            )
    bound = {name: round(training / rate[name], 4) for name in runs}
    part.facts.setdefault("input's share of a training step", {})[title] = bound


def ours(reader: FieldReader, places: np.ndarray, generator: np.random.Generator) -> None:
    for batch in places:
        fields = torch.from_numpy(reader.read(batch))
        boxes = random_crops(len(batch) // SEGMENTS, reader.grid, SCALES, True, generator).repeat(SEGMENTS)
        crop_and_resize(fields, boxes, PICTURE)


def read_only(reader: FieldReader, places: np.ndarray) -> None:
    for batch in places:
        reader.read(batch)


# ------------------------------------------------------------------------------------------------------- peers

Sample = tuple[str, list[int]]


def peers(part: Part, title: str, wanted: Sequence[Sample], stack: ExitStack) -> dict[str, Run]:
    """Each decodes these samples anew on two processes that have started."""
    found: dict[str, Run] = {}
    if part.quick:
        warm_films([path for path, _ in wanted])
        return {"PyAV + OpenCV, plain": lambda: [fields_at(one, "plain") for one in wanted]} if has_cv2() else {}
    if has_cv2():
        executor = stack.enter_context(pool(WORKERS, functools.partial(warm_films, [path for path, _ in wanted])))
        part.setup["PyAV + OpenCV"] = SETUP["PyAV + OpenCV"]
        for manner in ("plain", "pixel"):
            found[f"PyAV + OpenCV, {manner}"] = spread(executor, functools.partial(fields_at, manner=manner), wanted)
        alone = stack.enter_context(pool(1, functools.partial(warm_films, [path for path, _ in wanted])))
        found[ALONE] = spread(alone, functools.partial(fields_at, manner="pixel"), wanted)
    else:
        part.leave_out(f"{title}: PyAV + OpenCV", "cv2 is not installed; `make bench` installs it")
    for name, module, decode in (("torchcodec", "torchcodec", rgb_torchcodec), ("decord", "decord", rgb_decord)):
        if not part.peer(module, name, SETUP[name]):
            continue
        libraries = stack.enter_context(av_libraries()) if name == "torchcodec" else None
        surroundings = {"LD_LIBRARY_PATH": str(libraries)} if libraries else {}
        executor = stack.enter_context(pool(WORKERS, functools.partial(load, module), **surroundings))
        run = spread(executor, decode, wanted)
        if part.try_(f"{title}: {name}", run):
            found[name] = run
    return found


def spread(executor: ProcessPoolExecutor, decode: Callable[[Sample], int], wanted: Sequence[Sample]) -> Run:
    def run() -> None:
        list(executor.map(decode, wanted, chunksize=max(1, len(wanted) // (4 * WORKERS))))

    return run


def warm_films(paths: Sequence[str]) -> None:
    """What a loader keeps of each clip, and the imports that its first sample would pay for."""
    torch.set_num_threads(1)
    for path in dict.fromkeys(paths):
        film(path)


def fields_at(sample: Sample, manner: str) -> int:
    path, frames = sample
    fields = decode_sample(film(path), frames, manner if manner == "pixel" else False)
    return len(group_transform(fields, np.random.default_rng(len(frames))))


def rgb_torchcodec(sample: Sample) -> int:
    path, frames = sample
    torch.set_num_threads(1)
    decoder = load("torchcodec.decoders").VideoDecoder(path, num_ffmpeg_threads=1)
    last = len(decoder) - 1
    return augmented(decoder.get_frames_at([min(frame, last) for frame in frames]).data)


def rgb_decord(sample: Sample) -> int:
    path, frames = sample
    torch.set_num_threads(1)
    reader = load("decord").VideoReader(path, num_threads=1)
    last = len(reader) - 1
    shown = reader.get_batch([min(frame, last) for frame in frames]).asnumpy()
    return augmented(torch.from_numpy(shown).permute(0, 3, 1, 2))


def augmented(shown: torch.Tensor) -> int:
    """RGB pictures uint8 (n, 3, height, width): one random box, mirrored, 224 px, float."""
    generator = np.random.default_rng(0)
    height, width = (round(scale * min(shown.shape[-2:])) for scale in generator.choice(SCALES, 2))
    top, left = (
        int(generator.integers(all_ - side + 1)) for all_, side in zip(shown.shape[-2:], (height, width), strict=True)
    )
    box = shown[..., top : top + height, left : left + width].float().div_(255)
    return len(torch.nn.functional.interpolate(box, (PICTURE, PICTURE), mode="bilinear").flip(-1))


@contextmanager
def av_libraries() -> Iterator[Path | None]:
    """A folder with the FFmpeg libraries that PyAV's wheel brings along, under the names that others ask for."""
    libraries = Path(av.__file__).parent.parent / "av.libs"
    with tempfile.TemporaryDirectory() as name:
        if not libraries.is_dir():
            yield None
            return
        for file in libraries.iterdir():
            (Path(name) / file.name).symlink_to(file)
            if plain := re.match(r"(lib(?:av|sw)[a-z]+)-[0-9a-f]+\.so\.(\d+)", file.name):
                (Path(name) / f"{plain[1]}.so.{plain[2]}").symlink_to(file)
        yield Path(name)
