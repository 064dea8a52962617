"""Which action happens when in a long video: score sliding windows in one pass over the file.

timeline = read_timeline(moclip.load("bundle"), "long.mp4", Windows(2.0, 0.5))
for event in timeline.events(EventRules()):
    print(event.start, event.end, event.name)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from moclip.inference.events import Event, EventRules, find_events
from moclip.inference.frame_samples import Sample
from moclip.inference.predictor import Predictor, Step
from moclip.inference.read_ahead import ReadAhead
from moclip.inference.video_samples import SampleSettings, Span, Watch, video_samples
from moclip.inference.window_scores import Scores, WindowScorer, sampling_grids
from moclip.inference.windows import SMALLEST, Windows
from moclip.video.timed_frames import TimedVideo, open_timed

SAMPLES_AT_ONCE = 32
SAMPLES_AHEAD = 32
"""Samples that wait for the networks. Most are fields of some kB, but stills are whole pictures."""


@dataclass(frozen=True)
class Timeline:
    """The scores of a video's windows.

    start : time of the first frame in seconds, from the start of the file.
    duration : from the first frame to the end of the last, in seconds.
    rate : frames per second.
    codec : FFmpeg's name.
    offset : the time stamp, in seconds, at which the file starts; browsers count it.
    classes, trusted : of the predictor.
    windows : length and distance of the windows; of a shorter video its own length.
    probabilities : of each stream, float32 (n, classes).
    unknown : bool (n,), windows without an answer.
    """

    start: float
    duration: float
    rate: float
    codec: str
    offset: float
    classes: tuple[str, ...]
    trusted: str
    windows: Windows
    probabilities: dict[str, np.ndarray]
    unknown: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """Where the stretch of each window begins, and where the last one ends: (n + 1,) in seconds of the file."""
        return self.start + self.windows.edges(len(self.unknown), self.duration)

    def events(self, rules: EventRules, stream: str | None = None) -> list[Event]:
        """Return the events of a stream, by default the trusted one, in order."""
        probabilities = self.probabilities[stream or self.trusted]
        return find_events(probabilities, self.unknown, self.edges, self.classes, rules)


def read_timeline(
    predictor: Predictor, path: str | Path, windows: Windows, watch: Watch = lambda frame: None
) -> Timeline:
    """Score the windows of a video, decoding it once in a thread; `watch` is called there with every frame.

    Memory does not grow with the video's length, except for the scores. A video that is not longer than a window is
    read again as one window, and has the answer of `Predictor`. A damaged video is used as far as it decodes. Windows
    that `predictor.rejection` finds unknown have no events; without it each window has an answer.

    Raises
    ------
    VideoError
        It cannot be read: see `open_timed`.
    """
    scorer, span = WindowScorer(predictor, windows), Span()
    found: list[Scores] = []
    with open_timed(path, predictor.fields.transcode) as video:
        samples = samples_of(predictor, video, windows, path, span, watch)
        with ReadAhead(samples, SAMPLES_AHEAD) as reader:
            for batch in reader.batches(SAMPLES_AT_ONCE):
                found += scorer.add(batch)
    duration = span.duration(video.rate)
    whole = Windows(duration, duration)
    if duration <= windows.length + SMALLEST and windows != whole:
        return read_timeline(predictor, path, whole)
    found += scorer.finish(duration)
    return gather_timeline(predictor, video, windows, span, found)


def score_serially(predictor: Predictor, path: Path, windows: Windows, step: Step = nullcontext) -> Iterator[Scores]:
    """Score a video without a thread; `step(name)` is entered around each step, for measurements."""
    scorer = WindowScorer(predictor, windows, step)
    span = Span()
    with open_timed(path, predictor.fields.transcode) as video:
        samples = samples_of(predictor, video, windows, path, span, lambda frame: None)
        while batch := _timed_batch(samples, step):
            yield from scorer.add(batch)
    yield from scorer.finish(span.duration(video.rate))


def _timed_batch(samples: Iterator[Sample], step: Step) -> list[Sample]:
    with step("decode"):
        return list(islice(samples, SAMPLES_AT_ONCE))


def samples_of(
    predictor: Predictor, video: TimedVideo, windows: Windows, where: str | Path, span: Span, watch: Watch
) -> Iterator[Sample]:
    """Yield the samples of an open video; note its times in `span`."""
    return video_samples(video, sample_settings(predictor, windows), where, span, watch)


def sample_settings(predictor: Predictor, windows: Windows) -> SampleSettings:
    """Return what the windows of these models take from a video."""
    motion, stills = sampling_grids(predictor, windows)
    return SampleSettings(motion, stills, predictor.fields, predictor.views.stack)


def gather_timeline(
    predictor: Predictor, video: TimedVideo, windows: Windows, span: Span, found: Sequence[Scores]
) -> Timeline:
    """Return the timeline of a video from the scores of its windows, in order, and the times of its frames."""
    probabilities = {
        stream: np.concatenate([scores.probabilities[stream] for scores in found]) for stream in found[0].probabilities
    }
    return Timeline(
        start=span.first or 0.0,
        duration=span.duration(video.rate),
        rate=video.rate,
        codec=video.codec,
        offset=video.offset,
        classes=predictor.classes,
        trusted=predictor.trusted if predictor.trusted in probabilities else "zero_shot",
        windows=windows,
        probabilities=probabilities,
        unknown=np.concatenate([scores.unknown for scores in found]),
    )
