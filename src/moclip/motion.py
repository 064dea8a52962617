"""From motion vectors to dense motion fields: the arithmetic between `video` and `store`, numpy only.

A field holds, for each cell of a grid over the canonical canvas, how far the content moved since the previous
frame, (dx, dy) in px of the canvas.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from moclip.video import B_FRAME, I_FRAME, Vectors

CODEC_CELL = 8  # px: FFmpeg exports blocks of 16 or 8 px only, so a cell of 8 has at most one vector per direction
LEVELS = 127  # of int8 on either side of zero

_SOURCE, _W, _H, _DST_X, _DST_Y, _MOTION_X, _MOTION_Y, _SCALE = 0, 1, 2, 5, 6, 7, 8, 9


def grid_shape(canvas: tuple[int, int], cell: int) -> tuple[int, int]:
    """Cells of a canvas (height, width) in px: (rows, columns); the last ones may reach over the edge."""
    return -(-canvas[0] // cell), -(-canvas[1] // cell)


def field(vectors: Vectors, canvas: tuple[int, int] = (240, 320), cell: int = CODEC_CELL) -> np.ndarray:
    """Turn the motion vectors of T frames into dense fields.

    The content's displacement is `-motion / motion_scale` for a reference in the past, `+` for one in the
    future, which counts only where no block with a past one (zero included) covers the cell. What no block
    covers is zero. The codec's own grid of 8 px is averaged onto the canvas's cells by area, counting their
    part inside the
    picture, and scaled as the picture is.

    Parameters
    ----------
    vectors : blocks of T frames of one video.
    canvas : (height, width) in px that every video is scaled to.
    cell : side of a cell in px of the canvas.

    Returns
    -------
    float64 (T, 2, rows, columns): dx, dy in px of the canvas.
    """
    units, per_px = _on_codec_grid(vectors)
    size = (vectors.height, vectors.width)
    edges_y, edges_x = (_edges(size[axis], canvas[axis], cell) for axis in (0, 1))
    summed = _between(_between(units, edges_y, axis=2), edges_x, axis=3)
    area = np.outer(edges_y.lengths, edges_x.lengths) * per_px
    return summed * np.stack([canvas[1] / size[1] / area, canvas[0] / size[0] / area])


def _on_codec_grid(vectors: Vectors) -> tuple[np.ndarray, int]:
    """Assign every block to its cells of 8 px: float64 (T, 2, rows, columns) in 1/units px, and those units.

    The grid is whole macroblocks (16 px), so that no block of a frame reaches over it.
    """
    rows, columns = (2 * -(-side // 16) for side in (vectors.height, vectors.width))
    grid = np.zeros((len(vectors.frame_types), 2, rows, columns))
    blocks, frame = vectors.blocks, vectors.frame
    if not len(blocks):
        return grid, 1
    per_px = _common_scale(blocks[:, _SCALE])
    moving = (blocks[:, _MOTION_X] != 0) | (blocks[:, _MOTION_Y] != 0)
    future = blocks[:, _SOURCE] > 0
    if future.any():
        # A zero vector to the past stands against one to the future, so only future zeros may be left out.
        _assign(grid, blocks[future & moving], frame[future & moving], per_px)
        _assign(grid, blocks[~future], frame[~future], -per_px)
    else:
        _assign(grid, blocks[moving], frame[moving], -per_px)
    return grid, per_px


def _common_scale(scales: np.ndarray) -> int:
    lowest, highest = int(scales.min()), int(scales.max())
    return lowest if lowest == highest else int(np.lcm.reduce(np.unique(scales)))


def _assign(grid: np.ndarray, blocks: np.ndarray, frame: np.ndarray, per_px: int) -> None:
    """Write blocks (N, 10) into the grid (T, 2, rows, columns), `motion` times `per_px` over its scale."""
    _, _, rows, columns = grid.shape
    left = (blocks[:, _DST_X] - blocks[:, _W] // 2) // CODEC_CELL
    top = (blocks[:, _DST_Y] - blocks[:, _H] // 2) // CODEC_CELL
    wide, high = blocks[:, _W] > CODEC_CELL, blocks[:, _H] > CODEC_CELL
    inside = (left >= 0) & (top >= 0) & (left + wide < columns) & (top + high < rows)
    if not inside.all():  # a cropped stream has macroblocks beyond the picture
        kept = np.flatnonzero(inside)
        return _assign(grid, blocks[kept], frame[kept], per_px)
    factor = per_px // blocks[:, _SCALE]
    flat = grid.reshape(-1)
    for component, column in enumerate((_MOTION_X, _MOTION_Y)):
        motion = blocks[:, column] * factor
        first = ((frame.astype(np.int64) * 2 + component) * rows + top) * columns + left
        flat[first] = motion
        flat[first[wide] + 1] = motion[wide]
        flat[first[high] + columns] = motion[high]
        both = wide & high
        flat[first[both] + columns + 1] = motion[both]
    return None


class _Edges(NamedTuple):
    """Edges of the canvas's cells on one axis of the codec's grid, in whole units of length.

    Edge j lies in codec cell `cell[j]`, `rest[j]` units from its start; a codec cell is `width` units wide, and
    `lengths` are the canvas cells' own, of their part inside the canvas.
    """

    cell: np.ndarray
    rest: np.ndarray
    width: int
    lengths: np.ndarray


@functools.lru_cache(maxsize=64)
def _edges(side: int, canvas: int, cell: int) -> _Edges:
    at = np.minimum(np.arange(-(-canvas // cell) + 1) * cell, canvas) * side
    width = CODEC_CELL * canvas
    unit = np.gcd.reduce([*at, width])
    number, rest = np.divmod(at // unit, width // unit)
    return _Edges(number, rest, int(width // unit), np.diff(at // unit))


def _between(values: np.ndarray, edges: _Edges, axis: int) -> np.ndarray:
    """Integrate `values`, constant in each codec cell, between neighbouring edges along an axis.

    Whole numbers below 2**53 throughout: the sums are exact, and the bytes stored the same on any machine. (Products
    with a matrix of overlaps take as long on one thread, and ten times as long on two.)
    """
    cells = len(edges.lengths)
    if not edges.rest.any() and np.array_equal(edges.cell, np.arange(cells + 1)):
        return np.take(values, range(cells), axis) * edges.width
    shape = list(values.shape)
    shape[axis] += 1
    before = np.zeros(shape)
    np.cumsum(values, axis, out=before[(slice(None),) * axis + (slice(1, None),)])
    last = np.minimum(edges.cell, values.shape[axis] - 1)  # the canvas's far edge may lie behind the last cell
    rest = edges.rest.reshape(-1, *[1] * (values.ndim - axis - 1))
    return np.diff(before.take(edges.cell, axis) * edges.width + values.take(last, axis) * rest, axis=axis)


# ---------------------------------------------------------------------------------------------- accumulation


def accumulate(
    fields: np.ndarray,
    frame_types: np.ndarray,
    canvas: tuple[int, int] = (240, 320),
    cell: int = CODEC_CELL,
    before: np.ndarray | None = None,
) -> np.ndarray:
    """Trace each cell back to the last I-frame, on the grid (CoViAR, arXiv 1712.00636, section 3.2).

    A cell's trace is its own displacement plus the trace, in the last I- or P-frame, of the cell where its
    content came from. Where that lies outside the picture the vector is not followed, and the cell keeps the
    trace that was there before. I-frames are zero. B-frames are traced but nothing is traced through them.

    Parameters
    ----------
    fields : (T, 2, rows, columns) in px, as `field` gives them.
    frame_types : uint8 (T,), letters in ASCII.
    before : (2, rows, columns), what `last_trace` gave for the frames before these; nothing: the video starts
        here.

    Returns
    -------
    float64 (T, 2, rows, columns) in px.
    """
    rows, columns = fields.shape[2:]
    centre_y, centre_x = _centres(canvas[0], cell)[:, None], _centres(canvas[1], cell)[None, :]
    cell_y, cell_x = np.arange(rows)[:, None], np.arange(columns)[None, :]
    traces = np.zeros(fields.shape)
    last = np.zeros(fields.shape[1:]) if before is None else before
    for trace, moved, kind in zip(traces, fields, frame_types, strict=True):
        if kind != I_FRAME:
            from_x, from_y = centre_x - moved[0], centre_y - moved[1]
            inside = (from_x >= 0) & (from_x < canvas[1]) & (from_y >= 0) & (from_y < canvas[0])
            source_x = np.where(inside, from_x // cell, cell_x).astype(np.intp)
            source_y = np.where(inside, from_y // cell, cell_y).astype(np.intp)
            trace[:] = last[:, source_y, source_x] + moved * inside
        if kind != B_FRAME:
            last = trace
    return traces


def last_trace(traces: np.ndarray, frame_types: np.ndarray, before: np.ndarray | None = None) -> np.ndarray | None:
    """The trace that frames after these ones are traced through: that of the last I- or P-frame."""
    references = np.flatnonzero(frame_types != B_FRAME)
    return traces[references[-1]].copy() if len(references) else before


def _centres(side: int, cell: int) -> np.ndarray:
    """Centres in px of an axis's cells, of their part inside the canvas."""
    edges = np.minimum(np.arange(-(-side // cell) + 1) * cell, side)
    return (edges[1:] + edges[:-1]) / 2


# --------------------------------------------------------------------------------------------------- storage


def quantise(fields: np.ndarray, clip: float = 20.0) -> np.ndarray:
    """Round fields in px to int8: ±127 stands for ±`clip` px and all beyond; -128 never occurs."""
    levels = fields * (LEVELS / clip)
    np.rint(levels, out=levels)
    np.clip(levels, -LEVELS, LEVELS, out=levels)
    return levels.astype(np.int8)


def dequantise(levels: np.ndarray, clip: float = 20.0) -> np.ndarray:
    """Give int8 fields back in px, float32 of the same shape, within clip / 254 of what was stored."""
    return levels.astype(np.float32) * np.float32(clip / LEVELS)
