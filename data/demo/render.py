"""Render and encode the demo's clips into `videos/`, and write split files in UCF-101's format to `splits/`.

Only the picture depends on the class. Size, background, codec, frame rate and number of frames depend on the group and
the clip. The same params give the same bytes for any number of workers.
"""

import argparse
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from scene import BACKGROUNDS, CLIPS, COLOURS, MOTIONS, class_name, draw_background, draw_frame, draw_scene
from settings import FOLDER, Settings, load_settings
from tqdm import tqdm

GOP = 12


@dataclass(frozen=True)
class Codec:
    """One way to encode a clip."""

    name: str
    suffix: str
    b_frames: int
    options: dict[str, str]


# A fixed quantiser and fixed frame types, so that the lookahead decides nothing. With `crf` and B-frames, one libx264
# encode in a hundred has other bytes, even with one thread and the same pixels.
X264 = {"preset": "fast", "qp": "26", "x264-params": "threads=1:lookahead-threads=1:scenecut=0:b-adapt=0:weightp=0"}
MPEG4 = {"flags": "+qscale", "global_quality": str(4 * 118)}  # 118 is FFmpeg's lambda for one step of the quantiser
# A clip takes the codec at its number, modulo the length. Half of the clips are encoded like UCF-101's, and each group
# has several codecs.
CODECS = (
    Codec("mpeg4", ".avi", 0, MPEG4),
    Codec("libx264", ".mp4", 2, X264),
    Codec("mpeg4", ".avi", 0, MPEG4),
    Codec("libx264", ".mp4", 0, X264),
    Codec("mpeg4", ".avi", 0, MPEG4),
    Codec("libx264", ".mp4", 2, X264),
    Codec("mpeg4", ".avi", 2, MPEG4),
    Codec("mpeg4", ".avi", 0, MPEG4),
)


@dataclass(frozen=True)
class Clip:
    """A clip to render. `number` counts the clips of a class; `group` and `index` are in its name."""

    colour: str
    motion: str
    group: int
    index: int
    number: int
    test: bool

    @property
    def codec(self) -> Codec:
        """The codec; it depends on the number only."""
        return CODECS[self.number % len(CODECS)]

    @property
    def path(self) -> str:
        """The path relative to `videos/`: `Class/v_Class_g01_c01.ext`."""
        name = class_name(self.colour, self.motion)
        return f"{name}/v_{name}_g{self.group:02d}_c{self.index:02d}{self.codec.suffix}"


def plan_clips(settings: Settings) -> Iterator[Clip]:
    """Yield all clips. The test groups come first, as in UCF-101."""
    test_groups = -(-settings.test // settings.group)
    for colour in settings.colours:
        for motion in MOTIONS[: settings.motions]:
            for test, count, first in ((True, settings.test, 1), (False, settings.train, 1 + test_groups)):
                for number in range(count):
                    group, index = divmod(number, settings.group)
                    yield Clip(colour, motion, first + group, index + 1, number, test)


def render_clip(clip: Clip, settings: Settings, videos: Path) -> None:
    """Draw and encode one clip. Its random numbers depend on its own seeds only."""
    background = draw_background(np.random.default_rng([settings.seed, BACKGROUNDS, clip.group]))
    # The motion is not part of this seed: the middle frames of rising and falling differ in noise only.
    seed = [settings.seed, CLIPS, clip.group, clip.index, list(COLOURS).index(clip.colour)]
    low, high = settings.frames
    scene = draw_scene(np.random.default_rng(seed), background, clip.colour, clip.motion, (low, high))
    rng = np.random.default_rng([*seed, MOTIONS.index(clip.motion)])

    # bitexact: the file contains no version and no date.
    with av.open(str(videos / clip.path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(clip.codec.name, rate=scene.fps, options=clip.codec.options)
        stream.height, stream.width = background.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = GOP
        stream.codec_context.max_b_frames = clip.codec.b_frames
        stream.codec_context.thread_count = 1  # with more threads the bytes may depend on the machine
        for number in range(scene.frames):
            frame = av.VideoFrame.from_ndarray(draw_frame(rng, scene, number), format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_splits(clips: list[Clip], splits: Path) -> None:
    """Write `classInd.txt`, `trainlist01.txt` and `testlist01.txt` in UCF-101's format."""
    names = sorted({class_name(clip.colour, clip.motion) for clip in clips})
    labels = {name: number for number, name in enumerate(names, 1)}
    lists: dict[str, list[str]] = {
        "classInd.txt": [f"{label} {name}" for name, label in labels.items()],
        "trainlist01.txt": sorted(f"{c.path} {labels[c.path.split('/')[0]]}" for c in clips if not c.test),
        "testlist01.txt": sorted(c.path for c in clips if c.test),
    }
    for name, lines in lists.items():
        (splits / name).write_text("\n".join(lines) + "\n")


def main() -> None:
    """Render all clips that params.yaml asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: the CPUs)")
    workers = parser.parse_args().workers
    settings = load_settings()
    videos, splits = FOLDER / "videos", FOLDER / "splits"
    clips = list(plan_clips(settings))
    for folder in (videos, splits):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for clip in clips:
        (videos / clip.path).parent.mkdir(exist_ok=True)

    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for NumPy in the workers: more threads would compete for the CPUs
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        work = pool.imap_unordered(partial(render_clip, settings=settings, videos=videos), clips, chunksize=4)
        for _ in tqdm(work, total=len(clips), desc="render", unit="clip", mininterval=1, disable=None):
            pass  # disable=None: no bar where stderr is not a terminal
    write_splits(clips, splits)
    print(f"render: {len(clips)} clips")


if __name__ == "__main__":
    main()
