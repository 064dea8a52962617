"""The backend mvextractor. `choose_backend` selects it for streams that it reads exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moclip.errors import MoclipError, VideoError
from moclip.video.decoding import (
    B_FRAME,
    B_VECTOR_CODECS,
    I_FRAME,
    P_FRAME,
    SIZE_LIMIT,
    SKIP_PIXELS,
    check_vectors_found,
    checked_pictures,
    open_stream,
    read_packets,
)
from moclip.video.geometry import Geometry
from moclip.video.messages import recheck_fix
from moclip.video.vector_records import WINDOW_BYTES, WINDOW_FRAMES, Vectors, move_to_cropped
from moclip.workers.time_limit import restart_time_limit

_FRAME_TYPES = {"I": I_FRAME, "i": I_FRAME, "b": I_FRAME, "B": B_FRAME}  # mvextractor's letters; others mean P


class InexactError(MoclipError):
    """mvextractor met a stream that it does not read exactly. Read it with PyAV."""


def read_mvextractor(path: str | Path, refuse_b: bool) -> Iterator[Vectors]:
    """Yield motion vectors as `vector_windows` does.

    Raises
    ------
    VideoError
        mvextractor cannot open the file, fewer than two pictures decode, or none has motion vectors.
    InexactError
        There is a B-frame, and `refuse_b` is true.
    """
    from mvextractor.videocap import VideoCap

    geometry, exports_b = _describe_stream(path)
    video = VideoCap()
    if not video.open(str(Path(path).absolute())):  # absolute: FFmpeg takes a name with a colon for a protocol
        raise VideoError("mvextractor cannot open it", where=path, fix="use the backend pyav")
    video.set_decode_frames(False)
    try:
        blocks: list[np.ndarray] = []
        types: list[int] = []
        window_bytes = frames = vectors = 0
        while True:
            ok, _, found, letter = video.read()
            restart_time_limit()
            if not ok:
                break
            frame_type = _FRAME_TYPES.get(letter, P_FRAME)
            if refuse_b and frame_type == B_FRAME:
                raise InexactError("mvextractor met a B-frame", where=path, fix="use the backend pyav")
            blocks.append(found if exports_b or frame_type != B_FRAME else found[:0])
            types.append(frame_type)
            frames += 1
            vectors += len(blocks[-1])
            window_bytes += found.nbytes
            if window_bytes > WINDOW_BYTES or len(types) == WINDOW_FRAMES:
                yield _to_vectors(blocks, types, geometry)
                blocks, types, window_bytes = [], [], 0
        if types:
            yield _to_vectors(blocks, types, geometry)
        check_vectors_found(path, frames, vectors)
    finally:
        video.release()


def _describe_stream(path: str | Path) -> tuple[Geometry, bool]:
    """Return the geometry of the first picture, and whether FFmpeg exports the vectors of the codec's B-frames."""
    with open_stream(path) as (container, stream):
        stream.codec_context.options = SIZE_LIMIT | SKIP_PIXELS
        for _, geometry, _ in checked_pictures(path, stream, read_packets(container, stream)):
            return geometry, stream.codec_context.name in B_VECTOR_CODECS
    raise VideoError("no picture in it can be decoded", where=path, fix=recheck_fix(path))


def _to_vectors(blocks: list[np.ndarray], types: list[int], geometry: Geometry) -> Vectors:
    frame = np.repeat(np.arange(len(blocks), dtype=np.int32), [len(found) for found in blocks])
    joined = np.concatenate(blocks).astype(np.int32)
    move_to_cropped(joined, geometry)
    return Vectors(joined, frame, np.array(types, np.uint8), *geometry)
