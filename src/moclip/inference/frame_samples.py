"""What sliding windows take from the frames of a video, while it is decoded: motion fields and stills."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from moclip.inference.clip_input import FieldSettings
from moclip.inference.windows import Grid, GridCursor
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.video.geometry import upright_picture
from moclip.video.timed_frames import TimedFrame
from moclip.video.vector_records import DecodedFrame, unpack_vectors

MOTION, STILL = "motion", "still"


class Sample(NamedTuple):
    """What one frame gives to the windows.

    kind : `MOTION` or `STILL`.
    time : of the frame, in seconds after the first one.
    places : on the grid of this kind, at least one.
    content : int8 (2 * stack, rows, columns) motion fields, or an RGB picture uint8 (height, width, 3).
    """

    kind: str
    time: float
    places: list[int]
    content: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """What to take from the frames of a video, and how.

    motion, stills : the grids; `stills` is None where no encoder looks at them.
    fields : how vectors become a field.
    saturation : px per frame at which fields saturate.
    stack : how many neighbouring fields make a sample.
    frame_seconds : how long a frame lasts.
    """

    motion: Grid
    stills: Grid | None
    fields: FieldSettings
    saturation: float
    stack: int
    frame_seconds: float


def read_samples(frames: Iterable[TimedFrame], sampling: Sampling) -> Iterator[Sample]:
    """Yield the samples of a video in the order of their times, in memory that does not depend on its length.

    The field of a frame is computed at most once, and only if a window looks at it. A frame without vectors has the
    motion of the last one before it that has some, as in `data.sampling.motion_frames`.
    """
    still_places = GridCursor(sampling.stills, sampling.frame_seconds) if sampling.stills else None
    motion_places = GridCursor(sampling.motion, sampling.frame_seconds)
    motion = _MotionSamples(sampling)
    first: float | None = None
    for time, frame in frames:
        first = time if first is None else first
        elapsed = time - first
        if still_places and (places := still_places.take(elapsed)):
            yield Sample(STILL, elapsed, places, upright_picture(frame.picture))
        yield from motion.add(frame, elapsed, motion_places.take(elapsed))
    yield from motion.finish()


class _Field:
    """The motion field of a frame, computed when it is needed. Its source may only become known later."""

    def __init__(self) -> None:
        self.source: Callable[[], np.ndarray] | None = None

    @cached_property
    def levels(self) -> np.ndarray:
        """int8 (2, rows, columns)."""
        assert self.source is not None
        levels, self.source = self.source(), None
        return levels

    @property
    def is_known(self) -> bool:
        return self.source is not None or "levels" in self.__dict__


class _MotionSamples:
    """Makes the motion samples: each frame's field with its neighbours, which partly come after it."""

    def __init__(self, sampling: Sampling) -> None:
        self.stack = sampling.stack
        self.ahead = sampling.stack - 1 - sampling.stack // 2  # frames to wait for
        self.make_source = _field_maker(sampling.fields, sampling.saturation)
        self.latest = _Field()  # of frames before the first one with vectors: that one's
        self.neighbours: deque[_Field] = deque(maxlen=sampling.stack)
        self.waiting: deque[tuple[float, list[int], int]] = deque()  # samples, and how many frames they wait for
        self.ready: deque[tuple[float, list[int], list[_Field]]] = deque()

    def add(self, frame: DecodedFrame, time: float, places: list[int]) -> Iterator[Sample]:
        """Take the next frame; yield the samples that are complete with it."""
        source = self.make_source(frame)
        if frame.carries_motion:
            if self.latest.is_known:
                self.latest = _Field()
            self.latest.source = source
        if not self.neighbours:  # the first frame is repeated before the beginning
            self.neighbours.extend([self.latest] * (self.stack - 1))
        if places:
            self.waiting.append((time, places, self.ahead + 1))
        return self._step()

    def finish(self) -> Iterator[Sample]:
        """Yield the samples that waited for frames after the last one, which is repeated."""
        for _ in range(self.ahead):
            yield from self._step()

    def _step(self) -> Iterator[Sample]:
        self.neighbours.append(self.latest)
        self.waiting = deque((time, places, frames - 1) for time, places, frames in self.waiting)
        while self.waiting and self.waiting[0][2] == 0:
            time, places, _ = self.waiting.popleft()
            self.ready.append((time, places, list(self.neighbours)))
        while self.ready and self.ready[0][2][-1].is_known:
            time, places, fields = self.ready.popleft()
            yield Sample(MOTION, time, places, np.concatenate([field.levels for field in fields]))


def _field_maker(settings: FieldSettings, saturation: float) -> Callable[[DecodedFrame], Callable[[], np.ndarray]]:
    """Return a function that takes each frame in order, and gives what computes its field: int8 (2, rows, columns)."""
    if settings.accumulate:
        return _traced_fields(settings, saturation)

    def source(frame: DecodedFrame) -> Callable[[], np.ndarray]:
        kept = frame.without_picture()

        def levels() -> np.ndarray:
            return quantise(motion_field(unpack_vectors([kept]), settings.canvas, settings.cell), saturation)[0]

        return levels

    return source


def _traced_fields(settings: FieldSettings, saturation: float) -> Callable[[DecodedFrame], Callable[[], np.ndarray]]:
    """Do what `_field_maker` does for accumulated fields. They depend on all frames since the last I-frame."""
    waiting: deque[DecodedFrame] = deque()
    vectors = (unpack_vectors([waiting.popleft()]) for _ in iter(int, 1))  # endless
    fields = motion_fields(vectors, settings.canvas, settings.cell, settings.accumulate)

    def source(frame: DecodedFrame) -> Callable[[], np.ndarray]:
        waiting.append(frame.without_picture())
        levels = quantise(next(fields)[0], saturation)[0]
        return lambda: levels

    return source
