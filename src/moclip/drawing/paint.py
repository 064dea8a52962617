"""Draw a motion field in one of the styles, over a frame or alone."""

from __future__ import annotations

import numpy as np

from moclip.drawing.arrows import draw_arrows
from moclip.drawing.colours import CELL, COLOURS, enlarge, overlay
from moclip.drawing.styles import Style

MIN_WIDTH = 640  # px: smaller clips are enlarged by a whole factor, to make arrows and text readable


def paint_field(
    style: Style, frame: np.ndarray | None, field: np.ndarray, limit: float, size: tuple[int, int]
) -> np.ndarray:
    """Draw a field in a style, over a frame or alone on black.

    Parameters
    ----------
    frame : uint8 (height, width, 3) of the clip, or None; the style "components" takes none.
    field : (2, rows, columns) in px; a cell is `CELL` px of the clip.
    limit : px at full strength.
    size : (height, width) of the clip in px.

    Returns
    -------
    uint8 (height, width, 3), enlarged by `enlargement`.
    """
    factor = enlargement(size[1])
    height, width = (side * factor for side in size)
    background = None if frame is None else enlarge(frame, (height, width), smooth=True)
    if style == "arrows":
        black = np.zeros((height, width, 3), np.uint8)
        return draw_arrows(black if background is None else background, field, limit, CELL * factor)
    colours = COLOURS[style](field, limit)
    rows, columns = (cells * CELL * factor for cells in colours.shape[:2])
    colours = enlarge(colours, (rows, columns))[:height, :width]  # the last cells may reach over the edge
    return colours if background is None else overlay(background, colours)


def enlargement(width: int) -> int:
    """Return the factor by which a clip `width` px wide is enlarged."""
    return -(-MIN_WIDTH // width)
