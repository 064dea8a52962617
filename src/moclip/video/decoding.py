"""Open a video stream and decode its pictures on one thread, checking each picture.

Frame k of a clip is the k-th picture that a plain single-thread decode shows, for everything in this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from moclip.errors import VideoError
from moclip.video.clip_files import check_regular
from moclip.video.geometry import Geometry, read_cropping, read_side_data, upright_frame
from moclip.video.h264 import Cropping, packet_croppings
from moclip.video.messages import NO_VECTORS, error_text, ffmpeg_line, re_encode_fix, recheck_fix
from moclip.workers.time_limit import restart_time_limit

MOTION_CODECS = frozenset(
    ("h264", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2")
)
# FFmpeg exports the vectors of B-frames for these codecs only. For the others it exports zeros or old values.
B_VECTOR_CODECS = frozenset(("h264", "mpeg1video", "mpeg2video"))
I_FRAME, P_FRAME, B_FRAME = (ord(letter) for letter in "IPB")
_FRAME_TYPES = tuple(b"PIPBPIPI")  # of FFmpeg's picture types: none, I, P, B, S, SI, SP, BI
MAX_PIXELS = 8192 * 8192  # of a picture: a header may claim any size, and memory is allocated for it
SIZE_LIMIT = {"max_pixels": str(MAX_PIXELS)}
EXPORT_VECTORS = SIZE_LIMIT | {"flags2": "+export_mvs"}
SKIP_PIXELS = {"skip_loop_filter": "all", "skip_idct": "all"}
"""Decoder options that skip the reconstruction of pixels. FFmpeg parses vectors from the bitstream, so the vectors of
intact pictures and the number of pictures stay the same. For damaged pictures see `DamagedError`."""
REDUCE_PICTURES = {"lowres": "3"}
"""Decoder option for pictures of an eighth of the width and height, from these codecs' decoders. In intact pictures,
vectors and types stay the same. In damaged ones, FFmpeg neither conceals nor reports anything."""
REDUCIBLE_CODECS = MOTION_CODECS - {"h264"}


HIDING_CODECS = frozenset(("vp8",))
"""Codecs in which some packets hold a picture that is never shown."""
PLAYLISTS = frozenset(("concat", "dash", "hls", "sdp", "webm_dash_manifest"))
"""FFmpeg's names of formats that lead to other files, which may change without this one."""

USUAL_RATE = 25
"""Frames per second of a file that does not say its own."""


def frame_rate(stream: Any) -> float:
    """Return a stream's average frames per second by its container, or 0 if it does not say."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def assumed_rate(stream: Any) -> Fraction:
    """Return a stream's average frames per second by its container, or `USUAL_RATE` if it does not say."""
    return Fraction(stream.average_rate or stream.guessed_rate or USUAL_RATE)


@contextmanager
def open_stream(path: str | Path, formats: str = "") -> Iterator[tuple[Any, Any]]:
    """Open the file's main video stream. Yields PyAV's (container, stream), set to decode on one thread.

    `formats` are FFmpeg's names of the containers that are read, such as "mov,avi"; "" stands for all, also for
    playlists, which lead to other files.

    Raises
    ------
    VideoError
        There is no such file, it is no regular file or no video, its codec is unknown, or its pictures are too large.
    MemoryError
        There is not enough memory. So do the functions below.
    """
    check_regular(path)
    try:
        # Without "file:" FFmpeg takes a name with a colon for a protocol. Titles in the file have any encoding.
        options = {"format_whitelist": formats} if formats else {}
        container = av.open(f"file:{path}", metadata_errors="replace", options=options)
    except FileNotFoundError as error:
        raise VideoError("no such file", where=path) from error
    except MemoryError:  # FFmpeg's is an FFmpegError, too
        raise
    except (FFmpegError, OSError, ValueError) as error:
        is_empty = Path(path).is_file() and Path(path).stat().st_size == 0
        why = "it is empty" if is_empty else error_text(error)
        raise VideoError(f"not a video file ({why})", where=path, fix=recheck_fix(path)) from error
    with container:
        if not PLAYLISTS.isdisjoint(container.format.name.split(",")):
            raise VideoError("a playlist, not a video file", where=path, fix="use the files that it names")
        yield container, main_stream(path, container)


