"""Open a video stream and decode its pictures, one thread a process, checking each picture.

Frame k of a clip is the k-th picture that a plain single-thread decode shows, for everything in this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from moclip.errors import VideoError
from moclip.video.geometry import Geometry, read_cropping, read_orientation, upright_frame
from moclip.video.h264 import Cropping, croppings_in
from moclip.video.messages import error_text, re_encode_fix, recheck_fix
from moclip.workers.time_limit import restart_time_limit

MOTION_CODECS = frozenset(
    ("h264", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2")
)
# FFmpeg fills in the vectors of B-frames for these codecs only; for others it exports zeros, or leftovers.
B_VECTOR_CODECS = frozenset(("h264", "mpeg1video", "mpeg2video"))
I_FRAME, P_FRAME, B_FRAME = (ord(letter) for letter in "IPB")
MOST_PIXELS = 8192 * 8192  # of a picture: a header may claim any size, and memory is taken for it
LIMITS = {"max_pixels": str(MOST_PIXELS)}
EXPORT_VECTORS = LIMITS | {"flags2": "+export_mvs"}
SKIP_PIXELS = {"skip_loop_filter": "all", "skip_idct": "all"}
"""Decoder options that leave out work on pixels. Vectors are parsed from the bitstream, so those of intact pictures
stay the same, and so does which pictures there are. For damaged ones see `DamagedError`."""
PICTURE_TYPES = tuple(b"PIPBPIPI")  # FFmpeg's picture types: none, I, P, B, S, SI, SP, BI


@contextmanager
def open_stream(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open the file's main video stream for decoding on one thread (processes are the parallelism)."""
    try:
        # "file:", or what stands before a colon in a name would be taken for a protocol; titles have any encoding
        container = av.open(f"file:{path}", metadata_errors="replace")
    except FileNotFoundError as error:
        raise VideoError("no such file", where=path) from error
    except (FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"not a video file ({error_text(error)})", where=path, fix=recheck_fix(path)) from error
    with container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise VideoError("no video stream in the file", where=path, fix="remove it, or replace it by a video")
        if stream.codec_context is None:
            raise VideoError("its video codec is unknown", where=path, fix=re_encode_fix(path))
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MOST_PIXELS:
            what = f"pictures of {width}x{height} px, more than {MOST_PIXELS:,} px"
            raise VideoError(what, where=path, fix=re_encode_fix(path))
        # the same for all ways to read: where vectors are exported, damaged MPEG-1 and -2 is concealed otherwise
        stream.codec_context.options = EXPORT_VECTORS
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def check_codec(path: str | Path, stream: Any) -> None:
    codec = stream.codec_context.codec.canonical_name
    if stream.codec_context.name not in MOTION_CODECS:
        what = f"codec {codec} exports no motion vectors"
        raise VideoError(what, where=path, fix=f"transcode it to H.264 or MPEG-4: {re_encode_fix(path)}")


def check_count(path: str | Path, frames: int) -> None:
    if frames == 0:
        raise VideoError("no picture in it can be decoded", where=path, fix=recheck_fix(path))
    if frames == 1:
        what = "1 frame: a clip needs at least 2 to have motion"
        raise VideoError(what, where=path, fix="remove it, or replace it by a longer clip")


def checked_pictures(
    path: str | Path, stream: Any, packets: Iterable[Any], lost: list[str]
) -> Iterator[tuple[Any, Geometry]]:
    """Yield decoded pictures in display order, with how they lie in the coded ones.

    Raises VideoError at the first that is interlaced, or has another size or orientation than those before; and at the
    end where the cropping has changed.
    """
    keys: list[bytes] = []
    croppings: list[list[Cropping]] = []
    geometry: Geometry | None = None
    for picture in decode_pictures(_with_key_frames(stream, packets, keys, croppings), stream, lost):
        _check_progressive(path, stream, picture)
        if geometry is None:
            cropped = read_cropping(path, stream, picture, keys[0] if keys else b"")
            geometry = Geometry(picture.width, picture.height, read_orientation(picture), *cropped)
        if geometry[:2] != (picture.width, picture.height):
            sizes = f"{geometry.width}x{geometry.height} to {picture.width}x{picture.height}"
            raise VideoError(f"the picture's size changes from {sizes} midway", where=path, fix=re_encode_fix(path))
        if geometry.orientation != read_orientation(picture):
            raise VideoError("the picture's orientation changes midway", where=path, fix=re_encode_fix(path))
        yield picture, geometry
    if len(croppings) > 1:  # at the end: pictures that are interlaced, or of another size, are told as such
        raise VideoError("the picture's cropping changes midway", where=path, fix=re_encode_fix(path))


def _with_key_frames(
    stream: Any, packets: Iterable[Any], keys: list[bytes], croppings: list[list[Cropping]]
) -> Iterator[Any]:
    """Pass packets on; the content of the first key frame is put into `keys`.

    Where key frames of H.264 bring a cropping with them, each that differs from the one before is put into `croppings`.
    """
    is_h264, extradata = stream.codec_context.name == "h264", stream.codec_context.extradata or b""
    for packet in packets:
        if packet is not None and packet.is_keyframe and (is_h264 or not keys):
            content = bytes(packet)
            keys[:] = keys or [content]
            brought = croppings_in(content, extradata) if is_h264 else []
            if brought and croppings[-1:] != [brought]:
                croppings.append(brought)
        yield packet


def _check_progressive(path: str | Path, stream: Any, picture: Any) -> None:
    if picture.interlaced_frame or stream.codec_context.field_order > 1:
        what = "interlaced video: its blocks belong to fields, not to frames"
        raise VideoError(what, where=path, fix=f"deinterlace it: ffmpeg -i {Path(path).name} -vf yadif out.mp4")


@contextmanager
def open_pictures(path: str | Path) -> Iterator[tuple[Fraction, Iterator[Any]]]:
    """Open a video of any codec: frames a second on average, and its pictures (PyAV's) as shown, in display order.

    Pictures that do not decode are left out.

    Raises
    ------
    VideoError
        It is no video, nothing in it decodes, or a picture is interlaced (which may show midway).
    """
    with open_stream(path) as (container, stream):
        pictures = _progressive(path, stream, decode_pictures(read_packets(container, stream, []), stream, []))
        first = next(pictures, None)
        if first is None:
            raise VideoError("no picture in it can be decoded", where=path, fix=recheck_fix(path))
        yield Fraction(stream.average_rate or stream.guessed_rate or 25), map(upright_frame, chain([first], pictures))


def _progressive(path: str | Path, stream: Any, pictures: Iterable[Any]) -> Iterator[Any]:
    for picture in pictures:
        _check_progressive(path, stream, picture)
        yield picture


def read_packets(container: Any, stream: Any, lost: list[str]) -> Iterator[Any]:
    """Yield the stream's packets; where the container breaks off, which is noted in `lost`, None ends them."""
    try:
        for packet in container.demux(stream):
            restart_time_limit()
            yield packet
    except FFmpegError as error:  # what came before is still good
        lost.append(error_text(error))
        yield None


def decode_pictures(packets: Iterable[Any], stream: Any, lost: list[str]) -> Iterator[Any]:
    """Yield decoded frames in display order; what does not decode is noted in `lost` and left out."""
    for packet in packets:
        restart_time_limit()
        try:
            yield from stream.codec_context.decode(packet) if packet is None else packet.decode()
        except FFmpegError as error:
            lost.append(error_text(error))


def check_found(path: str | Path, frames: int, vectors: int) -> None:
    check_count(path, frames)
    if vectors == 0:
        raise VideoError("no motion vectors in any frame", where=path, fix=re_encode_fix(path))
