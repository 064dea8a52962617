"""Find clips that are copies of each other, also re-encoded ones: the same picture and the same course of motion.

Pictures alone do not tell clips of one person in front of one background apart, and motion alone does not tell scenes
apart. So both must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from moclip.data.scene_groups import BLOCK, read_thumbnails
from moclip.video.decoding import I_FRAME

TIMES, GRID = 16, (6, 8)
"""Equal parts of a clip, and rows and columns of cells, over which its motion is averaged."""
LOOKS = (1, 4, 7)
"""Which frames are compared as pictures, in eighths of a clip."""
SAME_LOOKS, SAME_MOTION = 0.998, 0.4
"""Least correlation of the looks, and of the courses of motion, of copies. docs/ask.md has the figures."""


def course_of_motion(fields: np.ndarray, frame_types: np.ndarray) -> np.ndarray:
    """Return how a clip moves over time and place: (TIMES * 2 * rows * columns of `GRID`,) float32 of unit length.

    `fields` are (T, 2, rows, columns) in any unit, `frame_types` (T,) as in the store. Frames without vectors (I) do
    not count. The square root of each mean keeps a few fast cells from hiding the rest. A clip without motion gives
    zeros, which are like nothing.
    """
    frames, _, rows, columns = fields.shape
    cells = np.add.reduceat(fields.astype(np.float32), _starts(rows, GRID[0]), axis=2)
    cells = np.add.reduceat(cells, _starts(columns, GRID[1]), axis=3)
    moving = frame_types != I_FRAME
    times = np.arange(frames) * TIMES // frames
    sums = np.zeros((TIMES, *cells.shape[1:]), np.float32)
    np.add.at(sums, times[moving], cells[moving])
    means = sums / np.maximum(1, np.bincount(times[moving], minlength=TIMES))[:, None, None, None]
    course = (np.sign(means) * np.sqrt(np.abs(means))).reshape(-1)
    length = float(np.linalg.norm(course))
    return course / length if length else course


def read_looks(
    root: str | Path, clips: pd.DataFrame, workers: int, advance: Callable[[int], object] = lambda count: None
) -> list[np.ndarray]:
    """Return thumbnails of `LOOKS` frames of each clip, each (n, d) as of `scene_groups.read_thumbnails`."""
    frames = clips["frames"]
    return [
        read_thumbnails(root, clips.assign(frames=2 * (frames * eighth // 8)), workers, advance) for eighth in LOOKS
    ]


def copy_pairs(
    looks: Sequence[np.ndarray],
    courses: np.ndarray,
    least: float = SAME_MOTION,
    alike: float = SAME_LOOKS,
    block: int = BLOCK,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all pairs of clips whose looks all correlate by `alike`, and whose courses of motion by `least`, or more.

    `looks` are (n, d) each, of `read_looks`; `courses` (n, d) of `course_of_motion`. Returns the pairs (p, 2) int64,
    the first number below the second, in order, with the lowest correlation of the looks and that of the courses, (p,)
    float32. Only blocks of `block` x `block` correlations are in memory.
    """
    pairs, pictures, motions = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    for start in range(0, len(courses), block):
        for other in range(start, len(courses), block):
            one, two = slice(start, start + block), slice(other, other + block)
            picture = np.min([look[one] @ look[two].T for look in looks], axis=0)
            motion = courses[one] @ courses[two].T
            rows, columns = np.nonzero((picture >= alike) & (motion >= least))
            once = rows + start < columns + other
            rows, columns = rows[once], columns[once]
            pairs.append(np.stack([rows + start, columns + other], axis=1))
            pictures.append(picture[rows, columns])
            motions.append(motion[rows, columns])
    found = np.concatenate(pairs)
    order = np.lexsort((found[:, 1], found[:, 0]))
    return found[order], np.concatenate(pictures)[order], np.concatenate(motions)[order]


def _starts(size: int, parts: int) -> np.ndarray:
    """Return where each of `parts` equal parts of `size` cells begins; fewer cells than parts are repeated."""
    return np.arange(parts) * size // parts
