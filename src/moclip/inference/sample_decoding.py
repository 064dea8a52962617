"""Decode a long video into the samples that its windows take. Needs no networks, so a worker process can do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from moclip.inference.clip_input import FieldSettings
from moclip.inference.frame_samples import Sample, Sampling, read_samples
from moclip.inference.windows import Grid
from moclip.motion.quantise import saturation
from moclip.video.timed_frames import TimedFrame, TimedVideo, open_timed


class FrameObserver(Protocol):
    """Sees every frame of a video: its time in seconds since the start of the file, and the picture (PyAV's)."""

    def see(self, time: float, picture: Any) -> None: ...


Observer = TypeVar("Observer", bound=FrameObserver)


class NoObserver:
    """Takes no notice of the frames."""

    def see(self, time: float, picture: Any) -> None:
        pass


@dataclass(frozen=True)
class SampleSettings:
    """What to take from any video; see `Sampling`, which is for one with a known rate."""

    motion: Grid
    stills: Grid | None
    fields: FieldSettings
    stack: int


class Opened(NamedTuple):
    """What is known of a video before it is decoded; see `TimedVideo`."""

    rate: float
    codec: str
    offset: float


@dataclass
class Span:
    """Times of the first and of the last frame so far, in seconds; how many frames, from how many packets."""

    first: float | None = None
    last: float = 0.0
    frames: int = 0
    packets: int = 0

    def note(self, time: float) -> None:
        self.first = time if self.first is None else self.first
        self.last = time
        self.frames += 1

    def duration(self, rate: float) -> float:
        """Return seconds from the first frame to the end of the last one."""
        return 0.0 if self.first is None else self.last - self.first + 1 / rate


class Finished(NamedTuple, Generic[Observer]):
    """What is known after the last frame: its time and that of the first, and the observer, which has seen all."""

    span: Span
    observer: Observer


def decode_samples(
    path: str | Path, settings: SampleSettings, observer: Observer
) -> Iterator[Opened | Sample | Finished[Observer]]:
    """Yield what is known of a video, then its samples in order, then what is known at its end.

    Raises VideoError where it cannot be read: see `open_timed`.
    """
    span = Span()
    with open_timed(path, settings.fields.transcode) as video:
        yield Opened(video.rate, video.codec, video.offset)
        yield from samples_of(video, settings, path, span, observer)
        span.packets = video.packets.shown
    yield Finished(span, observer)


def samples_of(
    video: TimedVideo, settings: SampleSettings, where: str | Path, span: Span, observer: FrameObserver
) -> Iterator[Sample]:
    """Yield the samples of an open video; note its times in `span`. `where` names it in errors."""
    fields = settings.fields
    limit = saturation(video.rate, fields.clip, fields.per, where)

    def noted() -> Iterator[TimedFrame]:
        for frame in video.frames:
            span.note(frame.time)
            observer.see(frame.time, frame.frame.picture)
            yield frame

    sampling = Sampling(settings.motion, settings.stills, fields, limit, settings.stack, 1 / video.rate)
    return read_samples(noted(), sampling)
