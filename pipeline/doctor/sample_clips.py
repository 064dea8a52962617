"""Encode small clips with known motion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

STEP = (3, 1)  # px a frame, right and down


def panning_pictures(frames: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield pictures (height, width) uint8 of a smooth random texture that moves by `STEP` per frame."""
    (height, width), (dx, dy) = size, STEP
    rng = np.random.default_rng(0)
    texture = rng.random((height + frames * dy, width + frames * dx))
    for axis in (0, 1):
        texture = np.mean([np.roll(texture, shift, axis) for shift in range(-2, 3)], axis=0)
    low, high = texture.min(), texture.max()
    levels = ((texture - low) * (255 / (high - low))).astype(np.uint8)
    for remaining in range(frames, 0, -1):
        yield levels[remaining * dy :, remaining * dx :][:height, :width].copy()


def encode(path: Path, pictures: Iterator[np.ndarray], encoder: str, options: Mapping[str, str] | None = None) -> None:
    """Encode grey pictures (height, width) uint8 at 25 frames per second, without B-frames unless `options` ask."""
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
