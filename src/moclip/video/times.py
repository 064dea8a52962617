"""When each picture of a video is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TypeVar

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

Item = TypeVar("Item")

SECOND = 1_000_000
"""Times are microseconds, as the container's start time is."""

HIGHEST_RATE = 1000.0
"""Frames per second; a file that says more does not know."""
LONGEST_GAP = 3600 * SECOND
"""Between two frames; a longer gap is a clock that was set, not a pause."""
OUTLIER = 2.5
"""Durations of a picture by which a lone time stamp must be out of line to be ignored."""
CLOCK_STEP = SECOND
"""By which times must go back to count as a clock that was set, not as frames out of order."""


def usable_rate(rate: float) -> float:
    """Return frames per second, `USUAL_RATE` where the file does not say."""
    return rate if 0 < rate <= HIGHEST_RATE else USUAL_RATE


def frame_duration(rate: float) -> float:
    """Return how long a picture is shown, in microseconds, at `rate` frames per second; 0 stands for unknown."""
    return SECOND / usable_rate(rate)


class FrameClock:
    """Gives each picture its time in microseconds from its time stamp. Times never go back.

    Time 0 is the container's start time, which players show as 0 and from which `ffmpeg -ss` counts. The container may
    start with sound, before its first picture. A picture without a time stamp is shown 1 / `rate` seconds after the one
    before it, and so is one whose time stamp is more than half of that earlier than the time of the one before it. If
    the clock was set (`CLOCK_STEP`, `LONGEST_GAP`: a recorder's, or parts joined in a row), the time stamps after it
    count on from there. A lone time stamp that is out of line looks like a clock that was set: see `without_outliers`.

    Parameters
    ----------
    start : the container's start time in microseconds. None: 0.
    rate : frames per second. 0: unknown.
    """

    def __init__(self, start: int | None, rate: float) -> None:
        self._duration = frame_duration(rate)
        self._shift = float(-(start or 0))
        self._last = -self._duration
        self._begun = False

    def time_of(self, stamp: int | None, time_base: Fraction | None) -> float:
        """Return the time of the next picture; `stamp` is its time stamp (pts) in units of `time_base` seconds."""
        continued = self._last + self._duration
        if stamp is None or time_base is None:
            time = continued
        else:
            time = max(0.0, _microseconds(stamp, time_base) + self._shift)
            ahead = time - self._last
            if self._begun and not -CLOCK_STEP <= ahead <= LONGEST_GAP:
                self._shift += continued - time
                time = continued
            elif 2 * ahead < -self._duration:
                time = continued
        self._last = max(time, self._last)
        self._begun = True
        return self._last


def _microseconds(stamp: int, time_base: Fraction) -> int:
    """Round as FFmpeg rounds the start time: the first picture of a container that starts with it has time 0."""
    ticks, unit = 2 * time_base.numerator * SECOND, 2 * time_base.denominator
    return (stamp * ticks + time_base.denominator) // unit


def without_outliers(
    pictures: Iterable[tuple[Item, int | None]], rate: float, time_base: Fraction
) -> Iterator[tuple[Item, int | None]]:
    """Pass pictures and their time stamps on, one behind; with None in place of a stamp that is an outlier.

    It is one if the picture after it follows the one before it, and itself it is more than `OUTLIER` durations of a
    picture later than the next one, or earlier than the one before. A first stamp is one if the second is earlier.
    """
    least = OUTLIER * frame_duration(rate) / float(SECOND * time_base)
    end: tuple[Any, None] = (None, None)
    before: int | None = None
    for (picture, stamp), (_, after) in pairwise(chain(pictures, [end])):
        if stamp is not None and after is not None and _is_outlier(before, stamp, after, least):
            yield picture, None
        else:
            yield picture, stamp
            before = before if stamp is None else stamp


def _is_outlier(before: int | None, own: int, after: int, least: float) -> bool:
    if before is None:
        return own > after
    return before < after and (own > after + least or own < before - least)


def shown_times(stamps: Iterable[int | None], time_base: Fraction, start: int | None, rate: float) -> np.ndarray:
    """Return the time of each picture by a `FrameClock`, in microseconds: (pictures,) int64, never decreasing, from 0.

    `stamps` are the pictures' time stamps in the order in which they are shown.
    """
    clock = FrameClock(start, rate)
    kept = without_outliers(((None, stamp) for stamp in stamps), rate, time_base)
    times = [clock.time_of(stamp, time_base) for _, stamp in kept]
    return np.maximum(np.rint(np.array(times, np.float64)), 0).astype(np.int64)


def read_times(path: str | Path) -> np.ndarray:
    """Return the time of each picture that a plain decode of a file of any codec shows (`shown_times`).

    Raises VideoError where it is no video.
    """
    with open_stream(path) as (container, stream):
        stream.codec_context.options = SIZE_LIMIT | SKIP_PIXELS
        stamps = [picture.pts for picture in decode_pictures(stream, read_packets(container, stream))]
        return shown_times(stamps, stream.time_base, container.start_time, frame_rate(stream))
