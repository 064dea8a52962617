"""MPEG-4 clips with global motion compensation (GMC), which FFmpeg decodes but no encoder here writes.

Some P-frames of an encoded clip are replaced by S-frames with random global motion. Their macroblocks follow it, or
have a vector of their own, and no texture.
"""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np

from tests.clips import encode

_START_CODE = re.compile(b"(?=\0\0\1[\x20\xb6])")
_OBJECT_LAYER, _FRAME = b"\0\0\1\x20", b"\0\0\1\xb6"
_LENGTHS = ("00", "010", "011", "100", "101")  # of a trajectory's numbers, in bits
_VECTOR_STEPS = ("1", "010", "011")  # 0, +1 and -1 half px


def with_global_motion(path: Path, film: np.ndarray, points: int, seed: int = 0) -> Path:
    """Encode `film` (frames, height, width, 3) into an MPEG-4 stream whose global motion has `points` warping points.

    Height and width are multiples of 16.
    """
    rng = np.random.default_rng(seed)
    height, width = film.shape[1:3]
    plain = encode(path.with_suffix(".avi"), film, "mpeg4", gop=6)
    with av.open(str(plain)) as container:
        content = b"".join(bytes(packet) for packet in container.demux(video=0) if packet.size)
    plain.unlink()
    parts = _START_CODE.split(content)
    for number, part in enumerate(parts):
        times = re.match(r"01(1*01.{5}1)", _as_bits(part[4:8]))  # of a P-frame at 25 frames per second
        if part.startswith(_OBJECT_LAYER):
            parts[number] = _OBJECT_LAYER + _object_layer(width, height, points)
        elif part.startswith(_FRAME) and times and number % 2:
            parts[number] = _FRAME + _s_frame(times[1], points, width * height // 256, rng)
    path.write_bytes(b"".join(parts))
    return path


def _object_layer(width: int, height: int, points: int) -> bytes:
    """A header as FFmpeg's encoder writes it, but of the advanced simple profile, with global motion in 1/16 px."""
    kind, rate = f"0{17:08b}1{5:04b}001{1:04b}0001", f"{25:016b}10"
    size, sprite = f"1{width:013b}1{height:013b}1", f"10{points:06b}110"
    return _as_bytes(kind + rate + size + "01" + sprite + "000110000")


def _s_frame(times: str, points: int, blocks: int, rng: np.random.Generator) -> bytes:
    bits = "11" + times + "10000"
    bits += "".join(_trajectory(int(rng.integers(-9, 10))) + "1" for _ in range(2 * points)) + f"{4:05b}001"
    for _ in range(blocks):
        x, y = (_VECTOR_STEPS[step] for step in rng.integers(3, size=2))
        bits += ("1", "01111", f"01011{x}{y}")[rng.integers(3)]  # skipped; global motion; its own vector
    return _as_bytes(bits)


def _trajectory(value: int) -> str:
    length = abs(value).bit_length()
    number = value if value >= 0 else value + (1 << length) - 1
    return _LENGTHS[length] + (f"{number:0{length}b}" if length else "")


def _as_bits(content: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in content)


def _as_bytes(bits: str) -> bytes:
    """Fill up to a whole byte as before a start code: a zero, then ones."""
    bits += "0" + "1" * (-(len(bits) + 1) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
