"""Read the motion vectors of a file: choose the backend, read all at once or in windows of bounded memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from moclip.errors import MoclipError
from moclip.video.decoding import (
    B_FRAME,
    B_VECTOR_CODECS,
    EXPORT_VECTORS,
    I_FRAME,
    REDUCE_PICTURES,
    REDUCIBLE_CODECS,
    SKIP_PIXELS,
    check_codec,
    check_vectors_found,
    checked_pictures,
    is_shown,
    open_stream,
    picture_type,
    read_packets,
)
from moclip.video.mvextractor_backend import read_mvextractor
from moclip.video.vector_records import DecodedFrame, Vectors, gather_windows

BACKENDS = ("mvextractor", "pyav")
BUFFERED_BYTES = 64 << 20  # of a file's packets, kept in memory between counting and decoding


class DamagedError(MoclipError):
    """A picture is damaged, and the decoder skips pixels.

    FFmpeg guesses the vectors of damaged blocks from the pixels around them (error concealment). So the file must be
    read again with its pixels.
    """


def choose_backend(codec: str, has_b: bool, requested: str = "auto") -> str:
    """Return the backend that reads a stream exactly: PyAV, or mvextractor where it is requested and exact.

    mvextractor decodes on frame threads and loses vectors of H.264 B-frames at random. It reads undamaged MPEG-4
    Part 2, and H.264 without B-frames, exactly, but takes twice the time of PyAV, which skips pixels.

    Raises
    ------
    MoclipError
        `requested` is no backend, or is not installed.
    """
    if requested not in ("auto", *BACKENDS):
        raise MoclipError(f"unknown backend {requested!r}", fix=f"use auto, {' or '.join(BACKENDS)}")
    if requested == "mvextractor" and not has_mvextractor():
        fix = "pip install motion-vector-extractor (x86-64 Linux), or use the backend auto"
        raise MoclipError("the backend mvextractor is not installed", fix=fix)
    exact = codec == "mpeg4" or (codec == "h264" and not has_b)
    return "mvextractor" if requested == "mvextractor" and exact else "pyav"


def has_mvextractor() -> bool:
    """Return whether mvextractor is installed. It is built for x86-64 Linux only."""
    return importlib.util.find_spec("mvextractor") is not None


def read_vectors(path: str | Path, backend: str) -> Vectors:
    """Read all motion vectors of a video. `vector_windows` does the same in bounded memory.

    Raises
    ------
    VideoError
        As `vector_windows`.
    """
    try:
        windows = list(vector_windows(path, backend))
    except DamagedError:
        windows = list(vector_windows(path, backend, damaged=True))
    starts = np.cumsum([0, *(len(window.frame_types) for window in windows[:-1])])
    return Vectors(
        blocks=np.concatenate([window.blocks for window in windows]),
        frame=np.concatenate(
            [window.frame + np.int32(start) for window, start in zip(windows, starts, strict=True)], dtype=np.int32
        ),
        frame_types=np.concatenate([window.frame_types for window in windows]),
        width=windows[0].width,
        height=windows[0].height,
        orientation=windows[0].orientation,
        left=windows[0].left,
        top=windows[0].top,
    )


def vector_windows(
    path: str | Path,
    backend: str,
    *,
    refuse_b: bool = False,
    moving_only: bool = False,
    damaged: bool | None = None,
) -> Iterator[Vectors]:
    """Yield the motion vectors of a video in windows of at most a few hundred frames.

    B-frames have vectors in H.264, MPEG-1 and MPEG-2 only: FFmpeg does not export those of other codecs.

    Parameters
    ----------
    refuse_b : raise `InexactError` where mvextractor meets a B-frame, in case the index is wrong about the video.
    moving_only : PyAV may leave out blocks that do not change a motion field (see `gather_windows`).
    damaged : whether `probe` found damage; for PyAV only. The vectors are the same whatever it says, if it is right.
        True: pixels are reconstructed, which FFmpeg needs to conceal damage. None: it is not known; pixels are skipped.
        False: pixels are skipped, and pictures are reduced where the codec allows it, which is fastest.

    Raises
    ------
    VideoError
        Fewer than two pictures decode, one is interlaced or of another size, or none has motion vectors.
    DamagedError
        A picture is damaged and `damaged` is not true. With false, only H.264's damaged pictures are recognised.
    """
    if backend == "mvextractor":
        return read_mvextractor(path, refuse_b)
    return _read_pyav(path, moving_only, damaged)


def _read_pyav(path: str | Path, moving_only: bool, damaged: bool | None) -> Iterator[Vectors]:
    with open_stream(path) as (container, stream):
        reduced = damaged is False and stream.codec_context.name in REDUCIBLE_CODECS
        if not damaged:
            stream.codec_context.options = EXPORT_VECTORS | SKIP_PIXELS | (REDUCE_PICTURES if reduced else {})
        frames = decode_frames(path, stream, read_packets(container, stream), reduced)
        yield from gather_windows(frames if damaged else _refuse_damaged(path, frames), moving_only)


def _refuse_damaged(path: str | Path, frames: Iterable[DecodedFrame]) -> Iterator[DecodedFrame]:
    for number, frame in enumerate(frames):
        if frame.picture.is_corrupt:
            raise DamagedError(f"frame {number} is damaged", where=path, fix="index the videos again")
        yield frame


def decode_frames(
    path: str | Path, stream: Any, packets: Iterable[Any], reduced: bool = False
) -> Iterator[DecodedFrame]:
    """Yield each frame that decodes, with its motion vectors. For `reduced` see `checked_pictures`.

    Raises
    ------
    VideoError
        As `vector_windows`. Some are raised only at the end.
    """
    exports_b = stream.codec_context.name in B_VECTOR_CODECS
    count = vector_bytes = 0
    for picture, geometry, vectors in checked_pictures(path, stream, packets, reduced=reduced):
        kind = picture_type(picture)
        exported = exports_b or kind != B_FRAME
        if not exported:
            vectors = None
        count += 1
        vector_bytes += 0 if vectors is None else vectors.buffer_size
        yield DecodedFrame(picture, kind, vectors, kind != I_FRAME and exported, geometry)
    check_vectors_found(path, count, vector_bytes)


@contextmanager
def decode_once(path: str | Path) -> Iterator[tuple[int, Iterator[DecodedFrame]]]:
    """Open a clip to decode its motion vectors and its pictures together.

    Yields the number of frames by the file's packets, and the frames that decode, in display order. Both numbers are
    the same in an intact file. Files of more than `BUFFERED_BYTES` are read twice, first to count their packets.

    Raises
    ------
    VideoError
        The codec exports no motion vectors, or as `vector_windows`.
    """
    with open_stream(path) as (container, stream):
        check_codec(path, stream)
        count, packets = _buffer_packets(read_packets(container, stream))
        if packets is not None:
            yield count, decode_frames(path, stream, packets)
            return
    with open_stream(path) as (container, stream):
        yield count, decode_frames(path, stream, read_packets(container, stream))


def _buffer_packets(packets: Iterable[Any]) -> tuple[int, list[Any] | None]:
    """Count the packets of pictures that are shown. Also return all packets, or None where they are too large."""
    buffer: list[Any] = []
    count = size = 0
    for packet in packets:
        count += is_shown(packet)
        if packet is not None:
            size += packet.size
        if size > BUFFERED_BYTES:
            buffer = []
        else:
            buffer.append(packet)
    return count, buffer if size <= BUFFERED_BYTES else None