def main_stream(path: str | Path, container: Any) -> Any:
    """Return the main video stream of a container, set to decode on one thread. Raises VideoError as `open_stream`."""
    stream: Any = container.streams.best("video")
    if stream is None:
        raise VideoError("no video stream in the file", where=path, fix="remove it, or replace it by a video")
    if stream.codec_context is None:
        raise VideoError("its video codec is unknown", where=path, fix=re_encode_fix(path))
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        what = f"pictures of {width}x{height} px, more than {MAX_PIXELS:,} px"
        raise VideoError(what, where=path, fix=re_encode_fix(path))
    # Also where only pictures are read: exporting vectors changes how FFmpeg conceals damage in MPEG-1 and -2.
    stream.codec_context.options = EXPORT_VECTORS
    stream.codec_context.thread_type = "NONE"  # worker processes are the parallelism
    return stream


def read_packets(container: Any, stream: Any, errors: list[str] | None = None) -> Iterator[Any]:
    """Yield the stream's packets. Where the container breaks off, add the reason to `errors` and yield None last."""
    try:
        for packet in container.demux(stream):
            restart_time_limit()
            yield packet
    except MemoryError:
        raise
    except FFmpegError as error:  # the packets before it are still good
        if errors is not None:
            errors.append(error_text(error))
        yield None


def is_shown(packet: Any) -> bool:
    """Return whether a packet holds a picture that is shown. Edit lists discard others; None ends the stream."""
    return packet is not None and packet.size > 0 and not packet.is_discard


class CountedPackets:
    """A stream's packets on their way to the decoder; `shown` of those so far should each give a picture.

    It stays 0 for `HIDING_CODECS`, of which that is not known.
    """

    def __init__(self, stream: Any, packets: Iterable[Any]) -> None:
        self.shown = 0
        self._packets = packets
        self._is_known = stream.codec_context.name not in HIDING_CODECS

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets:
            self.shown += self._is_known and is_shown(packet)
            yield packet


def decode_pictures(stream: Any, packets: Iterable[Any], errors: list[str] | None = None) -> Iterator[Any]:
    """Yield decoded pictures in display order. Skip packets that do not decode, and add the reasons to `errors`."""
    for packet in packets:
        restart_time_limit()
        try:
            yield from stream.codec_context.decode(packet) if packet is None else packet.decode()
        except MemoryError:  # the packet is not damaged
            raise
        except FFmpegError as error:
            if errors is not None:
                errors.append(error_text(error))


def checked_pictures(
    path: str | Path, stream: Any, packets: Iterable[Any], errors: list[str] | None = None, reduced: bool = False
) -> Iterator[tuple[Any, Geometry, Any]]:
    """Yield decoded pictures in display order, each with the stream's geometry and the buffer of its motion vectors.

    `reduced` says that the decoder has the option `REDUCE_PICTURES`. The geometry is that of the whole picture.

    Raises
    ------
    VideoError
        A picture is interlaced, or its size or orientation differs from the first one's. At the end: the cropping has
        changed.
    """
    context = stream.codec_context
    key_frames = _KeyFrames()
    if context.name == "h264":
        packets = key_frames.watch(stream, packets)
    geometry: Geometry | None = None
    for picture in decode_pictures(stream, packets, errors):
        _check_progressive(path, context, picture)
        vectors, orientation = read_side_data(picture)
        # a reduced picture is of a codec that crops nothing
        width, height = (context.coded_width, context.coded_height) if reduced else (picture.width, picture.height)
        if geometry is None:
            left, top = read_cropping(path, stream, picture, key_frames.first)
            geometry = Geometry(width, height, orientation, left, top)
        if geometry.width != width or geometry.height != height:
            sizes = f"{geometry.width}x{geometry.height} to {width}x{height}"
            raise VideoError(f"the picture's size changes from {sizes} midway", where=path, fix=re_encode_fix(path))
        if geometry.orientation != orientation:
            raise VideoError("the picture's orientation changes midway", where=path, fix=re_encode_fix(path))
        yield picture, geometry, vectors
    if len(key_frames.croppings) > 1:  # only now: an interlaced picture or another size is the better reason
        raise VideoError("the picture's cropping changes midway", where=path, fix=re_encode_fix(path))


