"""Read what the windows of a timeline take from a video.

Worker processes import this module, so it imports no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moclip.inference.clip_input import FieldSettings
from moclip.inference.frame_samples import Sample, Sampling, read_samples
from moclip.inference.windows import Grid
from moclip.motion.quantise import saturation
from moclip.video.timed_frames import TimedFrame, TimedVideo

Watch = Callable[[TimedFrame], object]


@dataclass(frozen=True)
class SampleSettings:
    """What the windows of some models take: the grids of motion and of stills, how vectors become fields, the stack."""

    motion: Grid
    stills: Grid | None
    fields: FieldSettings
    stack: int


@dataclass
class Span:
    """Times of the first and of the last frame so far, in seconds."""

    first: float | None = None
    last: float = 0.0

    def note(self, time: float) -> None:
        self.first = time if self.first is None else self.first
        self.last = time

    def duration(self, rate: float) -> float:
        """Return seconds from the first frame to the end of the last one."""
        return 0.0 if self.first is None else self.last - self.first + 1 / rate


def video_samples(
    video: TimedVideo, settings: SampleSettings, where: str | Path, span: Span, watch: Watch
) -> Iterator[Sample]:
    """Yield the samples of an open video; note its times in `span`. `watch` is called with every frame."""
    fields = settings.fields
    limit = saturation(video.rate, fields.clip, fields.per, where)

    def noted() -> Iterator[TimedFrame]:
        for frame in video.frames:
            span.note(frame.time)
            watch(frame)
            yield frame

    sampling = Sampling(settings.motion, settings.stills, fields, limit, settings.stack, 1 / video.rate)
    return read_samples(noted(), sampling)
