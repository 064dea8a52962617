"""Group clips that show the same scene, by small grey pictures of their middle frames. No encoder is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from moclip.files.folders import join_path
from moclip.files.local_copies import local_copy
from moclip.video.frames import each_picture
from moclip.workers.processes import run_jobs_in_order
from moclip.workers.time_limit import time_limit

SIDE = 32
"""Width and height of a thumbnail."""
ALIKE = 0.9
"""Correlation of the thumbnails of clips that count as one scene. On 150 surveillance clips with known sources, no two
clips of different sources reach it, and an eighth of the pairs of one source do."""
BLOCK = 1024
"""Clips that are compared at once."""


@dataclass(frozen=True)
class _ThumbnailJob:
    """Frames of one video: those of all its clips."""

    root: str
    path: str
    frames: np.ndarray
    seekable: bool


def read_thumbnails(
    root: str | Path, rows: pd.DataFrame, workers: int, advance: Callable[[int], object] = lambda count: None
) -> np.ndarray:
    """Return a thumbnail of each clip's middle frame, (n, SIDE * SIDE) float32 of mean 0 and unit length.

    `rows` are the index's (columns path, frames, seekable, and first for spans of longer videos). A video is read once
    for all its clips. A clip whose frame cannot be read gets zeros, which are like nothing.
    """
    middle = rows["frames"].to_numpy() // 2 + (rows["first"].to_numpy() if "first" in rows else 0)
    places = list(rows.reset_index(drop=True).groupby("path", sort=False).indices.values())
    paths, seekable = rows["path"].to_numpy(), rows["seekable"].to_numpy(bool)
    jobs = (_ThumbnailJob(str(root), paths[own[0]], middle[own], bool(seekable[own[0]])) for own in places)
    found = np.zeros((len(rows), SIDE * SIDE), np.float32)
    for own, thumbnails in zip(places, run_jobs_in_order(_read_thumbnails, jobs, workers, _no_thumbnails), strict=True):
        found[own] = thumbnails
        advance(len(own))
    return found


def join_look_alikes(groups: pd.Series, thumbnails: np.ndarray) -> pd.Series:
    """Join the groups of clips that look alike: those whose thumbnails correlate by `ALIKE` or more.

    `groups` (n,) are names, `thumbnails` (n, d) are of `read_thumbnails`. Groups that are joined get the name of the
    first one in order. A chain of clips, each like the next, is one group.
    """
    numbers, names = pd.factorize(groups, sort=True)
    first = list(range(len(names)))

    def root_of(number: int) -> int:
        while first[number] != number:
            number = first[number]
        return number

    for start in range(0, len(thumbnails), BLOCK):
        for other in range(start, len(thumbnails), BLOCK):
            cosines = thumbnails[start : start + BLOCK] @ thumbnails[other : other + BLOCK].T
            ones, twos = np.nonzero(cosines >= ALIKE)
            pairs = np.unique(np.stack([numbers[ones + start], numbers[twos + other]], axis=1), axis=0)
            for one, two in pairs.tolist():
                low, high = sorted((root_of(one), root_of(two)))
                first[high] = low
    return pd.Series([names[root_of(number)] for number in numbers.tolist()], index=groups.index, dtype=object)


def _read_thumbnails(job: _ThumbnailJob) -> np.ndarray:
    found = _no_thumbnails(job, "")
    try:
        with local_copy(join_path(job.root, job.path)) as file, time_limit():
            for number, picture in each_picture(file, job.frames, job.seekable):
                found[job.frames == number] = _thumbnail(picture)
    except Exception:  # the stages that need the frame say what is wrong with the clip
        return found
    return found


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).reshape(-1)
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length else values


def _no_thumbnails(job: _ThumbnailJob, reason: str) -> np.ndarray:
    return np.zeros((len(job.frames), SIDE * SIDE), np.float32)
