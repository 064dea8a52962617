"""From motion vectors to dense motion fields, with numpy only.

A field holds, for each cell of a grid over the canvas, how far the content moved since the previous frame: (dx, dy) in
px of the canvas.
"""

from __future__ import annotations

import numpy as np

from moclip.motion.area import axis_edges, integrate_between
from moclip.video.geometry import AS_CODED, MACROBLOCK
from moclip.video.vector_records import Vectors

CODEC_CELL = 8  # px: FFmpeg exports blocks of 16 or 8 px only, so a cell of 8 has at most one vector per direction

_SOURCE, _W, _H, SRC_X, SRC_Y, DST_X, DST_Y, _MOTION_X, _MOTION_Y, _SCALE = range(10)


def grid_shape(canvas: tuple[int, int], cell: int) -> tuple[int, int]:
    """Cells of a canvas (height, width) in px: (rows, columns); the last ones may reach over the edge."""
    return -(-canvas[0] // cell), -(-canvas[1] // cell)


def motion_field(vectors: Vectors, canvas: tuple[int, int] = (240, 320), cell: int = CODEC_CELL) -> np.ndarray:
    """Turn the motion vectors of T frames into dense fields.

    The content's displacement is `-motion / motion_scale` for a reference in the past, `+` for one in the
    future, which counts only where no block with a past one (zero included) covers the cell. What no block
    covers is zero. The codec's own grid of 8 px is averaged onto the canvas's cells by area, counting their
    part inside the picture, turned and scaled as the picture is shown.

    Parameters
    ----------
    vectors : blocks of T frames of one video.
    canvas : (height, width) in px that every video is scaled to.
    cell : side of a cell in px of the canvas.

    Returns
    -------
    float64 (T, 2, rows, columns): dx, dy in px of the canvas.
    """
    blocks = vectors.blocks
    per_px = _common_scale(blocks[:, _SCALE])
    motion_x, motion_y = blocks[:, _MOTION_X], blocks[:, _MOTION_Y]
    if (blocks[:, _SCALE] != per_px).any():
        times = per_px // blocks[:, _SCALE]
        motion_x, motion_y = motion_x * times, motion_y * times
    pitch = _pitch(vectors, canvas, cell)
    units = on_codec_grid(vectors, motion_x, motion_y, pitch, np.int32)
    return on_canvas(units, pitch, per_px, vectors, canvas, cell, cropped=(vectors.top, vectors.left))


def _common_scale(scales: np.ndarray) -> int:
    if not len(scales):
        return 1
    lowest, highest = int(scales.min()), int(scales.max())
    return lowest if lowest == highest else int(np.lcm.reduce(np.unique(scales)))


def _pitch(vectors: Vectors, canvas: tuple[int, int], cell: int) -> int:
    """Side in px of the coarsest squares that hold one vector each: macroblocks, where none of these is divided.

    They are a quarter of the work where a cell of the canvas is not smaller. The fields are the same either way.
    """
    sides = canvas[::-1] if vectors.orientation.swaps else canvas
    large = vectors.height * cell >= sides[0] * MACROBLOCK and vectors.width * cell >= sides[1] * MACROBLOCK
    if large and (vectors.blocks[:, _W : _H + 1] == MACROBLOCK).all():
        return MACROBLOCK
    return CODEC_CELL


def _codec_grid(vectors: Vectors, pitch: int) -> tuple[int, int]:
    """Cells of `pitch` px, (rows, columns), in whole macroblocks, so that no block of a frame reaches over them.

    They cover the coded picture from its own corner, which may be cropped away, to the shown picture's last px.
    """
    in_one = MACROBLOCK // pitch
    height, width = vectors.top + vectors.height, vectors.left + vectors.width
    return in_one * -(-height // MACROBLOCK), in_one * -(-width // MACROBLOCK)


def on_codec_grid(vectors: Vectors, motion_x: np.ndarray, motion_y: np.ndarray, pitch: int, dtype: type) -> np.ndarray:
    """Assign the displacement of every block to its cells of `pitch` px: (T, 2, rows, columns) of the type given.

    `motion_x`, `motion_y` (N,) point from a block to where it is predicted from; the content moved the other way if
    that is in the past. What no block covers is zero.
    """
    grid: np.ndarray = np.zeros((len(vectors.frame_types), 2, *_codec_grid(vectors, pitch)), dtype)
    moving = (motion_x != 0) | (motion_y != 0)
    future = vectors.blocks[:, _SOURCE] > 0
    if future.any():
        # A zero vector to the past stands against one to the future, so only future zeros may be left out.
        _assign(grid, vectors, pitch, motion_x, motion_y, np.flatnonzero(future & moving))
        _assign(grid, vectors, pitch, -motion_x, -motion_y, np.flatnonzero(~future))
    else:
        _assign(grid, vectors, pitch, -motion_x, -motion_y, None if moving.all() else np.flatnonzero(moving))
    return grid


def _assign(
    grid: np.ndarray, vectors: Vectors, pitch: int, moved_x: np.ndarray, moved_y: np.ndarray, chosen: np.ndarray | None
) -> None:
    """Write the displacements (N,) of the chosen blocks (None: of all) into the grid (T, 2, rows, columns)."""
    bits = pitch.bit_length() - 1  # a shift takes a third of a whole division's time
    cut_x, cut_y = vectors.left, vectors.top  # what of the coded picture lies before the shown one
    _, _, rows, columns = grid.shape
    w, h, x, y = (vectors.blocks[:, column] for column in (_W, _H, DST_X, DST_Y))
    frame = vectors.frame
    if chosen is not None:
        w, h, x, y, frame, moved_x, moved_y = (all_.take(chosen) for all_ in (w, h, x, y, frame, moved_x, moved_y))
    left, top = (x - ((w >> 1) - cut_x)) >> bits, (y - ((h >> 1) - cut_y)) >> bits
    wide, high = w > pitch, h > pitch
    inside = (left >= 0) & (top >= 0) & (left + wide < columns) & (top + high < rows)
    if not inside.all():  # a cropped stream has macroblocks beyond the picture
        left, top, wide, high, frame, moved_x, moved_y = (
            all_[inside] for all_ in (left, top, wide, high, frame, moved_x, moved_y)
        )
    corner = (frame * np.int64(2 * rows) + top) * columns + left
    flat = grid.reshape(-1)
    parts: list[tuple[int, np.ndarray | None]] = [(0, None)]  # `pitch` px each; which blocks have it
    if pitch < MACROBLOCK:
        parts += [(1, wide), (columns, high), (columns + 1, wide & high)]
    for away, having in parts:
        these = slice(None) if having is None else np.flatnonzero(having)
        first = corner[these] + away
        flat[first] = moved_x[these]
        flat[first + rows * columns] = moved_y[these]


def on_canvas(
    values: np.ndarray,
    pitch: int,
    per_px: int,
    vectors: Vectors,
    canvas: tuple[int, int],
    cell: int,
    cropped: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Average coded displacements (T, 2, rows, columns), constant on squares of `pitch` px, over the canvas's cells.

    The numbers are whole, `per_px` to the px; the result is upright and in px of the canvas. The shown picture begins
    `cropped` px down and along the values.
    """
    xx, xy, yx, yy = turn = vectors.orientation
    size = (vectors.height, vectors.width)
    sides = canvas[::-1] if turn.swaps else canvas  # the canvas as the coded picture lies on it
    mirrored = (xy < 0 or yy < 0, xx < 0 or yx < 0)  # down the rows, along the columns
    edges = [axis_edges(size[axis], sides[axis], cell, pitch, mirrored[axis], cropped[axis]) for axis in (0, 1)]
    summed = values
    for axis in (1, 0) if edges[0].rest.any() else (0, 1):  # the order that leaves less to do; the sums are the same
        summed = integrate_between(summed, edges[axis], axis=2 + axis)
    area = np.outer(edges[0].lengths, edges[1].lengths) * per_px
    summed = summed * np.stack([sides[1] / size[1] / area, sides[0] / size[0] / area])
    if turn == AS_CODED:
        return summed
    dx, dy = (turn.upright(summed[:, component], (1, 2)) for component in (0, 1))
    return np.stack([xx * dx + xy * dy, yx * dx + yy * dy], axis=1)
