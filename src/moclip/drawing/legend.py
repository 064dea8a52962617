"""The strip below a picture that says what its colours or arrows mean."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from moclip.drawing.arrows import longest_arrow, paint_arrows
from moclip.drawing.colours import CELL, COLOURS, INK, WHITE
from moclip.drawing.styles import Style


def draw_legend(style: Style, limit: float, width: int, cell: float = CELL, aside: Sequence[str] = ()) -> np.ndarray:
    """A strip to be put below a picture, `width` px wide, of this style, limit and cell (in px of the picture).

    It shows the colours, or an arrow, with the px a frame that they stand for, and `aside`, lines of text, at the
    right. uint8 (height, width, 3); the height follows from the width, and is even.
    """
    image = _scale(style, limit, width, cell).copy()
    _write(image, aside, (width - 8 * length_unit(width), image.height / 2), "rm")
    return np.asarray(image)


def length_unit(width: int) -> float:
    """The px that lengths in a legend are multiples of."""
    return width / 480


@functools.lru_cache(maxsize=8)
def _scale(style: Style, limit: float, width: int, cell: float) -> Image.Image:
    unit = length_unit(width)
    high = 2 * round(21 * unit)
    image = Image.new("RGB", (width, high), INK)
    key = _arrow_picture(width, cell, high) if style == "arrows" else _disc(style, high - round(6 * unit))
    image.paste(Image.fromarray(key), (round(8 * unit), (high - len(key)) // 2))
    left = 16 * unit + key.shape[1]
    if style == "components":
        _paste_bars(image, left, limit)
    else:
        said = f"{limit:g} px a frame, or more"
        _write(image, (f"colour: where to; brightest: {said}" if style == "hsv" else said,), (left, high / 2), "lm")
    return image


def _write(image: Image.Image, lines: Sequence[str], at: tuple[float, float], anchor: str) -> None:
    """Lines of text above each other, `at` being the left or right end of their middle."""
    size = 12 * length_unit(image.width)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        y = at[1] + (number - (len(lines) - 1) / 2) * size * 1.3
        pen.text((at[0], y), line, WHITE, _font(round(size)), anchor)


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _disc(style: Style, side: int) -> np.ndarray:
    """The colours of motion in all directions, uint8 (side, side, 3): none in the middle, to the right at the right."""
    at = (np.arange(side) + 0.5) * 2 / side - 1
    field = np.stack(np.meshgrid(at, at))
    disc = np.hypot(*field) <= 1
    return np.where(disc[..., None], COLOURS[style](field, 1), np.array(INK, np.uint8))


def _arrow_picture(width: int, cell: float, height: int) -> np.ndarray:
    """The longest arrow of a picture as wide, pointing right: uint8 (height, its length, 3)."""
    longest = longest_arrow(width, cell)
    image = Image.new("RGB", (width, height), INK)
    paint_arrows(image, np.array([[width / 2], [height / 2]]), np.array([[1.0], [0.0]]), longest)
    half = math.ceil(longest / 2 + 2 * length_unit(width))
    return np.asarray(image)[:, width // 2 - half : width // 2 + half]


def _paste_bars(image: Image.Image, left: float, limit: float) -> None:
    """The scales of the three components, red, green and blue, from `left` on."""
    unit = length_unit(image.width)
    wide, high = round(68 * unit), round(9 * unit)
    for channel, name in enumerate((f"dx ±{limit:g} px", f"dy ±{limit:g} px", f"length {limit:g} px")):
        bar = np.zeros((high, wide, 3), np.uint8)
        bar[..., channel] = np.linspace(0, 255, wide)
        image.paste(Image.fromarray(bar), (round(left), round(25 * unit)))
        _write(image, (name,), (left, 14 * unit), "lm")
        left += 80 * unit
