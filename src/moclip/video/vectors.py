"""Motion vectors of a file: which backend reads it, whole or in windows of bounded memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer

from moclip.errors import MoclipError
from moclip.video.decoding import (
    B_FRAME,
    B_VECTOR_CODECS,
    EXPORT_VECTORS,
    I_FRAME,
    PICTURE_TYPES,
    SKIP_PIXELS,
    check_codec,
    check_found,
    checked_pictures,
    open_stream,
    read_packets,
)
from moclip.video.mvextractor_backend import read_mvextractor
from moclip.video.vector_records import DecodedFrame, Vectors, gather_windows

BACKENDS = ("mvextractor", "pyav")
HELD_BYTES = 64 << 20  # of a file's packets, kept between counting and decoding them


class DamagedError(MoclipError):
    """A damaged picture was met while the work on pixels was left out.

    FFmpeg makes up the vectors of damaged blocks from what the pixels around them look like (error concealment), so
    the file must be read again with that work done.
    """


def choose_backend(info_codec: str, has_b: bool, requested: str = "auto") -> str:
    """Name the backend that reads a stream exactly: PyAV, or mvextractor where it is asked for and exact.

    mvextractor decodes on frame threads and loses vectors of H.264 B-frames, at random. MPEG-4 Part 2 and
    H.264 without B-frames it reads exactly, unless they are damaged, in twice the time that PyAV takes where
    `windows` spares it the pixels.

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
    exact = info_codec == "mpeg4" or (info_codec == "h264" and not has_b)
    return "mvextractor" if requested == "mvextractor" and exact else "pyav"


def has_mvextractor() -> bool:
    """Say whether that backend is installed (it is built for x86-64 Linux only)."""
    return importlib.util.find_spec("mvextractor") is not None


def read_vectors(path: str | Path, backend: str) -> Vectors:
    """Read all motion vectors of a video; `windows` does the same in bounded memory.

    Raises
    ------
    VideoError
        Nothing decodes, or no frame has motion vectors.
    """
    try:
        parts = list(vector_windows(path, backend))
    except DamagedError:
        parts = list(vector_windows(path, backend, damaged=True))
    starts = np.cumsum([0, *(len(part.frame_types) for part in parts[:-1])])
    return Vectors(
        blocks=np.concatenate([part.blocks for part in parts]),
        frame=np.concatenate(
            [part.frame + np.int32(start) for part, start in zip(parts, starts, strict=True)], dtype=np.int32
        ),
        frame_types=np.concatenate([part.frame_types for part in parts]),
        width=parts[0].width,
        height=parts[0].height,
        orientation=parts[0].orientation,
        left=parts[0].left,
        top=parts[0].top,
    )


def vector_windows(
    path: str | Path, backend: str, *, refuse_b: bool = False, moving_only: bool = False, damaged: bool = False
) -> Iterator[Vectors]:
    """Yield the motion vectors of a video, a few hundred frames at most at a time.

    PyAV leaves out the work on pixels, a quarter of the time, unless the video is said to be `damaged`: then vectors of
    damaged blocks are needed that FFmpeg makes up from pixels.

    B-frames have none but in H.264, MPEG-1 and MPEG-2: FFmpeg does not export those of other codecs. With
    `moving_only`, blocks that PyAV reads and that `motion.fields` can do without may be left out (see `in_windows`).

    With `refuse_b`, a B-frame met by mvextractor raises `InexactError`: the index may have been wrong about
    it.

    Raises
    ------
    VideoError
        Fewer than two pictures decode, one is interlaced or of another size, or none has motion vectors.
    DamagedError
        A picture is damaged, which was not said.
    """
    if backend == "mvextractor":
        return read_mvextractor(path, refuse_b)
    return _read_pyav(path, moving_only, damaged)


def _read_pyav(path: str | Path, moving_only: bool, damaged: bool) -> Iterator[Vectors]:
    with open_stream(path) as (container, stream):
        if not damaged:
            stream.codec_context.options = EXPORT_VECTORS | SKIP_PIXELS
        decoded = decoded_frames(path, stream, read_packets(container, stream, []))
        yield from gather_windows(decoded if damaged else _refuse_damaged(path, decoded), moving_only)


def _refuse_damaged(path: str | Path, decoded: Iterable[DecodedFrame]) -> Iterator[DecodedFrame]:
    for number, frame in enumerate(decoded):
        if frame.picture.is_corrupt:
            raise DamagedError(f"frame {number} is damaged", where=path, fix="index the videos again")
        yield frame


@contextmanager
def decode_once(path: str | Path) -> Iterator[tuple[int, Iterator[DecodedFrame]]]:
    """Open a clip to decode it once, for its motion vectors and its pictures alike.

    Yields how many frames there are if every packet gives one, as in an intact file, and the frames that decode, in
    display order. The file is read once where it has at most `HELD_BYTES`, else twice: its packets are counted before
    the first is decoded.

    Raises
    ------
    VideoError
        As `probe` and `windows`.
    """
    with open_stream(path) as (container, stream):
        check_codec(path, stream)
        frames, held = _hold(read_packets(container, stream, []))
        if held is not None:
            yield frames, decoded_frames(path, stream, held)
            return
    with open_stream(path) as (container, stream):
        yield frames, decoded_frames(path, stream, read_packets(container, stream, []))


def _hold(packets: Iterable[Any]) -> tuple[int, list[Any] | None]:
    """How many of the packets hold a picture that is shown, and all of them, unless they are too large to keep."""
    held: list[Any] = []
    frames = size = 0
    for packet in packets:
        if packet is not None:
            frames += packet.size > 0 and not packet.is_discard
            size += packet.size
        if size > HELD_BYTES:
            held = []
        else:
            held.append(packet)
    return frames, held if size <= HELD_BYTES else None


def decoded_frames(path: str | Path, stream: Any, packets: Iterable[Any]) -> Iterator[DecodedFrame]:
    """Yield each frame that decodes, with its motion vectors. Raises VideoError, some of them only at the end."""
    blind_b = stream.codec_context.name not in B_VECTOR_CODECS
    frames = size = 0
    for picture, geometry in checked_pictures(path, stream, packets, []):
        # `picture.side_data` would tie the picture into a cycle, and hundreds would wait for the collector.
        side = SideDataContainer(picture).get("MOTION_VECTORS")  # type: ignore[call-arg]
        kind = PICTURE_TYPES[int(picture.pict_type)]
        blind = blind_b and kind == B_FRAME
        vectors = None if blind else side
        frames += 1
        size += 0 if vectors is None else vectors.buffer_size
        yield DecodedFrame(picture, kind, vectors, kind != I_FRAME and not blind, geometry)
    check_found(path, frames, size)
