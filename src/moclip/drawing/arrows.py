"""Draw motion fields as arrows over a dimmed frame."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from moclip.drawing.colours import BLACK, CELL, FRAME_DIM, YELLOW

SUPERSAMPLING = 2  # arrows are drawn this many times larger, then reduced, for smooth edges
MOST_ARROWS_IN_ROW = 48  # where there are more cells, several share an arrow
LONGEST_IN_SPACINGS, LONGEST_IN_WIDTHS = 2.0, 1 / 16  # the longest arrow: the smaller of both
SHORTEST = 0.1  # of the longest: shorter arrows would be dots without a direction


def draw_arrows(frame: np.ndarray, field: np.ndarray, limit: float, cell: float = CELL) -> np.ndarray:
    """Draw a field as arrows over a dimmed frame, each in the middle of the cells whose mean vector it shows.

    Parameters
    ----------
    frame : uint8 (height, width, 3), RGB.
    field : (2, rows, columns), dx and dy in px.
    limit : px that the longest arrow stands for; longer vectors get the same arrow.
    cell : side of the field's cells in px of the frame.

    Returns
    -------
    uint8 (height, width, 3), RGB.
    """
    width = frame.shape[1]
    group = _cells_per_arrow(width, cell)
    vectors = _group_means(field, group) / limit
    centres = (np.indices(vectors.shape[1:])[::-1] + 0.5) * (group * cell)
    image = Image.fromarray(frame).point([round(level * FRAME_DIM) for level in range(256)] * 3)
    paint_arrows(image, centres.reshape(2, -1), vectors.reshape(2, -1), longest_arrow(width, cell))
    return np.asarray(image)


def _cells_per_arrow(width: int, cell: float) -> int:
    """Return the side in cells of the square that shares an arrow: whole macroblocks, most of which have one vector."""
    return 2 * max(1, math.ceil(width / MOST_ARROWS_IN_ROW / (2 * cell)))


def longest_arrow(width: int, cell: float) -> float:
    """Return the length of the longest arrow in px of a picture `width` px wide."""
    return min(LONGEST_IN_SPACINGS * _cells_per_arrow(width, cell) * cell, LONGEST_IN_WIDTHS * width)


def _group_means(field: np.ndarray, group: int) -> np.ndarray:
    """Return the means over squares of `group` cells, (2, rows, columns); the last squares repeat the edge."""
    _, rows, columns = field.shape
    padded = np.pad(field, ((0, 0), (0, -rows % group), (0, -columns % group)), mode="edge")
    return padded.reshape(2, padded.shape[1] // group, group, -1, group).mean(axis=(2, 4))


def paint_arrows(image: Image.Image, centres: np.ndarray, vectors: np.ndarray, longest: float) -> None:
    """Draw arrows into an image.

    centres : (2, N), x and y of their middles in px.
    vectors : (2, N); a vector of length 1 or more gives an arrow of `longest` px.
    """
    lengths = np.hypot(*vectors)
    drawn = lengths >= SHORTEST
    lengths, centres, directions = lengths[drawn], centres[:, drawn], vectors[:, drawn] / lengths[drawn]
    spans = np.minimum(lengths, 1) * longest
    thickness = image.width / 320
    for colour, rim in ((BLACK, thickness / 2), (YELLOW, 0.0)):  # the black rim is visible on a bright background
        mask = Image.new("L", (image.width * SUPERSAMPLING, image.height * SUPERSAMPLING))
        pen = ImageDraw.Draw(mask)
        for outline in (_outlines(centres, directions, spans, thickness, rim) * SUPERSAMPLING).tolist():
            pen.polygon(outline, fill=255)
        image.paste(colour, mask=mask.reduce(SUPERSAMPLING))


def _outlines(
    centres: np.ndarray, directions: np.ndarray, spans: np.ndarray, thickness: float, rim: float
) -> np.ndarray:
    """Return arrows as polygons of seven corners, x and y in turn, (N, 14), enlarged by `rim` px on all sides."""
    head = np.minimum(0.6 * spans, 5 * thickness)
    half = np.minimum(thickness / 2, head / 4) + rim
    across = np.stack([-directions[1], directions[0]])
    tail, tip = centres - directions * (spans / 2 + rim), centres + directions * (spans / 2 + 1.6 * rim)
    neck = centres + directions * (spans / 2 - head - rim)
    wing = across * (0.5 * head + 1.2 * rim)
    side = across * half
    corners = [tail + side, neck + side, neck + wing, tip, neck - wing, neck - side, tail - side]
    return np.stack(corners).transpose(2, 0, 1).reshape(-1, 14)
