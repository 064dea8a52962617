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
from moclip.video.decoding import MOTION_CODECS, USUAL_RATE, check_codec, frame_rate, open_stream, read_packets
from moclip.video.reencoding import reencoded_frames
from moclip.video.vector_records import DecodedFrame
from moclip.video.vectors import decode_frames

HIGHEST_RATE = 1000.0
LONGEST_GAP = 3600.0
"""Seconds between two frames; a longer gap is a clock that was set, not a pause."""
CLOCK_STEP = 1.0
"""Seconds by which times must go back to count as a clock that was set, not as frames out of order."""


class TimedFrame(NamedTuple):
    """A decoded frame, and its time in seconds since the start of the file."""

    time: float
    frame: DecodedFrame


@dataclass(frozen=True)
class TimedVideo:
    """An open video.

    frames : each frame that decodes, in display order.
    rate : frames per second; `USUAL_RATE` where the file does not say.
    duration : in seconds, by the file's header; 0 where it does not say.
    codec : FFmpeg's name.
    offset : the time stamp, in seconds, at which the file starts.
    """

    frames: Iterator[TimedFrame]
    rate: float
    duration: float
    codec: str
    offset: float


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
    rate = frame_rate(stream)
    if not 0 < rate <= HIGHEST_RATE:
        rate = USUAL_RATE
    packets = read_packets(container, stream)
    read = reencoded_frames if transcode else decode_frames
    offset = (container.start_time or 0) / av.time_base
    clock = FrameClock(offset, 1 / rate, stream.time_base)
    duration = (container.duration or 0) / av.time_base
    frames = _with_times(read(path, stream, packets), clock)
    return TimedVideo(frames, rate, duration, stream.codec_context.name, offset)


def header_seconds(path: str | Path) -> float:
    """Return how long a video is by its header; 0 where it does not say, or cannot be read."""
    try:
        with open_stream(path) as (container, _):
            return (container.duration or 0) / av.time_base
    except VideoError:
        return 0.0


def has_vectors(stream: Any) -> bool:
    """Return whether FFmpeg exports motion vectors of the stream's codec."""
    return stream.codec_context.name in MOTION_CODECS


def _with_times(frames: Iterable[DecodedFrame], clock: FrameClock) -> Iterator[TimedFrame]:
    for frame in frames:
        yield TimedFrame(clock.time_of(frame.picture), frame)


class FrameClock:
    """The times of frames: their time stamps, counted from `start`. They always go forward.

    A frame without a time stamp follows the one before it after `frame_seconds`. So does one whose time stamp goes
    back; the time stamps after it count on from there if the clock was set (a recorder's, or parts joined in a row).
    """

    def __init__(self, start: float, frame_seconds: float, time_base: Fraction | None = None) -> None:
        self.frame_seconds, self.time_base = frame_seconds, time_base
        self._shift = -start
        self._last: float | None = None

    def time_of(self, picture: Any) -> float:
        """Return the time of the next picture (PyAV's), in seconds."""
        unit = picture.time_base or self.time_base  # those that are decoded after a break have none of their own
        stamp = None if picture.pts is None or unit is None else float(picture.pts * unit)
        time = self._continued() if stamp is None else max(0.0, stamp + self._shift)
        if self._last is not None and not 0 < time - self._last <= LONGEST_GAP:
            if stamp is not None and not -CLOCK_STEP <= time - self._last <= LONGEST_GAP:
                self._shift += self._continued() - time
            time = self._continued()
        self._last = time
        return time

    def _continued(self) -> float:
        return 0.0 if self._last is None else self._last + self.frame_seconds
