"""Pictures of clips for the report page, as data URIs."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from moclip.drawing.animation import write_animation
from moclip.drawing.colours import direction_colours, enlarge, overlay, readable_limit
from moclip.video.decoding import open_pictures
from moclip.video.frames import read_frames

WIDTH = 240  # px of the gallery's pictures
FRAMES = 36  # of a motion picture, at most
SECONDS = 4.0  # that it takes, at most
FADING = 0.8  # what of a vector is left a frame later, where none takes its place
QUALITY = 72  # of JPEG


def still_uri(path: Path, frame: int) -> str:
    """A frame of a clip as a data URI, JPEG. Raises VideoError."""
    picture = Image.fromarray(read_frames(path, [frame])[0])
    size = WIDTH, max(1, round(WIDTH * picture.height / picture.width))
    content = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(content, "jpeg", quality=QUALITY)
    return _uri(content.getvalue(), "image/jpeg")


def motion_uri(path: Path, fields: np.ndarray) -> str:
    """The motion of a clip over its dimmed pictures as a data URI, animated WebP. Raises VideoError.

    `fields` (T, 2, rows, columns) are in px of their canvas. Hue tells the direction, brightness the length. Vectors
    fade over some frames: I-frames have none, and B-frames few. At most `FRAMES` pictures, evenly, so long clips play
    faster.
    """
    limit = readable_limit(np.hypot(fields[:, 0], fields[:, 1]))
    step = -(-len(fields) // FRAMES)
    held = fade_motion(fields)
    with open_pictures(path) as (rate, frames), tempfile.TemporaryDirectory() as folder:
        shown = _motion_pictures(frames, held, limit, step)
        target = Path(folder) / "motion.webp"
        write_animation(target, shown, max(float(rate) / step, len(fields) / step / SECONDS))
        return _uri(target.read_bytes(), "image/webp")


def fade_motion(fields: np.ndarray) -> np.ndarray:
    """Each cell's vector, or what is left of the one before where that is longer; same shape as `fields`."""
    faded = fields.copy()
    for before, now in pairwise(faded):
        rest = FADING * before
        longer = np.hypot(*rest) > np.hypot(*now)
        now[:, longer] = rest[:, longer]
    return faded


def _motion_pictures(frames: Iterator[Any], fields: np.ndarray, limit: float, step: int) -> Iterator[np.ndarray]:
    for number, (picture, field) in enumerate(zip(frames, fields, strict=False)):
        if number % step == 0:
            height = max(1, round(WIDTH * picture.height / picture.width))
            frame = picture.reformat(WIDTH, height, "rgb24").to_ndarray()
            yield overlay(frame, enlarge(direction_colours(field, limit), (height, WIDTH)))


def colour_wheel_uri(size: int = 96) -> str:
    """The colours of a motion picture's directions as a data URI, PNG: what moves to the right has the colour there."""
    y, x = np.mgrid[:size, :size] * 2 / (size - 1) - 1
    inside = np.hypot(x, y) <= 1
    colours = direction_colours(np.stack([x, y]) * inside, 1.0)
    content = io.BytesIO()
    Image.fromarray(np.dstack([colours, np.uint8(255) * inside])).save(content, "png")
    return _uri(content.getvalue(), "image/png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
