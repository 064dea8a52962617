"""Convert FFmpeg's motion-vector records to arrays, a window of frames at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from moclip.video.geometry import AS_CODED, Geometry, Orientation

WINDOW_BYTES = 1 << 20  # of records: small enough for the CPU's cache, large enough to vectorise
WINDOW_FRAMES = 64  # takes a tenth less time than 32 at 320x240, in one process and in two

# FFmpeg's AVMotionVector: 40 bytes with padding.
RECORD = np.dtype(
    [
        ("source", "i4"), ("w", "u1"), ("h", "u1"), ("src_x", "i2"), ("src_y", "i2"), ("dst_x", "i2"),
        ("dst_y", "i2"), ("flags", "u8"), ("motion_x", "i4"), ("motion_y", "i4"), ("motion_scale", "u2"),
    ],
    align=True,
)  # fmt: skip
_WORD = np.dtype("i8")
_WORDS_PER_RECORD = RECORD.itemsize // _WORD.itemsize
_MOTION_WORD = dict(RECORD.fields or {})["motion_x"][1] // _WORD.itemsize  # holds motion_x and motion_y
VECTOR_COLUMNS = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
"""Columns of `Vectors.blocks`, in mvextractor's order."""


@dataclass(frozen=True)
class Vectors:
    """The motion vectors of consecutive frames, in display order.

    blocks : int32 (N, 10), a row per block, columns as in `VECTOR_COLUMNS`; px, but `motion` in 1/`motion_scale` px.
        Positions are in the cropped picture, not yet turned. The codec's macroblocks start at (-left, -top).
    frame : int32 (N,), the frame (0 to T - 1) of each block, never decreasing.
    frame_types : uint8 (T,), the letters I, P and B as ASCII codes.
    width, height, orientation, left, top : as in `Geometry`.
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
    """A frame from the decoder. To keep it, take `without_picture`.

    picture : PyAV's; `upright_picture` makes an array of it.
    frame_type : ASCII code of I, P or B.
    vectors : the buffer of its `RECORD`s, None if it has no vectors; `unpack_vectors` makes arrays of it.
    carries_motion : whether frames of its type have motion vectors in this codec.
    geometry : the stream's.
    """

    picture: Any
    frame_type: int
    vectors: Any
    carries_motion: bool
    geometry: Geometry

    def without_picture(self) -> DecodedFrame:
        """Return a copy that does not keep the decoder's memory in use."""
        vectors = None if self.vectors is None else bytes(self.vectors)
        return self._replace(picture=None, vectors=vectors)


def gather_windows(frames: Iterable[DecodedFrame], moving_only: bool = False) -> Iterator[Vectors]:
    """Gather the motion vectors of decoded frames in windows of at most a few hundred frames.

    `moving_only` leaves out zero vectors, since a block without a vector has no motion either. One kind stays: a zero
    vector from the past whose macroblock also has a non-zero one from the future, because the past takes precedence.
    """
    buffer = memoryview(bytearray(2 * WINDOW_BYTES))  # reused, so it stays in the CPU's cache
    types: list[int] = []
    sizes: list[int] = []
    geometry = Geometry(0, 0)
    end = 0
    for frame in frames:
        geometry = frame.geometry
        size = 0 if frame.vectors is None else frame.vectors.buffer_size
        if end + size > len(buffer):
            buffer = memoryview(bytearray(buffer[:end]) + bytearray(size + WINDOW_BYTES))
        if size:
            buffer[end : end + size] = memoryview(frame.vectors)
        end += size
        sizes.append(size)
        types.append(frame.frame_type)
        if end > WINDOW_BYTES or len(types) == WINDOW_FRAMES:
            yield _to_vectors(buffer[:end], sizes, types, geometry, moving_only)
            types, sizes, end = [], [], 0
    if types:
        yield _to_vectors(buffer[:end], sizes, types, geometry, moving_only)


def unpack_vectors(frames: Sequence[DecodedFrame]) -> Vectors:
    """Return the motion vectors of one or more frames without picture of the same video."""
    buffers: list[bytes] = [frame.vectors or b"" for frame in frames]
    sizes, types = [len(buffer) for buffer in buffers], [frame.frame_type for frame in frames]
    return _to_vectors(b"".join(buffers), sizes, types, frames[0].geometry, moving_only=False)


def _to_vectors(
    buffer: bytes | memoryview, sizes: Sequence[int], types: Sequence[int], geometry: Geometry, moving_only: bool
) -> Vectors:
    """Copy records out of `buffer`, which holds `sizes` bytes of each frame."""
    words = np.frombuffer(buffer, _WORD).reshape(-1, _WORDS_PER_RECORD)
    records = words.view(RECORD)[:, 0]
    frame = np.repeat(np.arange(len(types), dtype=np.int32), [size // RECORD.itemsize for size in sizes])
    if moving_only:
        moving = _moving_records(words, records, frame)
        records, frame = words.take(moving, axis=0).view(RECORD)[:, 0], frame[moving]
    blocks = np.empty((len(records), len(VECTOR_COLUMNS)), np.int32, order="F")  # readers take whole columns
    for column, name in enumerate(VECTOR_COLUMNS):
        blocks[:, column] = records[name]
    move_to_cropped(blocks, geometry)
    return Vectors(blocks, frame, np.array(types, np.uint8), *geometry)


def _moving_records(words: np.ndarray, records: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return the rows of the records that `moving_only` keeps (see `gather_windows`)."""
    needed = words[:, _MOTION_WORD] != 0
    from_future = records["source"] > 0
    if from_future.any():
        macroblock = _macroblock_numbers(records, frame)
        moved_from_future = np.zeros(macroblock.max() + 1, bool)
        moved_from_future[macroblock[needed & from_future]] = True
        needed |= moved_from_future[macroblock] & ~from_future
    return np.flatnonzero(needed)


def _macroblock_numbers(records: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return a number (N,) per block that identifies its frame and the macroblock it lies in.

    `dst` is the block's centre. In cropped streams some lie outside the picture.
    """
    x, y = records["dst_x"] >> 4, records["dst_y"] >> 4
    columns, rows = int(x.max(initial=0)) + 1, int(y.max(initial=0)) + 1
    return (frame * rows + y) * columns + x


def move_to_cropped(blocks: np.ndarray, geometry: Geometry) -> None:
    """Move blocks (N, 10) in place from px of the coded picture to px of the cropped one."""
    for name, cropped in (
        ("src_x", geometry.left), ("dst_x", geometry.left), ("src_y", geometry.top), ("dst_y", geometry.top)
    ):  # fmt: skip
        if cropped:
            blocks[:, VECTOR_COLUMNS.index(name)] -= cropped
