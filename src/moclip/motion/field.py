"""Turn motion vectors into dense motion fields, with numpy only.

A field holds, for each cell of a grid over the canvas, how far the content moved since the previous frame: (dx, dy) in
px of the canvas.
"""

from __future__ import annotations

import numpy as np

from moclip.motion.area import axis_edges, integrate_between
from moclip.video.geometry import AS_CODED, MACROBLOCK
from moclip.video.vector_records import Vectors

CODEC_CELL = 8  # px: FFmpeg exports blocks of 16 or 8 px only, so a cell of 8 has at most one vector per direction

# columns of `Vectors.blocks`, in the order of `VECTOR_COLUMNS`
_SOURCE, _W, _H, SRC_X, SRC_Y, DST_X, DST_Y, _MOTION_X, _MOTION_Y, _SCALE = range(10)


def grid_shape(canvas: tuple[int, int], cell: int) -> tuple[int, int]:
    """Return the (rows, columns) of a canvas (height, width) in px; the last cells may reach over the edge."""
    return -(-canvas[0] // cell), -(-canvas[1] // cell)


def motion_field(vectors: Vectors, canvas: tuple[int, int] = (240, 320), cell: int = CODEC_CELL) -> np.ndarray:
    """Turn the motion vectors of T frames into dense fields.

    The content's displacement is `-motion / motion_scale` for a reference in the past, and `+motion / motion_scale` for
    one in the future. A future reference counts only where no block with a past one (zero included) covers the cell.
    Cells without a block are zero. The codec's grid of 8 px is averaged onto the canvas's cells by area, counting the
    part inside the picture, and is rotated and scaled as the picture is shown.

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
        factor = per_px // blocks[:, _SCALE]
        motion_x, motion_y = motion_x * factor, motion_y * factor
    pitch = _grid_pitch(vectors, canvas, cell)
    units = on_codec_grid(vectors, motion_x, motion_y, pitch, np.int32)
    return on_canvas(units, pitch, per_px, vectors, canvas, cell, cropped=(vectors.top, vectors.left))


def _common_scale(scales: np.ndarray) -> int:
    """Return the least common multiple of the blocks' motion scales."""
    if not len(scales):
        return 1
    lowest, highest = int(scales.min()), int(scales.max())
    return lowest if lowest == highest else int(np.lcm.reduce(np.unique(scales)))


def _grid_pitch(vectors: Vectors, canvas: tuple[int, int], cell: int) -> int:
    """Return the side in px of the grid to assign vectors to: a macroblock where none is divided, else 8 px.

    Macroblocks are a quarter of the work where a cell of the canvas is not smaller. The fields are the same either way.
    """
    sides = canvas[::-1] if vectors.orientation.swaps else canvas
    cells_are_large = vectors.height * cell >= sides[0] * MACROBLOCK and vectors.width * cell >= sides[1] * MACROBLOCK
    if cells_are_large and (vectors.blocks[:, _W : _H + 1] == MACROBLOCK).all():
        return MACROBLOCK
    return CODEC_CELL


def _codec_grid_shape(vectors: Vectors, pitch: int) -> tuple[int, int]:
    """Return the (rows, columns) of cells of `pitch` px, in whole macroblocks, so that every block lies inside.

    They cover the coded picture from its corner, which may be cropped away, to the last px of the shown picture.
    """
    cells_per_block = MACROBLOCK // pitch
    height, width = vectors.top + vectors.height, vectors.left + vectors.width
    return cells_per_block * -(-height // MACROBLOCK), cells_per_block * -(-width // MACROBLOCK)


def on_codec_grid(vectors: Vectors, motion_x: np.ndarray, motion_y: np.ndarray, pitch: int, dtype: type) -> np.ndarray:
    """Assign the displacement of every block to its cells of `pitch` px: (T, 2, rows, columns) of `dtype`.

    `motion_x`, `motion_y` (N,) point from a block to the place it is predicted from. If that is in the past, the
    content moved in the opposite direction. Cells without a block are zero.
    """
    grid: np.ndarray = np.zeros((len(vectors.frame_types), 2, *_codec_grid_shape(vectors, pitch)), dtype)
    moving = (motion_x != 0) | (motion_y != 0)
    future = vectors.blocks[:, _SOURCE] > 0
    if future.any():
        # a zero vector to the past overrides one to the future, so only future zeros may be left out
        _assign(grid, vectors, pitch, motion_x, motion_y, np.flatnonzero(future & moving))
        _assign(grid, vectors, pitch, -motion_x, -motion_y, np.flatnonzero(~future))
    else:
        _assign(grid, vectors, pitch, -motion_x, -motion_y, None if moving.all() else np.flatnonzero(moving))
    return grid


def _assign(
    grid: np.ndarray, vectors: Vectors, pitch: int, moved_x: np.ndarray, moved_y: np.ndarray, chosen: np.ndarray | None
) -> None:
    """Write the displacements (N,) of the chosen blocks (None: of all) into the grid (T, 2, rows, columns)."""
    bits = pitch.bit_length() - 1  # a shift takes a third of the time of an integer division
    cropped_x, cropped_y = vectors.left, vectors.top
    _, _, rows, columns = grid.shape
    w, h, x, y = (vectors.blocks[:, column] for column in (_W, _H, DST_X, DST_Y))
    frame = vectors.frame
    if chosen is not None:
        w, h, x, y, frame, moved_x, moved_y = (array.take(chosen) for array in (w, h, x, y, frame, moved_x, moved_y))
    left, top = (x - ((w >> 1) - cropped_x)) >> bits, (y - ((h >> 1) - cropped_y)) >> bits
    wide, high = w > pitch, h > pitch
    inside = (left >= 0) & (top >= 0) & (left + wide < columns) & (top + high < rows)
    if not inside.all():  # a cropped stream has macroblocks beyond the picture
        left, top, wide, high, frame, moved_x, moved_y = (
            array[inside] for array in (left, top, wide, high, frame, moved_x, moved_y)
        )
    first_cell = (frame * np.int64(2 * rows) + top) * columns + left
    flat = grid.reshape(-1)
    covered: list[tuple[int, np.ndarray | None]] = [
        (0, None)
    ]  # offset of a cell, and which blocks cover it (None: all)
    if pitch < MACROBLOCK:
        covered += [(1, wide), (columns, high), (columns + 1, wide & high)]
    for offset, covering in covered:
        chosen_blocks = slice(None) if covering is None else np.flatnonzero(covering)
        cells = first_cell[chosen_blocks] + offset
        flat[cells] = moved_x[chosen_blocks]
        flat[cells + rows * columns] = moved_y[chosen_blocks]


def on_canvas(
    values: np.ndarray,
    pitch: int,
    per_px: int,
    vectors: Vectors,
    canvas: tuple[int, int],
    cell: int,
    cropped: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Average displacements on the codec's grid over the cells of the canvas, rotate and scale them.

    Parameters
    ----------
    values : (T, 2, rows, columns), whole numbers, one per square of `pitch` px of the coded picture.
    per_px : how many units of `values` make a px.
    vectors : their size and orientation are used.
    cropped : px (down, right) at which the shown picture begins in `values`.

    Returns
    -------
    float64 (T, 2, rows, columns): dx, dy in px of the canvas, upright.
    """
    xx, xy, yx, yy = orientation = vectors.orientation
    size = (vectors.height, vectors.width)
    sides = canvas[::-1] if orientation.swaps else canvas  # the canvas in the coded picture's orientation
    mirrored = (xy < 0 or yy < 0, xx < 0 or yx < 0)  # rows, columns
    edges = [axis_edges(size[axis], sides[axis], cell, pitch, mirrored[axis], cropped[axis]) for axis in (0, 1)]
    summed = values
    for axis in (1, 0) if edges[0].rest.any() else (0, 1):  # the cheaper order; the sums are the same
        summed = integrate_between(summed, edges[axis], axis=2 + axis)
    area = np.outer(edges[0].lengths, edges[1].lengths) * per_px
    summed = summed * np.stack([sides[1] / size[1] / area, sides[0] / size[0] / area])
    if orientation == AS_CODED:
        return summed
    dx, dy = (orientation.upright(summed[:, component], (1, 2)) for component in (0, 1))
    return np.stack([xx * dx + xy * dy, yx * dx + yy * dy], axis=1)
