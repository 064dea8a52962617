"""Motion fields as arrows over a dimmed frame."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from moclip.drawing.colours import BLACK, CELL, FRAME_DIM, YELLOW

SUPERSAMPLED = 2  # arrows are drawn so many times larger, then reduced: smooth edges
ARROWS_A_ROW = 48  # at most; more cells then share one
REACH = 2.0, 1 / 16  # how far the longest arrow spans: in spacings, and at most in widths of the picture
SHORTEST = 0.1  # of the longest: shorter arrows would be dots without a direction


def draw_arrows(frame: np.ndarray, field: np.ndarray, limit: float, cell: float = CELL) -> np.ndarray:
    """Draw a field as arrows over a dimmed frame, each in the middle of the cells whose mean it shows.

    Parameters
    ----------
    frame : uint8 (height, width, 3), RGB.
    field : (2, rows, columns), dx and dy in px.
    limit : px that the longest arrow stands for, which longer vectors get too.
    cell : side of the field's cells in px of the frame.

    Returns
    -------
    uint8 (height, width, 3), RGB.
    """
    width = frame.shape[1]
    group = _cells_an_arrow(width, cell)
    ways = _grouped(field, group) / limit
    centres = (np.indices(ways.shape[1:])[::-1] + 0.5) * (group * cell)
    image = Image.fromarray(frame).point([round(level * FRAME_DIM) for level in range(256)] * 3)
    paint_arrows(image, centres.reshape(2, -1), ways.reshape(2, -1), longest_arrow(width, cell))
    return np.asarray(image)


def _cells_an_arrow(width: int, cell: float) -> int:
    """Cells on a side of the square that shares an arrow: whole macroblocks, which have one vector mostly."""
    return 2 * max(1, math.ceil(width / ARROWS_A_ROW / (2 * cell)))


def longest_arrow(width: int, cell: float) -> float:
    """How long an arrow is at full strength, in px of a picture `width` px wide."""
    return min(REACH[0] * _cells_an_arrow(width, cell) * cell, REACH[1] * width)


def _grouped(field: np.ndarray, group: int) -> np.ndarray:
    """The means over squares of `group` cells: (2, rows, columns); the last ones are filled up with the edge."""
    _, rows, columns = field.shape
    filled = np.pad(field, ((0, 0), (0, -rows % group), (0, -columns % group)), mode="edge")
    return filled.reshape(2, filled.shape[1] // group, group, -1, group).mean(axis=(2, 4))


def paint_arrows(image: Image.Image, centres: np.ndarray, ways: np.ndarray, longest: float) -> None:
    """Draw arrows with `centres` (2, N) in px; a way (2, N) of length 1 or more makes one of `longest` px."""
    lengths = np.hypot(*ways)
    seen = lengths >= SHORTEST
    lengths, centres, ways = lengths[seen], centres[:, seen], ways[:, seen] / lengths[seen]
    spans = np.minimum(lengths, 1) * longest
    thick = image.width / 320
    for colour, rim in ((BLACK, thick / 2), (YELLOW, 0.0)):  # the rim keeps it visible on bright ground
        mask = Image.new("L", (image.width * SUPERSAMPLED, image.height * SUPERSAMPLED))
        pen = ImageDraw.Draw(mask)
        for outline in (_outlines(centres, ways, spans, thick, rim) * SUPERSAMPLED).tolist():
            pen.polygon(outline, fill=255)
        image.paste(colour, mask=mask.reduce(SUPERSAMPLED))


def _outlines(centres: np.ndarray, ways: np.ndarray, spans: np.ndarray, thick: float, rim: float) -> np.ndarray:
    """Arrows as polygons of seven corners, x and y in turn, (N, 14); `rim` px wider than they are on all sides."""
    head = np.minimum(0.6 * spans, 5 * thick)
    half = np.minimum(thick / 2, head / 4) + rim
    across = np.stack([-ways[1], ways[0]])
    tail, tip = centres - ways * (spans / 2 + rim), centres + ways * (spans / 2 + 1.6 * rim)
    neck = centres + ways * (spans / 2 - head - rim)
    wing = across * (0.5 * head + 1.2 * rim)
    side = across * half
    corners = [tail + side, neck + side, neck + wing, tip, neck - wing, neck - side, tail - side]
    return np.stack(corners).transpose(2, 0, 1).reshape(-1, 14)
