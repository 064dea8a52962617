"""Turn the vectors of a video into motion fields, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from moclip.motion.accumulate import accumulate_grid, accumulate_pixels, last_trace
from moclip.motion.field import motion_field
from moclip.video.vector_records import Vectors


def motion_fields(
    windows: Iterable[Vectors], canvas: tuple[int, int], cell: int, accumulate: bool | str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield fields (T, 2, rows, columns) in px and frame types (T,) for each window of a video, in order.

    `accumulate` (one of `ACCUMULATE`) traces them back to their I-frame, on the grid or pixel by pixel.
    """
    trace: np.ndarray | None = None
    for vectors in windows:
        if accumulate == "pixel":
            fields, trace = accumulate_pixels(vectors, canvas, cell, trace)
        else:
            fields = motion_field(vectors, canvas, cell)
        if accumulate == "grid":
            fields = accumulate_grid(fields, vectors.frame_types, canvas, cell, trace)
            trace = last_trace(fields, vectors.frame_types, trace)
        yield fields, vectors.frame_types
