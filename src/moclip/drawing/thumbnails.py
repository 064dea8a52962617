"""Small pictures of a video of any length, evenly spaced, while it is decoded."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from moclip.video.geometry import read_orientation

WIDTH = 240  # px
MOST = 120  # pictures; of a longer video every second one is left out, again and again
SMALLEST_STEP = 0.5  # seconds
QUALITY = 70


class Thumbnail(NamedTuple):
    """A picture at `time` in seconds, as JPEG."""

    time: float
    jpeg: bytes


class Thumbnails:
    """Keeps at most `MOST` pictures of the frames that it sees in order."""

    def __init__(self) -> None:
        self.kept: list[Thumbnail] = []
        self._step = SMALLEST_STEP
        self._next = float("-inf")

    def see(self, time: float, picture: Any) -> None:
        """Take a decoded picture (PyAV's) if it is time for one."""
        if time < self._next:
            return
        self.kept.append(Thumbnail(time, _jpeg(picture)))
        if len(self.kept) > MOST:
            self.kept, self._step = self.kept[::2], 2 * self._step
        self._next = self.kept[-1].time + self._step


def _jpeg(picture: Any) -> bytes:
    height = max(2, round(WIDTH * picture.height / picture.width))
    content = io.BytesIO()
    small = picture.reformat(WIDTH, height, "rgb24", threads=1).to_ndarray()
    turned = read_orientation(picture).upright(small, (0, 1))
    Image.fromarray(np.ascontiguousarray(turned)).save(content, "jpeg", quality=QUALITY)
    return content.getvalue()
