"""Draw the strip below a picture that explains its colours or arrows."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from moclip.drawing.arrows import longest_arrow, paint_arrows
from moclip.drawing.colours import CELL, COLOURS, DARK_GREY, WHITE
from moclip.drawing.styles import Style


def draw_legend(style: Style, limit: float, width: int, cell: float = CELL, captions: Sequence[str] = ()) -> np.ndarray:
    """Draw the legend of a picture.

    Parameters
    ----------
    limit : px at full strength.
    width : px of the picture.
    cell : side of the field's cells in px of the picture.
    captions : lines of text for the right end.

    Returns
    -------
    uint8 (height, width, 3); the height is even and depends only on the width.
    """
    image = _draw_scale(style, limit, width, cell).copy()
    _write_lines(image, captions, (width - 8 * length_unit(width), image.height / 2), "rm")
    return np.asarray(image)


def length_unit(width: int) -> float:
    """Return the unit of lengths in a legend, in px."""
    return width / 480


@functools.lru_cache(maxsize=8)
def _draw_scale(style: Style, limit: float, width: int, cell: float) -> Image.Image:
    """Draw a legend without captions: the colours or an arrow, and the px that they stand for."""
    unit = length_unit(width)
    height = 2 * round(21 * unit)
    image = Image.new("RGB", (width, height), DARK_GREY)
    key = _draw_arrow_key(width, cell, height) if style == "arrows" else _draw_disc(style, height - round(6 * unit))
    image.paste(Image.fromarray(key), (round(8 * unit), (height - len(key)) // 2))
    left = 16 * unit + key.shape[1]
    if style == "components":
        _paste_bars(image, left, limit)
    else:
        text = f"{limit:g} px a frame, or more"
        text = f"colour: where to; brightest: {text}" if style == "hsv" else text
        _write_lines(image, (text,), (left, height / 2), "lm")
    return image


def _write_lines(image: Image.Image, lines: Sequence[str], position: tuple[float, float], anchor: str) -> None:
    """Write lines of text below each other; `position` is the left or right end of the middle of them all."""
    size = 12 * length_unit(image.width)
    pen = ImageDraw.Draw(image)
    x, middle = position
    for number, line in enumerate(lines):
        y = middle + (number - (len(lines) - 1) / 2) * size * 1.3
        pen.text((x, y), line, WHITE, _font(round(size)), anchor)


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _draw_disc(style: Style, side: int) -> np.ndarray:
    """Draw the colours of vectors in all directions, zero in the middle: uint8 (side, side, 3)."""
    positions = (np.arange(side) + 0.5) * 2 / side - 1
    field = np.stack(np.meshgrid(positions, positions))
    disc = np.hypot(*field) <= 1
    return np.where(disc[..., None], COLOURS[style](field, 1), np.array(DARK_GREY, np.uint8))


def _draw_arrow_key(width: int, cell: float, height: int) -> np.ndarray:
    """Draw the longest arrow of a picture of this width, pointing right: uint8 (height, its length, 3)."""
    longest = longest_arrow(width, cell)
    image = Image.new("RGB", (width, height), DARK_GREY)
    paint_arrows(image, np.array([[width / 2], [height / 2]]), np.array([[1.0], [0.0]]), longest)
    half = math.ceil(longest / 2 + 2 * length_unit(width))
    return np.asarray(image)[:, width // 2 - half : width // 2 + half]


def _paste_bars(image: Image.Image, left: float, limit: float) -> None:
    """Paste the scales of the three components, red, green and blue, from x = `left` on."""
    unit = length_unit(image.width)
    width, height = round(68 * unit), round(9 * unit)
    for channel, name in enumerate((f"dx ±{limit:g} px", f"dy ±{limit:g} px", f"length {limit:g} px")):
        bar = np.zeros((height, width, 3), np.uint8)
        bar[..., channel] = np.linspace(0, 255, width)
        image.paste(Image.fromarray(bar), (round(left), round(25 * unit)))
        _write_lines(image, (name,), (left, 14 * unit), "lm")
        left += 80 * unit
