"""When each picture of a video is shown."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from moclip.video.decoding import (
    SIZE_LIMIT,
    SKIP_PIXELS,
    USUAL_RATE,
    decode_pictures,
    frame_rate,
    open_stream,
    read_packets,
)

SECOND = 1_000_000
"""Times are whole microseconds, as the container's start time is."""


def frame_duration(rate: float) -> float:
    """Return how long a picture is shown, in microseconds, at `rate` frames per second; 0 stands for unknown."""
    return SECOND / (rate or USUAL_RATE)


def shown_times(stamps: Iterable[int | None], time_base: Fraction, start: int | None, rate: float) -> np.ndarray:
    """Return the time of each picture in microseconds: (pictures,) int64, never decreasing, from 0.

    Time 0 is the container's start time, which players show as 0 and from which `ffmpeg -ss` counts. The container may
    start with sound, before its first picture. A picture without a time stamp is shown 1 / `rate` seconds after the one
    before it, and so is one whose time stamp is more than half of that earlier than the time of the one before it: a
    recorder set its clock back.

    Parameters
    ----------
    stamps : the pictures' time stamps (pts) in units of `time_base` seconds, in the order in which they are shown.
    start : the container's start time in microseconds. None: 0.
    rate : frames per second. 0: unknown.
    """
    duration = frame_duration(rate)
    ticks, unit = 2 * time_base.numerator * SECOND, 2 * time_base.denominator
    times: list[float] = []
    before = -duration
    for stamp in stamps:
        # rounded as FFmpeg rounds the start time: the first picture of a container that starts with it has time 0
        time = None if stamp is None else (stamp * ticks + time_base.denominator) // unit - (start or 0)
        is_behind = time is None or 2 * (before - time) > duration
        before = before + duration if time is None or is_behind else max(time, before)
        times.append(before)
    return np.maximum(np.rint(np.array(times, np.float64)), 0).astype(np.int64)


def read_times(path: str | Path) -> np.ndarray:
    """Return the time of each picture that a plain decode of a file of any codec shows (`shown_times`).

    Raises VideoError where it is no video.
    """
    with open_stream(path) as (container, stream):
        stream.codec_context.options = SIZE_LIMIT | SKIP_PIXELS
        stamps = [picture.pts for picture in decode_pictures(stream, read_packets(container, stream))]
        return shown_times(stamps, stream.time_base, container.start_time, frame_rate(stream))
