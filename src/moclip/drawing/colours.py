"""Turn motion fields into colours, by direction or by component."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops

from moclip.motion.field import CODEC_CELL

CELL = CODEC_CELL  # px of the clip, so that each cell lies on one block of the codec

YELLOW, BLACK, WHITE, DARK_GREY = (255, 225, 0), (0, 0, 0), (240, 240, 240), (24, 24, 28)
FRAME_DIM = 0.75  # brightness of the frame under arrows: yellow stands out on a white wall
GREY_DIM = 0.55  # brightness of the frame under colours: recognisable, and never as bright as what moves


def _direction_hues() -> np.ndarray:
    """Return 360 hues, one per degree clockwise from the right: float (360, 3), 0 to 255."""
    positions = np.cumsum([0, 15, 6, 4, 11, 13, 6])  # red, yellow, green, cyan, blue, magenta, red
    hues = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]]) * 255.0
    degrees = np.arange(360) * (positions[-1] / 360)
    return np.stack([np.interp(degrees, positions, channel) for channel in hues.T], axis=-1)


_DIRECTION_HUES = _direction_hues()


def direction_colours(fields: np.ndarray, limit: float) -> np.ndarray:
    """Colour a field by direction (hue) and length (brightness): black where nothing moves.

    The hues are those of Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011, which are
    spaced as the eye distinguishes them: right is red, down yellow, left blue-green, up violet.

    Parameters
    ----------
    fields : (..., 2, rows, columns), dx and dy in px.
    limit : px from which on a colour is at its brightest.

    Returns
    -------
    uint8 (..., rows, columns, 3), RGB.
    """
    # torchvision.utils.flow_to_image fades to white, which cannot be laid over a frame, and imports torch (2 s)
    dx, dy = np.moveaxis(fields, -3, 0)
    degrees = np.rint(np.degrees(np.arctan2(dy, dx))).astype(int) % 360
    strength = np.minimum(np.hypot(dx, dy) / limit, 1)
    return np.rint(_DIRECTION_HUES[degrees] * strength[..., None]).astype(np.uint8)


def component_colours(fields: np.ndarray, limit: float) -> np.ndarray:
    """Colour a field as `mv_tsn.FieldToRgb` does for an image classifier, before ImageNet's normalisation.

    dx in red and dy in green, mid-grey where they are zero; their length in blue, black where it is zero. Parameters
    and result are those of `direction_colours`.
    """
    scaled = np.clip(fields / limit, -1, 1)
    length = np.minimum(np.linalg.norm(scaled, axis=-3, keepdims=True), 1)
    channels = np.concatenate([(scaled + 1) / 2, length], axis=-3)
    return np.rint(np.moveaxis(channels, -3, -1) * 255).astype(np.uint8)


COLOURS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "hsv": direction_colours,
    "components": component_colours,
}


def readable_limit(lengths: np.ndarray, counts: np.ndarray | None = None) -> float:
    """Return the 95th percentile of the non-zero lengths, rounded up to 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15... px.

    `counts` says how often each length occurs; without it each occurs once.
    """
    moving = lengths > 0
    if counts is not None:
        moving &= counts > 0
    if not moving.any():
        return 1.0
    weights = None if counts is None else counts[moving]
    high = float(np.quantile(lengths[moving], 0.95, method="inverted_cdf", weights=weights))
    power = 10.0 ** math.floor(math.log10(max(high, 1.0)))
    return next(step * power for step in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0) if step * power >= high)


def enlarge(picture: np.ndarray, size: tuple[int, int], smooth: bool = False) -> np.ndarray:
    """Scale a picture, uint8 (rows, columns, 3), to `size` (height, width); cells stay squares unless `smooth`."""
    resampling = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize(size[::-1], resampling))


def overlay(frame: np.ndarray, colours: np.ndarray, dim: float = GREY_DIM) -> np.ndarray:
    """Lay colours, black where nothing moves, over a grey frame dimmed to `dim` of its brightness.

    Inputs and result are uint8 (height, width, 3), RGB. The brighter a colour, the less it shows of the frame.
    """
    top = Image.fromarray(colours)
    strength = functools.reduce(ImageChops.lighter, top.split())
    grey = Image.fromarray(frame).convert("L").point([round(level * dim) for level in range(256)])
    background = ImageChops.multiply(grey, ImageChops.invert(strength))
    return np.asarray(ImageChops.add(top, Image.merge("RGB", [background] * 3)))