@dataclass
class _KeyFrames:
    """The key frames of an H.264 stream: the first one's bytes, and each cropping that differs from the one before."""

    first: bytes = b""
    croppings: list[list[Cropping]] = field(default_factory=list)

    def watch(self, stream: Any, packets: Iterable[Any]) -> Iterator[Any]:
        """Pass packets on and note their key frames."""
        extradata = stream.codec_context.extradata or b""
        for packet in packets:
            if packet is not None and packet.is_keyframe:
                content = bytes(packet)
                self.first = self.first or content
                found = packet_croppings(content, extradata)
                if found and self.croppings[-1:] != [found]:
                    self.croppings.append(found)
            yield packet


@contextmanager
def open_pictures(path: str | Path) -> Iterator[tuple[Fraction, Iterator[Any]]]:
    """Open a video of any codec. Yields its average frames per second, and its pictures (PyAV's) in display order.

    Pictures are turned as shown. Those that do not decode are skipped.

    Raises
    ------
    VideoError
        It is no video, nothing in it decodes, or a picture is interlaced (this may be raised midway).
    """
    with open_stream(path) as (container, stream):
        pictures = progressive_pictures(path, stream, decode_pictures(stream, read_packets(container, stream)))
        first = next(pictures, None)
        if first is None:
            raise VideoError("no picture in it can be decoded", where=path, fix=recheck_fix(path))
        yield assumed_rate(stream), map(upright_frame, chain([first], pictures))


def progressive_pictures(path: str | Path, stream: Any, pictures: Iterable[Any]) -> Iterator[Any]:
    """Pass pictures on. Raises VideoError for one that is interlaced."""
    for picture in pictures:
        _check_progressive(path, stream.codec_context, picture)
        yield picture


def _check_progressive(path: str | Path, context: Any, picture: Any) -> None:
    if picture.interlaced_frame or context.field_order > 1:
        what = "interlaced video: its blocks belong to fields, not to frames"
        raise VideoError(what, where=path, fix=f"deinterlace it: {ffmpeg_line(path, '-vf yadif', '-yadif.mp4')}")


def picture_type(picture: Any) -> int:
    """Return a decoded picture's type: `I_FRAME`, `P_FRAME` or `B_FRAME`."""
    return _FRAME_TYPES[int(picture.pict_type)]


def check_codec(path: str | Path, stream: Any) -> None:
    """Raise VideoError where FFmpeg exports no motion vectors of the stream's codec."""
    codec = stream.codec_context.codec.canonical_name
    if stream.codec_context.name not in MOTION_CODECS:
        raise VideoError(f"codec {codec} {NO_VECTORS}", where=path, fix=re_encode_fix(path))


def check_frame_count(path: str | Path, frames: int) -> None:
    """Raise VideoError for fewer than two frames."""
    if frames == 0:
        raise VideoError("no picture in it can be decoded", where=path, fix=recheck_fix(path))
    if frames == 1:
        what = "1 frame: a clip needs at least 2 to have motion"
        raise VideoError(what, where=path, fix="remove it, or replace it by a longer clip")


def check_vectors_found(path: str | Path, frames: int, vectors: int) -> None:
    """Raise VideoError for fewer than two frames, or for none with motion vectors (`vectors` in bytes or blocks)."""
    check_frame_count(path, frames)
    if vectors == 0:
        raise VideoError("no motion vectors in any frame", where=path, fix=re_encode_fix(path))
