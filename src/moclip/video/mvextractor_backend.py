"""The backend `mvextractor`: motion vectors of the streams that it reads exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moclip.errors import MoclipError, VideoError
from moclip.video.decoding import (
    B_FRAME,
    B_VECTOR_CODECS,
    I_FRAME,
    LIMITS,
    P_FRAME,
    SKIP_PIXELS,
    check_found,
    checked_pictures,
    open_stream,
    read_packets,
)
from moclip.video.geometry import Geometry
from moclip.video.messages import recheck_fix
from moclip.video.vector_records import WINDOW_BYTES, WINDOW_FRAMES, Vectors, move_to_cropped
from moclip.workers.time_limit import restart_time_limit

_LETTER = {"I": I_FRAME, "i": I_FRAME, "b": I_FRAME, "B": B_FRAME}  # everything else predicts from the past


class InexactError(MoclipError):
    """mvextractor met a stream that it does not read exactly; PyAV must read it."""


def read_mvextractor(path: str | Path, refuse_b: bool) -> Iterator[Vectors]:
    from mvextractor.videocap import VideoCap

    with open_stream(path) as (_, stream):
        blind_b = stream.codec_context.name not in B_VECTOR_CODECS
    geometry = first_geometry(path)
    video = VideoCap()
    if not video.open(str(Path(path).absolute())):  # else a colon in the name makes it a protocol
        raise VideoError("mvextractor cannot open it", where=path, fix="use the backend pyav")
    video.set_decode_frames(False)
    try:
        arrays: list[np.ndarray] = []
        types: list[int] = []
        weight = frames = vectors = 0
        while True:
            ok, _, found, letter = video.read()
            restart_time_limit()
            if not ok:
                break
            kind = _LETTER.get(letter, P_FRAME)
            if refuse_b and kind == B_FRAME:
                raise InexactError("mvextractor met a B-frame", where=path, fix="use the backend pyav")
            arrays.append(found[:0] if blind_b and kind == B_FRAME else found)
            types.append(kind)
            frames += 1
            vectors += len(arrays[-1])
            weight += found.nbytes
            if weight > WINDOW_BYTES or len(types) == WINDOW_FRAMES:
                yield _joined(arrays, types, geometry)
                arrays, types, weight = [], [], 0
        if types:
            yield _joined(arrays, types, geometry)
        check_found(path, frames, vectors)
    finally:
        video.release()


def first_geometry(path: str | Path) -> Geometry:
    with open_stream(path) as (container, stream):
        stream.codec_context.options = LIMITS | SKIP_PIXELS
        for _, geometry in checked_pictures(path, stream, read_packets(container, stream, []), []):
            return geometry
    raise VideoError("no picture in it can be decoded", where=path, fix=recheck_fix(path))


def _joined(arrays: list[np.ndarray], types: list[int], geometry: Geometry) -> Vectors:
    counts = [len(array) for array in arrays]
    frame = np.repeat(np.arange(len(arrays), dtype=np.int32), counts)
    blocks = move_to_cropped(np.concatenate(arrays).astype(np.int32), geometry)
    return Vectors(blocks, frame, np.array(types, np.uint8), *geometry)
