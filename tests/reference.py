"""The plain, slow definitions that fields and traces are held against: loops over blocks, pixels and cells.

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
                found = [] if side is None else [[int(v[name]) for name in COLUMNS] for v in side.to_ndarray()]
                letter = "?IPB"[int(frame.pict_type)]
                frames.append(Frame(frame.to_ndarray(format="rgb24"), letter, found))
    return frames


def field(frames: list[Frame], canvas: tuple[int, int], cell: int = 8) -> np.ndarray:
    """Displacement of the content in each cell, px of the canvas: float64 (T, 2, rows, columns)."""
    height, width = frames[0].picture.shape[:2]
    return np.stack([averaged(painted(frame.blocks, height, width), canvas, cell) for frame in frames])


def painted(blocks: list[list[int]], height: int, width: int) -> np.ndarray:
    """Displacement of each pixel of a frame: float64 (2, height, width)."""
    pixels = np.zeros((2, height, width))
    covered = np.zeros((height, width), bool)
    for past in (True, False):
        for source, w, h, _, _, x, y, motion_x, motion_y, scale in blocks:
            if (source < 0) != past:
                continue
            sign = -1 if past else 1
            for row in range(max(0, y - h // 2), min(height, y - h // 2 + h)):
                for column in range(max(0, x - w // 2), min(width, x - w // 2 + w)):
                    if past or not covered[row, column]:
                        pixels[:, row, column] = sign * motion_x / scale, sign * motion_y / scale
                    covered[row, column] |= past
    return pixels


def traced(frames: list[Frame], canvas: tuple[int, int], cell: int = 8) -> np.ndarray:
    """CoViAR's accumulated displacement, pixel by pixel, averaged over cells: float64 (T, 2, rows, columns)."""
    height, width = frames[0].picture.shape[:2]
    start = [[(x, y) for x in range(width)] for y in range(height)]
    old, out = start, []
    for frame in frames:
        new = start if frame.letter == "I" else followed(frame.blocks, old, height, width)
        way = np.array([[(x - new[y][x][0], y - new[y][x][1]) for x in range(width)] for y in range(height)], float)
        out.append(averaged(way.transpose(2, 0, 1), canvas, cell))
        if frame.letter != "B":
            old = new
    return np.stack(out)


def followed(
    blocks: list[list[int]], old: list[list[tuple[int, int]]], height: int, width: int
) -> list[list[tuple[int, int]]]:
    """Where each pixel was in the I-frame, given where those of the reference frame were."""
    new = [list(row) for row in old]
    by_the_past = set()
    for past in (True, False):
        for source, w, h, src_x, src_y, dst_x, dst_y, *_ in blocks:
            if (source < 0) != past:
                continue
            step_x, step_y = (src_x - dst_x, src_y - dst_y) if past else (dst_x - src_x, dst_y - src_y)
            for y in range(dst_y - h // 2, dst_y - h // 2 + h):
                for x in range(dst_x - w // 2, dst_x - w // 2 + w):
                    if not (0 <= x < width and 0 <= y < height) or (not past and (x, y) in by_the_past):
                        continue
                    if past:
                        by_the_past.add((x, y))
                    from_x, from_y = x + step_x, y + step_y
                    if (step_x or step_y) and 0 <= from_x < width and 0 <= from_y < height:
                        new[y][x] = old[from_y][from_x]
    return new


def averaged(pixels: np.ndarray, canvas: tuple[int, int], cell: int) -> np.ndarray:
    """Mean of (2, height, width) over each cell by area, in px of the canvas: float64 (2, rows, columns)."""
    rows, columns = (-(-side // cell) for side in canvas)
    out = np.empty((2, rows, columns))
    for row in range(rows):
        for column in range(columns):
            out[:, row, column] = cell_mean(pixels, row, column, canvas, cell)
    return out


def cell_mean(pixels: np.ndarray, row: int, column: int, canvas: tuple[int, int], cell: int) -> tuple[float, float]:
    _, height, width = pixels.shape
    rows = [overlap(y, row, height, canvas[0], cell) for y in range(height)]
    columns = [overlap(x, column, width, canvas[1], cell) for x in range(width)]
    total = sum(rows) * sum(columns)
    dx = sum(a * float(np.dot(columns, line)) for a, line in zip(rows, pixels[0], strict=True) if a)
    dy = sum(a * float(np.dot(columns, line)) for a, line in zip(rows, pixels[1], strict=True) if a)
    return dx / total * canvas[1] / width, dy / total * canvas[0] / height


@functools.cache
def overlap(pixel: int, cell_number: int, side: int, canvas: int, cell: int) -> float:
    """Length in canvas px that a pixel shares with a cell."""
    low, high = pixel * canvas / side, (pixel + 1) * canvas / side
    return max(0.0, min(high, (cell_number + 1) * cell, canvas) - max(low, cell_number * cell))
