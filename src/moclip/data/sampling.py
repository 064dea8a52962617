"""Which frames of a clip are looked at: segments as in TSN (arXiv 1608.00859), and the still frames for CLIP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

INTRA, BIDIRECTIONAL = ord("I"), ord("B")
Frame = TypeVar("Frame")


def segment_frames(lengths: np.ndarray, segments: int, generator: np.random.Generator | None = None) -> np.ndarray:
    """A frame from each of `segments` equal parts of each clip: (n,) lengths -> (n, segments) int64, each < length.

    With a `generator` the frame is drawn within its part (training), without it is the middle one (testing). Clips
    shorter than `segments` repeat frames.
    """
    edges = np.arange(segments)
    within = 0.5 if generator is None else generator.random((len(lengths), segments))
    return np.minimum(((edges + within) * lengths[:, None] / segments).astype(np.int64), lengths[:, None] - 1)


def motion_frames(
    frame_types: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, b_vectors: np.ndarray
) -> np.ndarray:
    """Where to look for the motion of each frame: (frames,) int64 of absolute frame numbers.

    An I-frame has no vectors; position 0 of a GOP takes the last frame of the GOP before, as CoViAR's loader does, and
    the first frames of a clip take the first frame that has vectors. So do B-frames of a codec whose B-frames come
    without vectors. `frame_types` (frames,) holds ASCII codes; `offsets`, `lengths` and `b_vectors` (whether the
    clip's B-frames have vectors) are (clips,).
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
    """Do what `motion_frames` does for one clip, as it is decoded: a frame for each wanted number, and the length.

    `frames` are the clip's, each with whether it has vectors; `keep` makes of one what may be held on to. Numbers
    beyond the end, and all numbers of a clip without motion, get no frame.
    """
    numbers = set(wanted)
    picked: dict[int, Frame] = {}
    early: list[int] = []  # wanted before any frame with vectors was met
    latest: Frame | None = None
    length = 0
    for moves, frame in frames:
        if moves:
            latest = frame
            if early:
                picked = dict.fromkeys(early, keep(frame))
                early = []
        if length in numbers and latest is None:
            early.append(length)
        elif length in numbers and latest is not None:
            picked[length] = keep(latest)
        length += 1
    return picked, length


def still_frames(frames: int, count: int, choice: str, seed: int, content: str) -> np.ndarray:
    """Frame numbers of the `count` stills of a clip, one from each equal part: (count,) int64, ascending.

    `choice` is "middle" or "random"; the random one depends on `seed` and the clip's `content` (the MD5 of the file
    that its motion is read from) alone: never on its name, nor on the order or number of clips.
    """
    generator = None
    if choice == "random":
        digest = hashlib.sha256(f"{seed}/{content}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return segment_frames(np.array([frames]), count, generator)[0]
