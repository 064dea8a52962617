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
from moclip.video.frames import read_pictures
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
    root: str
    clip: str
    frame: int
    seekable: bool


def read_thumbnails(
    root: str | Path, rows: pd.DataFrame, workers: int, advance: Callable[[int], object] = lambda count: None
) -> np.ndarray:
    """Return a thumbnail of each clip's middle frame, (n, SIDE * SIDE) float32 of mean 0 and unit length.

    `rows` are the index's (columns path, frames, seekable). A clip whose frame cannot be read gets zeros, which are
    like nothing.
    """
    jobs = [
        _ThumbnailJob(str(root), path, frames // 2, seekable)
        for path, frames, seekable in zip(rows["path"], rows["frames"].tolist(), rows["seekable"].tolist(), strict=True)
    ]
    found = []
    for thumbnail in run_jobs_in_order(_read_thumbnail, jobs, workers, _no_thumbnail):
        found.append(thumbnail)
        advance(1)
    return np.stack(found)


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


def _read_thumbnail(job: _ThumbnailJob) -> np.ndarray:
    try:
        with local_copy(join_path(job.root, job.clip)) as file, time_limit():
            picture = read_pictures(file, [job.frame], job.seekable)[0]
    except Exception:  # the stages that need the frame say what is wrong with the clip
        return _no_thumbnail(job, "")
    small = Image.fromarray(picture).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).reshape(-1)
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length else values


def _no_thumbnail(job: _ThumbnailJob, reason: str) -> np.ndarray:
    return np.zeros(SIDE * SIDE, np.float32)
