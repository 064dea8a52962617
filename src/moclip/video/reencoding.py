"""Re-encode pictures while they are decoded, and read the motion vectors of the result.

This gives the vectors of `transcode_clip`'s file without writing one: for videos of any length, and for cameras whose
codec has no motion vectors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av

from moclip.video.decoding import (
    EXPORT_VECTORS,
    I_FRAME,
    assumed_rate,
    check_vectors_found,
    decode_pictures,
    picture_type,
    progressive_pictures,
)
from moclip.video.geometry import Geometry, read_side_data, upright_frame
from moclip.video.transcode import HEIGHT, WIDTH, frame_duration, scaled_pictures, set_encoding
from moclip.video.vector_records import DecodedFrame


def reencoded_frames(path: str | Path, stream: Any, packets: Iterable[Any]) -> Iterator[DecodedFrame]:
    """Yield each frame that decodes: its own picture, with the motion vectors of the re-encoded one.

    Raises
    ------
    VideoError
        A picture is interlaced; at the end: fewer than two decode.
    """
    originals: deque[Any] = deque()
    count = vector_bytes = 0
    for picture in _reencoded(
        _noted(progressive_pictures(path, stream, decode_pictures(stream, packets)), originals), stream
    ):
        vectors = read_side_data(picture)[0]
        kind = picture_type(picture)
        count += 1
        vector_bytes += 0 if vectors is None else vectors.buffer_size
        yield DecodedFrame(originals.popleft(), kind, vectors, kind != I_FRAME, Geometry(WIDTH, HEIGHT))
    check_vectors_found(path, count, vector_bytes)


def _noted(pictures: Iterable[Any], originals: deque[Any]) -> Iterator[Any]:
    """Turn pictures as shown, and keep the originals until they come out of the codec again."""
    for picture in pictures:
        originals.append(picture)
        yield upright_frame(picture)


def _reencoded(pictures: Iterable[Any], stream: Any) -> Iterator[Any]:
    """Yield the pictures of the transcoded file, one for each picture."""
    duration = frame_duration(assumed_rate(stream))
    encoder: Any = av.CodecContext.create("mpeg4", "w")
    set_encoding(encoder, encoder, duration)
    decoder: Any = av.CodecContext.create("mpeg4", "r")
    decoder.options, decoder.thread_type = EXPORT_VECTORS, "NONE"
    for scaled in scaled_pictures(pictures, duration):
        for packet in encoder.encode(scaled):
            yield from decoder.decode(packet)
    for packet in encoder.encode(None):
        yield from decoder.decode(packet)
    yield from decoder.decode(None)
