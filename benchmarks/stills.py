"""Encoding stills of clips, compared with the encoder alone: `python -m benchmarks.stills [--quick]`.

`clip_image` reads one or four stills of each clip and encodes them with ViT-B/32 (untrained). The other run encodes the
same pictures, decoded beforehand. Clips are real ones scaled to 240 x 320 px (MPEG-4, a key frame in 12) and to
1080 x 1920 px (H.264, one in 50), or a texture where there are none.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import describe_processor, index_clips, make_clips
from benchmarks.comparison import LEAST, MOST, asked_quick, run_interleaved
from benchmarks.predict import write_clip
from moclip.data.sampling import still_frames
from moclip.data.spans import with_span_columns
from moclip.inference.encode import EncodingPart, library_versions
from moclip.inference.encode_stills import ImageEncoderWorker
from moclip.inference.prepare_stills import StillsTask
from moclip.models.encoders.base import Encoder
from moclip.models.encoders.source import EncoderSource
from moclip.video.frames import read_pictures

BATCH, FRAMES = 32, 60  # pictures a forward pass; frames a clip
OURS, BARE = "clip_image", "the encoder alone"


def pictures_of(clips: pd.DataFrame, frames: int, stills: int) -> list[np.ndarray]:
    numbers = still_frames(frames, stills, "middle", 0, "")
    return [picture for path in clips["path"] for picture in read_pictures(Path(path), numbers, True)]


def encode_all(encoder: Encoder, pictures: Sequence[np.ndarray]) -> None:
    for start in range(0, len(pictures), BATCH):
        encoder.encode_images(pictures[start : start + BATCH])


def stills_worker(folder: str, stills: int, cores: int) -> ImageEncoderWorker:
    """Return what `clip_image` encodes with: the CLIP in `folder`/clip."""
    where = (EncoderSource(f"{folder}/clip"), "/", True, stills, "middle", 0)
    return ImageEncoderWorker(StillsTask(*where, BATCH, cores, f"{folder}/parts", "", library_versions()))


def stills_table(paths: Sequence[Path], times: int = 1) -> pd.DataFrame:
    """Return the table that `clip_image` needs, with each clip under `times` names."""
    return with_span_columns(index_clips(paths, times).assign(seekable=True))


def encode_clips(worker: ImageEncoderWorker, clips: pd.DataFrame, turn: itertools.count[int]) -> None:
    worker.run_job(EncodingPart(f"part-{next(turn)}", clips))


def main() -> None:
    """Print a table in Markdown."""
    quick = asked_quick(__doc__, "a tiny encoder and few clips")
    cores, frames = os.cpu_count() or 1, 8 if quick else FRAMES
    print(f"{describe_processor()}, {cores} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"| clips | stills | {OURS}, pictures/s | {BARE}, pictures/s | ratio |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_clip(f"{folder}/clip", quick)
        for codec, size, count in (("mpeg4", (240, 320), 128), ("h264", (1080, 1920), 24)):
            made = make_clips(Path(folder), codec, size, 1 if quick else count, frames)
            clips = stills_table(made)
            for stills in (1, 4):
                worker = stills_worker(folder, stills, cores)
                pictures = pictures_of(clips, frames, stills)
                turns = run_interleaved(
                    {
                        OURS: functools.partial(encode_clips, worker, clips, itertools.count()),
                        BARE: functools.partial(encode_all, worker.encoder, pictures),
                    },
                    60,
                    spread=0.1,
                    least=1 if quick else LEAST,
                    most=1 if quick else MOST,
                )
                ours, bare = (len(pictures) / turns.median(name) for name in (OURS, BARE))
                name = f"{size[0]} x {size[1]}, {codec}"
                print(f"| {name} | {stills} | {ours:.1f} | {bare:.1f} | {ours / bare:.2f} |", flush=True)


if __name__ == "__main__":
    main()
