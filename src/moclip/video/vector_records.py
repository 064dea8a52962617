"""From FFmpeg's records of motion vectors to arrays, a window of frames at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from moclip.video.geometry import AS_CODED, Geometry, Orientation

WINDOW_BYTES = 1 << 20  # of raw vectors: small enough to stay in the CPU's cache, large enough to vectorise
WINDOW_FRAMES = 64  # twice as many as 32 take a tenth less time at 320x240, in one process and in two

# FFmpeg's AVMotionVector, 40 bytes with padding; the backend's columns follow in mvextractor's order.
_RAW = np.dtype(
    [
        ("source", "i4"), ("w", "u1"), ("h", "u1"), ("src_x", "i2"), ("src_y", "i2"), ("dst_x", "i2"),
        ("dst_y", "i2"), ("flags", "u8"), ("motion_x", "i4"), ("motion_y", "i4"), ("motion_scale", "u2"),
    ],
    align=True,
)  # fmt: skip
_WORD = np.dtype("i8")
_WORDS = _RAW.itemsize // _WORD.itemsize  # those of a record
_MOTION_WORD = dict(_RAW.fields or {})["motion_x"][1] // _WORD.itemsize  # motion_x and motion_y together
VECTOR_COLUMNS = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")


@dataclass(frozen=True)
class Vectors:
    """The motion vectors of some consecutive frames, in display order.

    blocks : int32 (N, 10), a block a row, columns as in `COLUMNS`; px, `motion` in 1/`motion_scale` px.
    frame : int32 (N,), which of the T frames a block belongs to, never decreasing.
    frame_types : uint8 (T,), the letters I, P and B as ASCII codes.
    width, height, orientation, left, top : as in `Geometry`. Blocks are in px of the cropped picture, not yet turned;
        the codec's macroblocks begin at (-left, -top).
    """

    blocks: np.ndarray
    frame: np.ndarray
    frame_types: np.ndarray
    width: int
    height: int
    orientation: Orientation = AS_CODED
    left: int = 0
    top: int = 0


class DecodedFrame(NamedTuple):
    """A frame as it comes out of the decoder; who keeps it takes a `copy`, without the picture.

    picture : PyAV's; `shown` makes an array of it.
    kind : its type, as in `Vectors.frame_types`.
    vectors : its motion vectors as FFmpeg keeps them; `unpacked` makes arrays of them. None: it has none.
    moves : whether a frame of its type has motion vectors in this codec.
    geometry : how it lies in the coded picture.
    """

    picture: Any
    kind: int
    vectors: Any
    moves: bool
    geometry: Geometry

    def copy(self) -> DecodedFrame:
        """Without the picture, and with vectors of its own."""
        vectors = None if self.vectors is None else bytes(self.vectors)
        return DecodedFrame(None, self.kind, vectors, self.moves, self.geometry)


def move_to_cropped(blocks: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Blocks (N, 10) in px of the coded picture, in place moved to px of the cropped one."""
    if geometry.left or geometry.top:
        for name, cropped in (("src_x", geometry.left), ("dst_x", geometry.left)):
            blocks[:, VECTOR_COLUMNS.index(name)] -= cropped
        for name, cropped in (("src_y", geometry.top), ("dst_y", geometry.top)):
            blocks[:, VECTOR_COLUMNS.index(name)] -= cropped
    return blocks


def gather_windows(decoded: Iterable[DecodedFrame], moving_only: bool = False) -> Iterator[Vectors]:
    """Gather decoded frames' motion vectors, a few hundred frames' at most at a time.

    With `moving_only`, those that are zero are left out: no vector says the same. But a zero to the past stays where
    another block of its macroblock has one to the future that is not, since the past goes before it.
    """
    gathered = memoryview(bytearray(2 * WINDOW_BYTES))  # the same for all windows: it stays in the CPU's cache
    kinds: list[int] = []
    sizes: list[int] = []
    geometry = Geometry(0, 0)
    end = 0
    for frame in decoded:
        geometry = frame.geometry
        size = 0 if frame.vectors is None else frame.vectors.buffer_size
        if end + size > len(gathered):
            gathered = memoryview(bytearray(gathered[:end]) + bytearray(size + WINDOW_BYTES))
        if size:
            gathered[end : end + size] = memoryview(frame.vectors)
        end += size
        sizes.append(size)
        kinds.append(frame.kind)
        if end > WINDOW_BYTES or len(kinds) == WINDOW_FRAMES:
            yield copy_records(gathered[:end], sizes, kinds, geometry, moving_only)
            kinds, sizes, end = [], [], 0
    if kinds:
        yield copy_records(gathered[:end], sizes, kinds, geometry, moving_only)


def unpack_vectors(frames: Sequence[DecodedFrame]) -> Vectors:
    """The motion vectors of copies of a video's frames, at least one."""
    raw: list[bytes] = [frame.vectors or b"" for frame in frames]
    sizes, kinds = [len(piece) for piece in raw], [frame.kind for frame in frames]
    return copy_records(b"".join(raw), sizes, kinds, frames[0].geometry, moving_only=False)


def copy_records(
    raw: bytes | memoryview,
    sizes: Sequence[int],
    kinds: Sequence[int],
    geometry: Geometry,
    moving_only: bool,
) -> Vectors:
    """Copy FFmpeg's records out of `raw`, `sizes` bytes of each frame."""
    words = np.frombuffer(raw, _WORD).reshape(-1, _WORDS)
    records = words.view(_RAW)[:, 0]
    frame = np.repeat(np.arange(len(kinds), dtype=np.int32), [size // _RAW.itemsize for size in sizes])
    if moving_only:
        needed = words[:, _MOTION_WORD] != 0
        future = records["source"] > 0
        if future.any():
            place = _macroblocks(records, frame)
            reached = np.zeros(place.max() + 1, bool)
            reached[place[needed & future]] = True
            needed |= reached[place] & ~future
        moving = np.flatnonzero(needed)
        records, frame = words.take(moving, axis=0).view(_RAW)[:, 0], frame[moving]
    blocks = np.empty((len(records), len(VECTOR_COLUMNS)), np.int32, order="F")  # it is read by columns
    for column, name in enumerate(VECTOR_COLUMNS):
        blocks[:, column] = records[name]
    return Vectors(move_to_cropped(blocks, geometry), frame, np.array(kinds, np.uint8), *geometry)


def _macroblocks(records: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """A number (N,) of the macroblock that each block lies in, of its frame; the same for two only if one holds both.

    `dst` is a block's centre; streams that are cropped have some beyond the picture.
    """
    x, y = records["dst_x"] >> 4, records["dst_y"] >> 4
    columns, rows = int(x.max(initial=0)) + 1, int(y.max(initial=0)) + 1
    return (frame * rows + y) * columns + x
