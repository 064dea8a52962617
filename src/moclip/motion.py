"""From motion vectors to dense motion fields: the arithmetic between `video` and `store`, numpy only.

A field holds, for each cell of a grid over the canonical canvas, how far the content moved since the previous
frame, (dx, dy) in px of the canvas.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from moclip.video import AS_CODED, B_FRAME, I_FRAME, MACROBLOCK, Vectors

CODEC_CELL = 8  # px: FFmpeg exports blocks of 16 or 8 px only, so a cell of 8 has at most one vector per direction
LEVELS = 127  # of int8 on either side of zero
ACCUMULATE = (False, "grid", "pixel")

_SOURCE, _W, _H, _SRC_X, _SRC_Y, _DST_X, _DST_Y, _MOTION_X, _MOTION_Y, _SCALE = range(10)


def grid_shape(canvas: tuple[int, int], cell: int) -> tuple[int, int]:
    """Cells of a canvas (height, width) in px: (rows, columns); the last ones may reach over the edge."""
    return -(-canvas[0] // cell), -(-canvas[1] // cell)


def fields(
    windows: Iterable[Vectors], canvas: tuple[int, int], cell: int, accumulate: bool | str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield fields (T, 2, rows, columns) in px and frame types (T,) for each window of a video, in order.

    `accumulate` (one of `ACCUMULATE`) traces them back to their I-frame, on the grid or pixel by pixel.
    """
    trace: np.ndarray | None = None
    for vectors in windows:
        if accumulate == "pixel":
            moved, trace = accumulate_pixels(vectors, canvas, cell, trace)
        else:
            moved = field(vectors, canvas, cell)
        if accumulate == "grid":
            moved = accumulate_grid(moved, vectors.frame_types, canvas, cell, trace)
            trace = last_trace(moved, vectors.frame_types, trace)
        yield moved, vectors.frame_types


def field(vectors: Vectors, canvas: tuple[int, int] = (240, 320), cell: int = CODEC_CELL) -> np.ndarray:
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
    units = _on_codec_grid(vectors, motion_x, motion_y, pitch, np.int32)
    return _on_canvas(units, pitch, per_px, vectors, canvas, cell, cropped=(vectors.top, vectors.left))


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


def _on_codec_grid(vectors: Vectors, motion_x: np.ndarray, motion_y: np.ndarray, pitch: int, dtype: type) -> np.ndarray:
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
    w, h, x, y = (vectors.blocks[:, column] for column in (_W, _H, _DST_X, _DST_Y))
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


