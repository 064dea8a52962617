"""Which action happens when in a long video: score sliding windows in one pass over the file.

timeline = read_timeline(moclip.load("bundle"), "long.mp4", Windows(2.0, 0.5))
for event in timeline.events(EventRules()):
    print(event.start, event.end, event.name)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from moclip.errors import VideoError
from moclip.inference.events import Event, EventRules, find_events
from moclip.inference.frame_samples import Sample
from moclip.inference.predictor import Predictor, Step
from moclip.inference.read_ahead import ReadAhead
from moclip.inference.sample_decoding import (
    Finished,
    NoObserver,
    Observer,
    Opened,
    SampleSettings,
    Span,
    decode_samples,
    samples_of,
)
from moclip.inference.window_scores import Scores, WindowScorer, sampling_grids
from moclip.inference.windows import SMALLEST, Windows
from moclip.video.probe import PacketCount
from moclip.video.timed_frames import open_timed
from moclip.workers.processes import SingleWorker, WorkerDiedError

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
    damage : what of the video does not decode; "" for nothing.
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
    damage: str = ""

    @property
    def edges(self) -> np.ndarray:
        """Where the stretch of each window begins, and where the last one ends: (n + 1,) in seconds of the file."""
        return self.start + self.windows.edges(len(self.unknown), self.duration)

    def events(self, rules: EventRules, stream: str | None = None) -> list[Event]:
        """Return the events of a stream, by default the trusted one, in order."""
        probabilities = self.probabilities[stream or self.trusted]
        return find_events(probabilities, self.unknown, self.edges, self.classes, rules)


Progress = Callable[[float], object]
"""Is told how far a video is scored, in seconds after its first frame."""


def read_timeline(predictor: Predictor, path: str | Path, windows: Windows) -> Timeline:
    """Score the windows of a video, decoding it once in a thread.

    Memory does not grow with the video's length, except for the scores. A video that is not longer than a window is
    read again as one window, and has the answer of `Predictor`. A damaged video is used as far as it decodes. Windows
    that `predictor.rejection` finds unknown have no events; without it each window has an answer.

    Raises
    ------
    VideoError
        It cannot be read: see `open_timed`.
    """
    return observe_timeline(predictor, path, windows, NoObserver())[0]


def observe_timeline(
    predictor: Predictor,
    path: str | Path,
    windows: Windows,
    observer: Observer,
    worker: SingleWorker | None = None,
    progress: Progress = lambda time: None,
) -> tuple[Timeline, Observer]:
    """Do what `read_timeline` does. Also return the observer, which has seen every frame.

    With `worker` the video is decoded in its process: a decoder that crashes or hangs then raises VideoError. The
    observer is copied there and back.
    """
    scorer, settings = WindowScorer(predictor, windows), sample_settings(predictor, windows)
    found: list[Scores] = []
    facts: Opened | None = None
    finished: Finished[Observer] | None = None
    items = _decoded(path, settings, observer, worker)
    with ReadAhead(items, SAMPLES_AHEAD, interrupt=worker.interrupt if worker else None) as reader:
        for batch in reader.batches(SAMPLES_AT_ONCE):
            samples = [item for item in batch if isinstance(item, Sample)]
            found += scorer.add(samples)
            facts = next((item for item in batch if isinstance(item, Opened)), facts)
            finished = next((item for item in batch if isinstance(item, Finished)), finished)
            if samples:
                progress(samples[-1].time)
    assert facts is not None
    assert finished is not None
    duration = finished.span.duration(facts.rate)
    whole = Windows(duration, duration)
    if duration <= windows.length + SMALLEST and windows != whole:
        return observe_timeline(predictor, path, whole, observer, worker)[0], finished.observer
    found += scorer.finish(duration)
    return gather_timeline(predictor, facts, windows, finished.span, found), finished.observer


def sample_settings(predictor: Predictor, windows: Windows) -> SampleSettings:
    """Return what windows take from a video, as the predictor's models need it."""
    motion, stills = sampling_grids(predictor, windows)
    return SampleSettings(motion, stills, predictor.fields, predictor.views.stack)


def _decoded(
    path: str | Path, settings: SampleSettings, observer: Observer, worker: SingleWorker | None
) -> Iterator[Opened | Sample | Finished[Observer]]:
    if worker is None:
        yield from decode_samples(path, settings, observer)
        return
    try:
        yield from worker.stream(decode_samples, path, settings, observer)
    except WorkerDiedError as reason:
        raise VideoError(str(reason), where=path) from None


def score_serially(predictor: Predictor, path: Path, windows: Windows, step: Step = nullcontext) -> Iterator[Scores]:
    """Score a video without a thread; `step(name)` is entered around each step, for measurements."""
    scorer = WindowScorer(predictor, windows, step)
    span = Span()
    with open_timed(path, predictor.fields.transcode) as video:
        samples = samples_of(video, sample_settings(predictor, windows), path, span, NoObserver())
        while batch := _timed_batch(samples, step):
            yield from scorer.add(batch)
    yield from scorer.finish(span.duration(video.rate))


def _timed_batch(samples: Iterator[Sample], step: Step) -> list[Sample]:
    with step("decode"):
        return list(islice(samples, SAMPLES_AT_ONCE))


def gather_timeline(
    predictor: Predictor, facts: Opened, windows: Windows, span: Span, found: Sequence[Scores]
) -> Timeline:
    """Return the timeline of a video from the scores of its windows, in order, and the times of its frames."""
    probabilities = {
        stream: np.concatenate([scores.probabilities[stream] for scores in found]) for stream in found[0].probabilities
    }
    return Timeline(
        start=span.first or 0.0,
        duration=span.duration(facts.rate),
        rate=facts.rate,
        codec=facts.codec,
        offset=facts.offset,
        classes=predictor.classes,
        trusted=predictor.trusted if predictor.trusted in probabilities else "zero_shot",
        windows=windows,
        probabilities=probabilities,
        unknown=np.concatenate([scores.unknown for scores in found]),
        damage=PacketCount(span.packets).damage(span.frames),
    )
