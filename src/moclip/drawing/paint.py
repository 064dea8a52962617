"""A motion field in one of the styles, over a frame or alone."""

from __future__ import annotations

import numpy as np

from moclip.drawing.arrows import draw_arrows
from moclip.drawing.colours import CELL, COLOURS, enlarge, overlay
from moclip.drawing.styles import Style

LEAST_WIDTH = 640  # px: smaller clips are enlarged by a whole factor, or arrows and text could not be read


def paint_field(
    style: Style, frame: np.ndarray | None, field: np.ndarray, limit: float, size: tuple[int, int]
) -> np.ndarray:
    """Draw a field in a style, over a frame or alone on black.

    Parameters
    ----------
    frame : uint8 (height, width, 3) of the clip, or None; the style "components" takes none.
    field : (2, rows, columns) in px, a cell `CELL` px of the clip.
    limit : px at full strength.
    size : (height, width) of the clip in px.

    Returns
    -------
    uint8 (height, width, 3), enlarged as `enlargement` says.
    """
    times = enlargement(size[1])
    height, width = (side * times for side in size)
    ground = None if frame is None else enlarge(frame, (height, width), smooth=True)
    if style == "arrows":
        black = np.zeros((height, width, 3), np.uint8)
        return draw_arrows(black if ground is None else ground, field, limit, CELL * times)
    colours = COLOURS[style](field, limit)
    rows, columns = (cells * CELL * times for cells in colours.shape[:2])
    colours = enlarge(colours, (rows, columns))[:height, :width]  # the last cells may reach over the edge
    return colours if ground is None else overlay(ground, colours)


def enlargement(width: int) -> int:
    """How many times larger a clip is drawn."""
    return -(-LEAST_WIDTH // width)
