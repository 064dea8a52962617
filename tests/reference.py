"""The plain definitions that fields and traces are held against: block by block on whole frames.

They work on vectors as PyAV gives them on one thread with no option but to export them, and share no code with the
library.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

COLUMNS = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")


@dataclass(frozen=True)
class Frame:
    """A decoded frame: RGB uint8 (height, width, 3), its type's letter, its blocks (rows as in `COLUMNS`)."""

    picture: np.ndarray
    letter: str
    blocks: list[list[int]]


def decode(path: Path) -> list[Frame]:
    """All frames, in display order; what does not decode is left out."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for packet in container.demux(stream):
            for frame in packet.decode():
                side = frame.side_data.get("MOTION_VECTORS")
                letter = "?IPB"[int(frame.pict_type)]
                found = [] if side is None else rows(side.to_ndarray())
                frames.append(Frame(frame.to_ndarray(format="rgb24"), letter, found))
    return frames


def rows(vectors: np.ndarray) -> list[list[int]]:
    """PyAV's records as lists of numbers, in the order of `COLUMNS`."""
    return np.stack([vectors[name].astype(int) for name in COLUMNS], axis=1).tolist()


def field(frames: list[Frame], canvas: tuple[int, int], cell: int = 8) -> np.ndarray:
    """Displacement of the content in each cell, px of the canvas: float64 (T, 2, rows, columns)."""
    height, width = frames[0].picture.shape[:2]
    return np.stack([averaged(painted(frame.blocks, height, width), canvas, cell) for frame in frames])


def painted(blocks: list[list[int]], height: int, width: int) -> np.ndarray:
    """Displacement of each pixel of a frame: float64 (2, height, width). What points to the past comes first."""
    pixels = np.zeros((2, height, width))
    covered = np.zeros((height, width), bool)
    for past in (True, False):
        for source, w, h, _, _, x, y, motion_x, motion_y, scale in blocks:
            if (source < 0) != past:
                continue
            place = within(y - h // 2, h, height), within(x - w // 2, w, width)
            sign = -1 if past else 1
            for axis, motion in enumerate((motion_x, motion_y)):
                pixels[axis][place] = np.where(covered[place] & (not past), pixels[axis][place], sign * motion / scale)
            covered[place] |= past
    return pixels


def within(start: int, count: int, side: int) -> slice:
    """So many pixels from `start` on, those in the picture."""
    return slice(min(max(0, start), side), min(max(0, start + count), side))


def traced(frames: list[Frame], canvas: tuple[int, int], cell: int = 8) -> np.ndarray:
    """CoViAR's accumulated displacement, pixel by pixel, averaged over cells: float64 (T, 2, rows, columns)."""
    height, width = frames[0].picture.shape[:2]
    start = np.stack(np.meshgrid(np.arange(width), np.arange(height)))
    old, out = start, []
    for frame in frames:
        new = start if frame.letter == "I" else followed(frame.blocks, old)
        out.append(averaged((start - new).astype(float), canvas, cell))
        if frame.letter != "B":
            old = new
    return np.stack(out)


def followed(blocks: list[list[int]], old: np.ndarray) -> np.ndarray:
    """Where each pixel was in the I-frame, given where those of the reference frame were: x, y (2, height, width)."""
    new = old.copy()
    height, width = old.shape[1:]
    by_the_past = np.zeros((height, width), bool)
    for past in (True, False):
        for source, w, h, src_x, src_y, dst_x, dst_y, *_ in blocks:
            if (source < 0) != past:
                continue
            step_x, step_y = (src_x - dst_x, src_y - dst_y) if past else (dst_x - src_x, dst_y - src_y)
            y, x = np.mgrid[within(dst_y - h // 2, h, height), within(dst_x - w // 2, w, width)].reshape(2, -1)
            if past:
                by_the_past[y, x] = True
            else:
                free = ~by_the_past[y, x]
                y, x = y[free], x[free]
            from_y, from_x = y + step_y, x + step_x
            seen = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width)
            if step_x or step_y:
                new[:, y[seen], x[seen]] = old[:, from_y[seen], from_x[seen]]
    return new


def averaged(pixels: np.ndarray, canvas: tuple[int, int], cell: int) -> np.ndarray:
    """Mean of (2, height, width) over each cell by area, in px of the canvas: float64 (2, rows, columns)."""
    _, height, width = pixels.shape
    down, across = shares(height, canvas[0], cell), shares(width, canvas[1], cell)
    return down @ pixels @ across.T * np.array([canvas[1] / width, canvas[0] / height])[:, None, None]


@functools.cache
def shares(side: int, canvas: int, cell: int) -> np.ndarray:
    """The share of each pixel in each cell's mean along one side: (cells, pixels), rows of sum 1."""
    cells = range(-(-canvas // cell))
    lengths = np.array([[overlap(pixel, number, side, canvas, cell) for pixel in range(side)] for number in cells])
    return lengths / lengths.sum(axis=1, keepdims=True)


def overlap(pixel: int, cell_number: int, side: int, canvas: int, cell: int) -> float:
    """Length in canvas px that a pixel shares with a cell."""
    low, high = pixel * canvas / side, (pixel + 1) * canvas / side
    return max(0.0, min(high, (cell_number + 1) * cell, canvas) - max(low, cell_number * cell))
