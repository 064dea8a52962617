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
    sound: bool = False,
    rotation: int = 0,
) -> Path:
    """Encode `film`, uint8 (frames, height, width, 3), into `path` (the suffix names the container).

    `skip_times` leaves gaps in the time stamps before these frames (variable frame rate), `sound` adds a stream in
    front of the video's, `rotation` (degrees, counterclockwise) asks players to turn the pictures.
    """
    with av.open(str(path), "w") as container:
        audio: Any = container.add_stream("mp2", rate=44100) if sound else None
        stream: Any = container.add_stream(codec, rate=fps)
        if rotation:
            stream.set_display_rotation(rotation)
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
        if audio:
            _add_noise(container, audio, len(film) / float(fps))
    return path


def _add_noise(container: Any, audio: Any, seconds: float) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, (1, int(seconds * 44100) * 2), np.int16)
    frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="stereo")
    frame.sample_rate = 44100
    container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def without_first_packets(path: Path, target: Path, count: int) -> Path:
    """Copy a video's packets but the first `count` of them: a clip that does not begin with a key frame."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= count:
                packet.stream = stream
                container.mux(packet)
    return target


def _quality(codec: str, b_frames: int) -> dict[str, str]:
    if codec == "libx264":
        return {"crf": "20", "preset": "medium", "sc_threshold": "0", "x264-params": f"bframes={b_frames}"}
    if codec == "libx265":
        return {"x265-params": "log-level=none:pools=1:frame-threads=1"}
    return {"qscale": "3", "flags": "+qscale", "global_quality": str(3 * 118)}


def cut_by_edit_list(path: Path, target: Path, first: int) -> Path:
    """Copy a clip's packets so that players show it from frame `first` on, as `ffmpeg -ss ... -c copy` does.

    All packets are in the new file; an edit list says which of them are decoded and not shown.
    """
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        start = sorted(packet.pts or 0 for packet in packets)[first]
        for packet in packets:
            packet.pts, packet.dts = (packet.pts or 0) - start, (packet.dts or 0) - start
            packet.stream = stream
            container.mux(packet)
    return target


def with_clock_set_back(path: Path, film: np.ndarray, **options: Any) -> Path:
    """An MPEG transport stream whose time stamps begin anew midway, as a recorder's do: two streams in a row."""
    middle = len(film) // 2
    parts = [film[:middle], film[middle:]]
    files = [encode(path.with_name(f"{path.stem}.{part}.ts"), parts[part], "libx264", **options) for part in (0, 1)]
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    for file in files:
        file.unlink()
    return path


def with_flipped_bits(path: Path, target: Path, seed: int, bits: int = 1) -> Path:
    """Copy a clip with some bits of its pictures flipped: those of one in the middle half of its packets each."""
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    for number in rng.integers(len(packets) // 4, 3 * len(packets) // 4, bits).tolist():
        at, size = packets[number]
        content[at + int(rng.integers(size // 4, size))] ^= 1 << int(rng.integers(8))
    target.write_bytes(content)
    return target


def with_zeros(path: Path, target: Path, share: float) -> Path:
    """Copy a clip whose pictures are zeros from a share of them on, as a download leaves it that was broken off."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    start, end = packets[int(share * len(packets))][0], sum(packets[-1])
    content[start:end] = bytes(end - start)
    target.write_bytes(content)
    return target
