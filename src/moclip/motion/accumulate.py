"""Accumulated motion: each cell or pixel traced back to the last I-frame (CoViAR, arXiv 1712.00636, section 3.2)."""

from __future__ import annotations

import numpy as np

from moclip.motion.field import CODEC_CELL, DST_X, DST_Y, SRC_X, SRC_Y, grid_shape, on_canvas, on_codec_grid
from moclip.video.decoding import B_FRAME, I_FRAME
from moclip.video.vector_records import Vectors

ACCUMULATE = (False, "grid", "pixel")
"""The values of mv.accumulate."""


def accumulate_grid(
    fields: np.ndarray,
    frame_types: np.ndarray,
    canvas: tuple[int, int] = (240, 320),
    cell: int = CODEC_CELL,
    before: np.ndarray | None = None,
) -> np.ndarray:
    """Trace each cell back to the last I-frame, on the grid (CoViAR, arXiv 1712.00636, section 3.2).

    A cell's trace is its own displacement plus the trace of the cell its content came from, in the last I- or P-frame.
    Where that cell lies outside the picture, the vector is not followed and the cell keeps its trace of that frame.
    I-frames are zero. B-frames are traced, but nothing is traced through them.

    Parameters
    ----------
    fields : (T, 2, rows, columns) in px, from `motion_field`.
    frame_types : uint8 (T,), letters in ASCII.
    before : (2, rows, columns), the `last_trace` of the frames before these; None at the beginning of a video.

    Returns
    -------
    float64 (T, 2, rows, columns) in px.
    """
    rows, columns = fields.shape[2:]
    centre_y, centre_x = _centres(canvas[0], cell)[:, None], _centres(canvas[1], cell)[None, :]
    cell_y, cell_x = np.arange(rows)[:, None], np.arange(columns)[None, :]
    traces = np.zeros(fields.shape)
    last = np.zeros(fields.shape[1:]) if before is None else before
    for trace, field, frame_type in zip(traces, fields, frame_types, strict=True):
        if frame_type != I_FRAME:
            from_x, from_y = centre_x - field[0], centre_y - field[1]
            inside = (from_x >= 0) & (from_x < canvas[1]) & (from_y >= 0) & (from_y < canvas[0])
            source_x = np.where(inside, from_x // cell, cell_x).astype(np.intp)
            source_y = np.where(inside, from_y // cell, cell_y).astype(np.intp)
            trace[:] = last[:, source_y, source_x] + field * inside
        if frame_type != B_FRAME:
            last = trace
    return traces


def last_trace(traces: np.ndarray, frame_types: np.ndarray, before: np.ndarray | None = None) -> np.ndarray | None:
    """Return the trace of the last I- or P-frame, which the next frames are traced through."""
    references = np.flatnonzero(frame_types != B_FRAME)
    return traces[references[-1]].copy() if len(references) else before


def _centres(side: int, cell: int) -> np.ndarray:
    """Return the centres in px of the cells on an axis, each of its part inside the canvas."""
    edges = np.minimum(np.arange(-(-side // cell) + 1) * cell, side)
    return (edges[1:] + edges[:-1]) / 2


def accumulate_pixels(
    vectors: Vectors,
    canvas: tuple[int, int] = (240, 320),
    cell: int = CODEC_CELL,
    before: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Trace each pixel of the coded picture back to the last I-frame, and average over the canvas's cells.

    As in CoViAR's loader (arXiv 1712.00636, section 3.2), in whole px: a block's source is FFmpeg's `src`, with the
    fraction of a px cut off. A pixel of a moving block takes the trace of its source in the last I- or P-frame, plus
    the displacement from there. Other pixels keep the trace they had: in blocks that do not move, in intra blocks, and
    where the source lies outside the picture. I-frames are zero. B-frames, which CoViAR does not have, are traced, but
    nothing is traced through them. A reference in the future counts, mirrored, where no past one covers the pixel.

    Parameters
    ----------
    vectors, canvas, cell : as for `motion_field`.
    before : the `last` that was returned for the frames before these; None at the beginning of a video.

    Returns
    -------
    fields : float64 (T, 2, rows, columns) in px of the canvas.
    last : int16 (height * width, 2), the trace in coded px that the next frames are traced through.
    """
    height, width = vectors.height, vectors.width
    blocks = vectors.blocks
    to_source_x, to_source_y = blocks[:, SRC_X] - blocks[:, DST_X], blocks[:, SRC_Y] - blocks[:, DST_Y]
    steps = on_codec_grid(vectors, to_source_x, to_source_y, CODEC_CELL, np.int16)
    last = np.zeros((height * width, 2), np.int16) if before is None else before
    fields = np.zeros((len(steps), 2, *grid_shape(canvas, cell)))
    for field, step, frame_type in zip(fields, steps, vectors.frame_types, strict=True):
        trace = np.zeros_like(last) if frame_type == I_FRAME else _follow_step(last, step, vectors)
        if trace.any():
            image = trace.reshape(1, height, width, 2).transpose(0, 3, 1, 2)
            field[:] = on_canvas(image, 1, 1, vectors, canvas, cell)[0]
        if frame_type != B_FRAME:
            last = trace
    return fields, last


def _follow_step(last: np.ndarray, step: np.ndarray, vectors: Vectors) -> np.ndarray:
    """Add one frame's step (2, rows, columns), whole px on the codec's grid, to the trace before it."""
    height, width = vectors.height, vectors.width
    rows, columns = np.nonzero(step.any(0))
    if not len(rows):
        return last
    within = np.arange(CODEC_CELL, dtype=np.int32)
    y = np.repeat(rows.astype(np.int32)[:, None] * CODEC_CELL - vectors.top + within, CODEC_CELL, axis=1)
    x = np.tile(columns.astype(np.int32)[:, None] * CODEC_CELL - vectors.left + within, CODEC_CELL)
    moved = step[:, rows, columns]
    from_x, from_y = x - moved[0][:, None], y - moved[1][:, None]
    target_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    followed = target_inside & (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    target, source = (y * width + x)[followed], (from_y * width + from_x)[followed]
    trace = last.copy()
    trace[target] = last[source] + np.repeat(moved.T, CODEC_CELL**2, axis=0)[followed.reshape(-1)]
    return trace
