"""Stage `clip_image`: one or a few frames of each clip through frozen CLIP -> data/features/clip_image.zarr."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from moclip import dataset, video
from moclip.clip import Clip
from moclip.device import pick_device
from moclip.errors import StoreError, VideoError
from moclip.features import normalised, write_features
from moclip.sampling import still_frames
from pipeline import console, paths
from pipeline.io import read_parquet
from pipeline.params import Params
from pipeline.stage import Workers, cpu_count, stage


@stage("seed", "dataset.root", "clip.model", "clip.frames", "clip.choice", "clip.batch")
def clip_image(params: Params, workers: Workers = cpu_count()) -> None:
    """Encode one or a few frames of each clip with CLIP's image tower.

    A frame from each of clip.frames equal parts of the clip. Writes data/features/clip_image.zarr: `features` of unit
    length and `raw` ones, each (clips, frames, width), and the `frame` numbers.
    """
    clips = dataset.usable(read_parquet(paths.INDEX, "index"))
    clip = Clip(params.clip.model, pick_device())
    count = params.clip.frames
    ids: list[str] = []
    frames: list[np.ndarray] = []
    raw: list[np.ndarray] = []
    skipped: dict[str, str] = {}
    waiting: list[np.ndarray] = []
    with console.progress("clip_image", len(clips)) as advance:
        for name, numbers, pictures in _decoded(clips, params, workers):
            advance(1)
            if isinstance(pictures, VideoError):
                skipped[name] = pictures.what
                continue
            ids.append(name)
            frames.append(numbers)
            waiting.extend(pictures)
            if len(waiting) >= params.clip.batch:
                raw.append(clip.encode_images(waiting))
                waiting = []
        if waiting:
            raw.append(clip.encode_images(waiting))
    if not ids:
        raise StoreError("no clip gave a frame", where=params.dataset.root, fix=next(iter(skipped.values()), None))
    features = np.concatenate(raw).reshape(len(ids), count, clip.width)
    write_features(
        paths.CLIP_IMAGE,
        ids,
        {
            "features": (normalised(features), ("still", "feature")),
            "raw": (features, ("still", "feature")),
            "frame": (np.stack(frames).astype(np.int32), ("still",)),
        },
        {
            "model": params.clip.model,
            "choice": params.clip.choice,
            "skipped": skipped,
            "cost": clip.picture_cost(),
        },
    )
    console.note(f"clip_image: {len(ids)} clips x {count} frames, {clip.width} features; {len(skipped)} not readable")
    for name, reason in skipped.items():
        console.note(f"  not usable: {name}: {reason}")


def _decoded(
    clips: pd.DataFrame, params: Params, workers: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray | VideoError]]:
    """Id, frame numbers and stills of each clip, in order; threads decode a little ahead (FFmpeg releases the GIL)."""
    root = Path(params.dataset.root)

    def read(name: str, path: str, frames: int) -> tuple[str, np.ndarray, np.ndarray | VideoError]:
        numbers = still_frames(frames, params.clip.frames, params.clip.choice, params.seed, name)
        try:
            return name, numbers, video.read_frames(root / path, numbers)
        except VideoError as problem:
            return name, numbers, problem

    rows = zip(clips["id"], clips["path"], clips["frames"], strict=True)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future] = deque(pool.submit(read, *row) for row in islice(rows, 2 * workers + 2))
        while ahead:
            done = ahead.popleft().result()
            ahead.extend(pool.submit(read, *row) for row in islice(rows, 1))
            yield done


if __name__ == "__main__":
    clip_image()
