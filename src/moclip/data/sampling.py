"""Choose frames of a clip: one per segment as in TSN (arXiv 1608.00859), and the stills for CLIP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

INTRA, BIDIRECTIONAL = ord("I"), ord("B")
Frame = TypeVar("Frame")


def segment_frames(lengths: np.ndarray, segments: int, generator: np.random.Generator | None = None) -> np.ndarray:
    """Choose a frame from each of `segments` equal parts of each clip: (n,) lengths -> (n, segments) int64 < length.

    With a `generator` the frame is drawn at random (training); without one it is the middle frame (testing). Clips
    shorter than `segments` repeat frames.
    """
    starts = np.arange(segments)
    within = 0.5 if generator is None else generator.random((len(lengths), segments))
    return np.minimum(((starts + within) * lengths[:, None] / segments).astype(np.int64), lengths[:, None] - 1)


def neighbours(frames: np.ndarray, lengths: np.ndarray, stack: int) -> np.ndarray:
    """Return the `stack` frames around each frame, in order: (n, segments) -> (n, segments, stack) int64.

    The frame itself is in the middle, or behind it where `stack` is even. At the ends of a clip, of which `lengths`
    (n,) are the numbers of frames, the first or last frame is repeated.
    """
    around = frames[..., None] + np.arange(stack) - stack // 2
    return np.clip(around, 0, lengths[:, None, None] - 1)


def motion_frames(
    frame_types: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, b_vectors: np.ndarray
) -> np.ndarray:
    """Return the frame whose motion stands for each frame: (frames,) int64 of absolute frame numbers.

    Frames without vectors are I-frames, and B-frames of codecs that export none for them. They take the motion of the
    last frame before them that has vectors, as CoViAR's loader does. At the beginning of a clip they take that of the
    first frame with vectors. `frame_types` (frames,) holds ASCII codes; `offsets`, `lengths` and `b_vectors` (whether
    the clip's B-frames have vectors) are (clips,).
    """
    target = np.arange(len(frame_types), dtype=np.int64)
    for offset, length, has_b in zip(offsets.tolist(), lengths.tolist(), b_vectors.tolist(), strict=True):
        types = frame_types[offset : offset + length]
        inter = (types != INTRA) & (has_b | (types != BIDIRECTIONAL))
        if not inter.any():
            continue
        latest = np.maximum.accumulate(np.where(inter, np.arange(length), -1))
        target[offset : offset + length] = offset + np.where(latest < 0, int(inter.argmax()), latest)
    return target


def pick_motion(
    frames: Iterable[tuple[bool, Frame]], wanted: Iterable[int], keep: Callable[[Frame], Frame]
) -> tuple[dict[int, Frame], int]:
    """Do what `motion_frames` does for one clip while it is decoded; return a frame per wanted number, and the length.

    `frames` are those of the clip, each with whether it has vectors. `keep` turns a frame into what is kept of it.
    Numbers beyond the end, and all numbers of a clip without motion, get no frame.
    """
    numbers = set(wanted)
    picked: dict[int, Frame] = {}
    before_motion: list[int] = []  # wanted numbers before the first frame with vectors
    latest: Frame | None = None
    length = 0
    for has_vectors, frame in frames:
        if has_vectors:
            latest = frame
            if before_motion:
                picked = dict.fromkeys(before_motion, keep(frame))
                before_motion = []
        if length in numbers:
            if latest is None:
                before_motion.append(length)
            else:
                picked[length] = keep(latest)
        length += 1
    return picked, length


def still_frames(frames: int, count: int, choice: str, seed: int, content: str) -> np.ndarray:
    """Return the frame numbers of the `count` stills of a clip, one from each equal part: (count,) int64, ascending.

    `choice` is "middle" or "random". Random stills depend only on `seed` and on the clip's `content` (the MD5 of the
    file that its motion is read from), not on its name or on the order or number of clips.
    """
    generator = None
    if choice == "random":
        digest = hashlib.sha256(f"{seed}/{content}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return segment_frames(np.array([frames]), count, generator)[0]
