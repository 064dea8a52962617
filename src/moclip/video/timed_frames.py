"""Decode a video of any length in one pass, with the time of each frame, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av

from moclip.errors import VideoError
from moclip.video.decoding import MOTION_CODECS, CountedPackets, check_codec, frame_rate, open_stream, read_packets
from moclip.video.reencoding import reencoded_frames
from moclip.video.times import SECOND, FrameClock, usable_rate, without_outliers
from moclip.video.vector_records import DecodedFrame
from moclip.video.vectors import decode_frames
from moclip.workers.time_limit import time_limit


class TimedFrame(NamedTuple):
    """A decoded frame, and its time in seconds since the start of the file."""

    time: float
    frame: DecodedFrame


@dataclass(frozen=True)
class TimedVideo:
    """An open video.

    frames : each frame that decodes, in display order.
    rate : frames per second; the usual rate where the file does not say.
    duration : in seconds, by the file's header; 0 where it does not say.
    codec : FFmpeg's name.
    offset : the time stamp, in seconds, at which the file starts.
    packets : what is read of the file, counted.
    """

    frames: Iterator[TimedFrame]
    rate: float
    duration: float
    codec: str
    offset: float
    packets: CountedPackets


@contextmanager
def open_timed(path: str | Path, transcode: bool = False) -> Iterator[TimedVideo]:
    """Open a video file. With `transcode` its motion vectors are those of the transcoded file (`video.transcode`).

    Raises
    ------
    VideoError
        It is no video, its codec exports no motion vectors, a picture is interlaced or differs in size from the first,
        or fewer than two pictures decode. Some are raised midway or at the end.
    """
    with open_stream(path) as (container, stream):
        if not transcode:
            check_codec(path, stream)
        yield timed_video(path, container, stream, transcode)


def timed_video(path: str | Path, container: Any, stream: Any, transcode: bool) -> TimedVideo:
    """Decode an open stream; see `open_timed`."""
    rate = usable_rate(frame_rate(stream))
    packets = CountedPackets(stream, read_packets(container, stream))
    read = reencoded_frames if transcode else decode_frames
    offset = (container.start_time or 0) / av.time_base
    clock = FrameClock(container.start_time, rate)
    duration = (container.duration or 0) / av.time_base
    frames = _with_times(read(path, stream, packets), clock, stream.time_base, rate)
    return TimedVideo(frames, rate, duration, stream.codec_context.name, offset, packets)


def header_seconds(path: str | Path) -> float:
    """Return how long a video is by its header; 0 where it does not say, or cannot be read."""
    try:
        with time_limit(), open_stream(path) as (container, _):
            return (container.duration or 0) / av.time_base
    except VideoError:
        return 0.0


def has_vectors(stream: Any) -> bool:
    """Return whether FFmpeg exports motion vectors of the stream's codec."""
    return stream.codec_context.name in MOTION_CODECS


def _with_times(
    frames: Iterable[DecodedFrame], clock: FrameClock, time_base: Fraction, rate: float
) -> Iterator[TimedFrame]:
    stamped = ((frame, frame.picture.pts) for frame in frames)
    for frame, stamp in without_outliers(stamped, rate, time_base):
        unit = frame.picture.time_base or time_base  # pictures that are decoded after a break have none of their own
        yield TimedFrame(round(clock.time_of(stamp, unit)) / SECOND, frame)
