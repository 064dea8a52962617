"""Timelines of long videos: `python -m benchmarks.timeline [--quick]`.

How many times as fast as the video plays, which step takes which share of the time, and the peak memory for a minute
and for two hours. The networks have random weights: those of the preset `folder`, with CLIP ViT-B/32 or without. Videos
are real clips (a texture where there are none), H.264 at 25 frames per second, repeated without re-encoding.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from pathlib import Path

import torch

from benchmarks.common import describe_processor, make_clips, repeat_clip
from benchmarks.comparison import asked_quick, peak_memory, step_timer
from benchmarks.predict import folder_models
from moclip.drawing.thumbnails import Thumbnails
from moclip.inference.predictor import Predictor
from moclip.inference.timeline import observe_timeline, score_serially
from moclip.inference.windows import Windows

SIZES = ((240, 320), (1080, 1920))
WINDOWS = Windows(2.0, 0.5)
STEPS = {"decode": "decode, fields", "mv_tsn": "MV-TSN", "clip": "CLIP", "fusion": "heads"}


def time_steps(predictor: Predictor, path: Path) -> dict[str, float]:
    """Return the seconds of each step, one after the other on one thread."""
    spent = dict.fromkeys(STEPS, 0.0)
    for _ in score_serially(predictor, path, WINDOWS, functools.partial(step_timer, spent)):
        pass
    return spent


def read_alone(path: Path) -> None:
    """Read a video as `moclip timeline` does, with few segments so that it takes less time; for `peak_memory`."""
    predictor = folder_models(with_clip=False, quick=True)
    predictor = dataclasses.replace(predictor, views=dataclasses.replace(predictor.views, segments=2))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak while the networks were made
    observe_timeline(predictor, path, Windows(2.0, 2.0), Thumbnails())


def main() -> None:
    """Print tables in Markdown."""
    quick = asked_quick(__doc__, "a tiny encoder and short videos")
    torch.set_num_threads(1)
    print(f"{describe_processor()}, 1 thread, load {os.getloadavg()[0]:.1f}\n")
    print(f"| video | encoder | times as fast as it plays | {' | '.join(STEPS.values())} |\n|{'---|' * 7}", flush=True)
    sizes = SIZES[:1] if quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        sources = {size: make_clips(Path(folder), "h264", size, 1, 50, b_frames=2)[0] for size in sizes}
        for size, source in sources.items():
            path = Path(folder) / f"{size[0]}.mp4"
            seconds = repeat_clip(source, path, 4 if quick else 60) / 25
            for with_clip in (False, True):
                predictor = folder_models(with_clip, quick)
                time_steps(predictor, source)  # the first run of networks is slower
                spent = time_steps(predictor, path)
                whole = sum(spent.values())
                shares = " | ".join(f"{100 * value / whole:.0f} %" for value in spent.values())
                name = ("tiny" if quick else "ViT-B/32") if with_clip else "none"
                print(f"| {size[1]}x{size[0]} | {name} | {seconds / whole:.1f} | {shares} |", flush=True)
        print("\n| video of 320x240 | peak memory, MiB |\n|---|---|", flush=True)
        for seconds, name in ((4, "4 s"), (8, "8 s")) if quick else ((60, "1 minute"), (7200, "2 hours")):
            path = Path(folder) / f"{seconds}.mp4"
            repeat_clip(sources[SIZES[0]], path, seconds)
            used = peak_memory(read_alone, path)
            print(f"| {name} | {used:.0f} |", flush=True)


if __name__ == "__main__":
    main()
