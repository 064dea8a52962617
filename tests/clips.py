"""Encode small clips for tests: any codec, size, B-frames, GOP; textured content that moves by a known amount."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def moving_texture(
    frames: int, size: tuple[int, int], step: tuple[float, float] = (3.0, 1.0), seed: int = 0
) -> np.ndarray:
    """Frames of a smooth random texture with a square going the other way: uint8 (frames, height, width, 3).

    `size` is (height, width); the texture moves by `step` (dx, dy) px a frame, so it is that which codecs find.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    tile = _smooth(rng.integers(0, 256, (height + 64, width + 64, 3)).astype(float))
    square = rng.integers(0, 256, (max(8, height // 4), max(8, width // 4), 3))
    film = np.empty((frames, height, width, 3), np.uint8)
    for number in range(frames):
        dx, dy = (round(step[axis] * number) for axis in (0, 1))
        film[number] = np.roll(tile, (dy, dx), (0, 1))[:height, :width]
        top, left = (height // 3 - dy) % (height // 2), (width // 3 - 2 * dx) % (width // 2)
        film[number, top : top + len(square), left : left + square.shape[1]] = square
    return film


def _smooth(image: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        image = np.mean([np.roll(image, shift, axis) for shift in range(-2, 3)], axis=0)
    low, high = image.min(), image.max()
    return (image - low) * (255 / (high - low))


def encode(
    path: Path,
    film: np.ndarray,
    codec: str = "mpeg4",
    *,
    gop: int = 12,
    b_frames: int = 0,
    fps: int | Fraction = 25,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    skip_times: tuple[int, ...] = (),
) -> Path:
    """Encode `film`, uint8 (frames, height, width, 3), into `path` (the suffix names the container).

    `skip_times` leaves gaps in the time stamps before these frames (variable frame rate).
    """
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.time_base = 1 / Fraction(fps)
        stream.options = {"threads": "1", **_quality(codec, b_frames), **(options or {})}
        time = 0
        for number, image in enumerate(film):
            time += 3 if number in skip_times else 1
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _quality(codec: str, b_frames: int) -> dict[str, str]:
    if codec == "libx264":
        return {"crf": "20", "preset": "medium", "sc_threshold": "0", "x264-params": f"bframes={b_frames}"}
    if codec == "libx265":
        return {"x265-params": "log-level=none:pools=1:frame-threads=1"}
    return {"qscale": "3", "flags": "+qscale", "global_quality": str(3 * 118)}