def _on_canvas(
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
    edges = [_edges(size[axis], sides[axis], cell, pitch, mirrored[axis], cropped[axis]) for axis in (0, 1)]
    summed = values
    for axis in (1, 0) if edges[0].rest.any() else (0, 1):  # the order that leaves less to do; the sums are the same
        summed = _between(summed, edges[axis], axis=2 + axis)
    area = np.outer(edges[0].lengths, edges[1].lengths) * per_px
    summed = summed * np.stack([sides[1] / size[1] / area, sides[0] / size[0] / area])
    if turn == AS_CODED:
        return summed
    dx, dy = (turn.upright(summed[:, component], (1, 2)) for component in (0, 1))
    return np.stack([xx * dx + xy * dy, yx * dx + yy * dy], axis=1)


_WIDER = {"i": np.int64, "f": np.float64}  # what sums of whole numbers are kept in, by the kind of their type


class _Edges(NamedTuple):
    """Edges of the canvas's cells on one axis of the coded picture's grid, in whole units of length.

    Edge j lies in grid cell `cell[j]`, `rest[j]` units from its start; a grid cell is `width` units wide, and
    `lengths` are the canvas cells' own, of their part inside the canvas.
    """

    cell: np.ndarray
    rest: np.ndarray
    width: int
    lengths: np.ndarray


@functools.lru_cache(maxsize=64)
def _edges(side: int, canvas: int, cell: int, pitch: int, mirrored: bool, cropped: int) -> _Edges:
    at = np.minimum(np.arange(-(-canvas // cell) + 1) * cell, canvas) * side
    if mirrored:
        at = canvas * side - at[::-1]
    at = at + canvas * cropped
    width = pitch * canvas
    unit = np.gcd.reduce([*at, width])
    number, rest = np.divmod(at // unit, width // unit)
    return _Edges(number, rest, int(width // unit), np.diff(at // unit))


def _between(values: np.ndarray, edges: _Edges, axis: int) -> np.ndarray:
    """Integrate `values`, constant in each grid cell, between neighbouring edges along an axis.

    Whole numbers below 2**53 throughout: the sums are exact, and the bytes stored the same on any machine. (Products
    with a matrix of overlaps take as long on one thread, and ten times as long on two.)
    """
    whole = _sums(values, edges.cell, axis)
    if not edges.rest.any():  # no edge cuts a grid cell, and that is the unit
        return whole
    last = np.minimum(edges.cell, values.shape[axis] - 1)  # the canvas's far edge may lie behind the last cell
    rest = values.take(last, axis) * edges.rest.reshape(-1, *[1] * (values.ndim - axis - 1)).astype(np.float64)
    return whole * float(edges.width) + np.diff(rest, axis=axis)


def _sums(values: np.ndarray, bounds: np.ndarray, axis: int) -> np.ndarray:
    """Sum `values` from each of the bounds to the next one, along an axis: the first of each, the second of each..."""
    spans = np.diff(bounds)
    before: tuple[Any, ...] = (slice(None),) * axis
    if (spans == spans[0]).all() and spans[0] > 0:
        parts = [values[(*before, slice(bounds[0] + k, bounds[-1], spans[0]))] for k in range(spans[0])]
        if len(parts) == 1:
            return parts[0]
        total = np.add(parts[0], parts[1], dtype=_WIDER[values.dtype.kind])
        for part in parts[2:]:
            total += part
        return total
    shape = (*values.shape[:axis], len(spans), *values.shape[axis + 1 :])
    total = np.zeros(shape, _WIDER[values.dtype.kind])
    for k in range(spans.max()):
        longer = np.flatnonzero(spans > k)
        total[(*before, longer)] += values.take(bounds[longer] + k, axis)
    return total


# ---------------------------------------------------------------------------------------------- accumulation


def accumulate_grid(
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


def accumulate_pixels(
    vectors: Vectors,
    canvas: tuple[int, int] = (240, 320),
    cell: int = CODEC_CELL,
    before: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Trace each pixel of the coded picture back to the last I-frame, and average over the canvas's cells.

    As CoViAR's loader does (arXiv 1712.00636, section 3.2), in whole px: a block's source is where FFmpeg says it is,
    `src`, with the fraction of a px cut off. A pixel of a block that moves takes the trace, in the last I- or
    P-frame, of its source, plus the way from there. All others keep the trace that was there before: blocks whose
    source is the same place, intra blocks, and pixels whose source lies outside the picture. I-frames are zero.
    B-frames, which CoViAR does not have, are traced but nothing is traced through them; a reference in the future
    counts, mirrored, where no past one covers the pixel.

    Parameters
    ----------
    vectors, canvas, cell : as for `field`.
    before : what the call for the frames before these gave as `last`; nothing: the video starts here.

    Returns
    -------
    fields : float64 (T, 2, rows, columns) in px of the canvas.
    last : int16 (height * width, 2), the trace in coded px that frames after these ones are traced through.
    """
    height, width = vectors.height, vectors.width
    blocks = vectors.blocks
    way_x, way_y = blocks[:, _SRC_X] - blocks[:, _DST_X], blocks[:, _SRC_Y] - blocks[:, _DST_Y]
    steps = _on_codec_grid(vectors, way_x, way_y, CODEC_CELL, np.int16)
    last = np.zeros((height * width, 2), np.int16) if before is None else before
    fields = np.zeros((len(steps), 2, *grid_shape(canvas, cell)))
    for moved, step, kind in zip(fields, steps, vectors.frame_types, strict=True):
        trace = np.zeros_like(last) if kind == I_FRAME else _traced(last, step, vectors)
        if trace.any():
            image = trace.reshape(1, height, width, 2).transpose(0, 3, 1, 2)
            moved[:] = _on_canvas(image, 1, 1, vectors, canvas, cell)[0]
        if kind != B_FRAME:
            last = trace
    return fields, last


def _traced(last: np.ndarray, step: np.ndarray, vectors: Vectors) -> np.ndarray:
    """Follow one frame's steps (2, rows, columns), whole px on the codec's grid, through the trace before it."""
    height, width = vectors.height, vectors.width
    rows, columns = np.nonzero(step.any(0))
    if not len(rows):
        return last
    within = np.arange(CODEC_CELL, dtype=np.int32)
    y = np.repeat(rows.astype(np.int32)[:, None] * CODEC_CELL - vectors.top + within, CODEC_CELL, axis=1)
    x = np.tile(columns.astype(np.int32)[:, None] * CODEC_CELL - vectors.left + within, CODEC_CELL)
    moved = step[:, rows, columns]
    from_x, from_y = x - moved[0][:, None], y - moved[1][:, None]
    shown = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    kept = shown & (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    to, source = (y * width + x)[kept], (from_y * width + from_x)[kept]
    trace = last.copy()
    trace[to] = last[source] + np.repeat(moved.T, CODEC_CELL**2, axis=0)[kept.reshape(-1)]
    return trace


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
