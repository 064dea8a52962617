"""Draw pictures of clips for the report page, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from moclip.drawing.animation import write_animation
from moclip.drawing.colours import direction_colours, enlarge, overlay, readable_limit
from moclip.video.decoding import assumed_rate, open_pictures, open_stream
from moclip.video.frames import each_picture, read_frames
from moclip.video.geometry import upright_frame

WIDTH = 240  # px of the gallery's pictures
MAX_FRAMES = 36  # of an animation
MAX_SECONDS = 4.0  # of an animation
FADING = 0.8  # share of a vector that is left a frame later, where no longer one replaces it
JPEG_QUALITY = 72


def still_uri(path: Path, frame: int, seekable: bool = False) -> str:
    """Return a frame of a file as a data URI, JPEG. `seekable` is as for `read_pictures`. Raises VideoError."""
    picture = Image.fromarray(read_frames(path, [frame], seekable)[0])
    size = WIDTH, max(1, round(WIDTH * picture.height / picture.width))
    content = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(content, "jpeg", quality=JPEG_QUALITY)
    return _data_uri(content.getvalue(), "image/jpeg")


def motion_uri(path: Path, fields: np.ndarray, first: int = 0, seekable: bool = False) -> str:
    """Return the motion of a clip over its dimmed pictures as a data URI, animated WebP. Raises VideoError.

    `fields` (T, 2, rows, columns) are in px of their canvas, and of the file's frames from `first` on. Hue is the
    direction, brightness the length. Vectors fade over some frames, because I-frames have none and B-frames few. There
    are at most `MAX_FRAMES` pictures, evenly spaced, so long clips play faster.
    """
    limit = readable_limit(np.hypot(fields[:, 0], fields[:, 1]))
    step = -(-len(fields) // MAX_FRAMES)
    faded = fade_motion(fields)
    with _pictures_from(path, first, len(fields), step, seekable) as (rate, frames), TemporaryDirectory() as folder:
        pictures = _motion_pictures(frames, faded, limit, step)
        target = Path(folder) / "motion.webp"
        write_animation(target, pictures, max(float(rate) / step, len(fields) / step / MAX_SECONDS))
        return _data_uri(target.read_bytes(), "image/webp")


@contextmanager
def _pictures_from(
    path: Path, first: int, count: int, step: int, seekable: bool
) -> Iterator[tuple[Fraction, Iterator[tuple[int, Any]]]]:
    """Yield a file's frames per second, and the pictures of every `step`th of `count` frames with their numbers.

    Numbers count from `first`. If that is 0, the pictures of all frames are yielded.
    """
    if not first:
        with open_pictures(path) as (rate, frames):
            yield rate, enumerate(frames)
        return
    with open_stream(path) as (_, stream):
        rate = assumed_rate(stream)
    found = each_picture(path, range(first, first + count, step), seekable, upright_frame)
    yield rate, ((number - first, picture) for number, picture in found)


def fade_motion(fields: np.ndarray) -> np.ndarray:
    """Replace each cell's vector by `FADING` times the one before, where that is longer; same shape as `fields`."""
    faded = fields.copy()
    for before, current in pairwise(faded):
        rest = FADING * before
        longer = np.hypot(*rest) > np.hypot(*current)
        current[:, longer] = rest[:, longer]
    return faded


def _motion_pictures(
    frames: Iterator[tuple[int, Any]], fields: np.ndarray, limit: float, step: int
) -> Iterator[np.ndarray]:
    for number, picture in frames:
        if number >= len(fields):
            return
        if number % step == 0:
            height = max(1, round(WIDTH * picture.height / picture.width))
            frame = picture.reformat(WIDTH, height, "rgb24").to_ndarray()
            yield overlay(frame, enlarge(direction_colours(fields[number], limit), (height, WIDTH)))


def colour_wheel_uri(size: int = 96) -> str:
    """Return the colours of all directions as a data URI, PNG: motion to the right has the colour at the right."""
    y, x = np.mgrid[:size, :size] * 2 / (size - 1) - 1
    inside = np.hypot(x, y) <= 1
    colours = direction_colours(np.stack([x, y]) * inside, 1.0)
    content = io.BytesIO()
    Image.fromarray(np.dstack([colours, np.uint8(255) * inside])).save(content, "png")
    return _data_uri(content.getvalue(), "image/png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
