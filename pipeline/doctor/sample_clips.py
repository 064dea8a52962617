"""Small clips with known motion, encoded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    pass


STEP = (3, 1)  # px a frame, right and down


def panning(frames: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Pictures (height, width) uint8 of a smooth random texture that moves by `STEP` from each to the next."""
    (height, width), (dx, dy) = size, STEP
    rng = np.random.default_rng(0)
    texture = rng.random((height + frames * dy, width + frames * dx))
    for axis in (0, 1):
        texture = np.mean([np.roll(texture, shift, axis) for shift in range(-2, 3)], axis=0)
    low, high = texture.min(), texture.max()
    levels = ((texture - low) * (255 / (high - low))).astype(np.uint8)
    for left in range(frames, 0, -1):
        yield levels[left * dy :, left * dx :][:height, :width].copy()


def encode(path: Path, pictures: Iterator[np.ndarray], encoder: str, options: Mapping[str, str] | None = None) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=25, options=dict(options or {}))
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape
                stream.pix_fmt = "yuv420p"
                stream.codec_context.max_b_frames = 0
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
