"""Which action happens now: events of a live stream, while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from moclip.errors import VideoError, as_video_error
from moclip.inference.events import Event, EventBuilder, EventRules
from moclip.inference.frame_samples import MOTION, Sample
from moclip.inference.label_stream import LabelledWindow, LabelStream
from moclip.inference.predictor import Predictor
from moclip.inference.read_ahead import ReadAhead
from moclip.inference.timeline import SAMPLES_AT_ONCE, samples_of
from moclip.inference.video_samples import Span
from moclip.inference.window_scores import Scores, WindowScorer, sampling_grids
from moclip.inference.windows import Windows
from moclip.video.live import LiveSource, open_live
from moclip.video.timed_frames import TimedFrame

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before an attempt to connect again; it doubles
DROPS_PER_NOTE = 10.0  # seconds
Note = Callable[[str], object]


class Started(NamedTuple):
    """A connection gives frames. Its first one is at `time`, in seconds since the first frame of all."""

    time: float


class Ended(NamedTuple):
    """A connection has ended after so many seconds of the stream."""

    duration: float


LiveItem = Started | Sample | Ended


@dataclass
class _Connection:
    """What is known of a connection: the models' part of it, and the time of its first frame."""

    scorer: WindowScorer
    labels: LabelStream
    start: float


class LiveTimeline:
    """Watches a stream. `note` is told of breaks, and of what was dropped; it is called from a thread.

    Times are seconds since the first frame. They follow the stream's time stamps. After a break they go on at the time
    that has passed meanwhile, or where the stream was, if that is later. An event ends at a break.

    Memory is bounded: if the networks cannot keep up, the oldest samples are dropped. A file waits instead.
    """

    def __init__(
        self, predictor: Predictor, source: LiveSource, windows: Windows, rules: EventRules, stream: str, note: Note
    ) -> None:
        self.predictor, self.source, self.windows, self.rules = predictor, source, windows, rules
        self.stream, self.note = stream, note
        self.frames = 0
        self.dropped = 0.0  # seconds
        self._stop = threading.Event()
        self._builder = EventBuilder(predictor.classes, rules)
        self._connection: _Connection | None = None
        self._reader: ReadAhead[LiveItem] | None = None

    def events(self) -> Iterator[Event]:
        """Yield each event when it has ended, until the stream ends or `stop` is called.

        Raises VideoError where the stream cannot be opened, or gives no frame that can be used.
        """
        grid, _ = sampling_grids(self.predictor, self.windows)
        limit = max(8, round(self.source.buffer / grid.step))
        self._reader = ReadAhead(self._items(), limit, None if self.source.is_file else self._drop)
        for batch in self._reader.batches(SAMPLES_AT_ONCE):
            samples: list[Sample] = []
            for item in batch:
                if isinstance(item, Sample):
                    samples.append(item)
                    continue
                yield from self._score(samples)
                samples = []
                if isinstance(item, Started):
                    self._begin(item.time)
                else:
                    yield from self._end(item.duration)
            yield from self._score(samples)
        yield from self._end(None)

    def stop(self) -> None:
        """Let `events` end: it yields what is going on, and returns. May be called by a signal handler."""
        self._stop.set()
        if self._reader:
            self._reader.stop()

    # ------------------------------------------------------------------------------------------ the networks

    def _begin(self, start: float) -> None:
        scorer = WindowScorer(self.predictor, self.windows)
        self._connection = _Connection(scorer, LabelStream(self.rules.smoothing), start)

    def _score(self, samples: list[Sample]) -> Iterator[Event]:
        if self._connection and samples:
            yield from self._label(self._connection, self._connection.scorer.add(samples))

    def _label(self, connection: _Connection, found: Iterator[Scores]) -> Iterator[Event]:
        for scores in found:
            for window in connection.labels.add(scores.probabilities[self.stream], scores.unknown):
                yield from self._tell(connection, window, self.windows.stretch(window.number)[1])

    def _tell(self, connection: _Connection, window: LabelledWindow, end: float) -> Iterator[Event]:
        start = self.windows.stretch(window.number)[0]
        return self._builder.add(window.label, window.probability, connection.start + start, connection.start + end)

    def _end(self, duration: float | None) -> Iterator[Event]:
        """End a connection, and the event that is going on. None: it was stopped midway."""
        connection, self._connection = self._connection, None
        if connection:
            if duration is not None:
                yield from self._label(connection, connection.scorer.finish(duration))
            for window in connection.labels.finish():
                end = self.windows.stretch(window.number)[1]
                if duration is not None:
                    end = duration if window.number == connection.scorer.done - 1 else min(end, duration)
                yield from self._tell(connection, window, end)
        yield from self._builder.finish()

    # ------------------------------------------------------------------------------------ the thread that reads

    def _drop(self, item: LiveItem) -> bool:
        """Return whether an item may be lost, and count what is."""
        if not isinstance(item, Sample):
            return False
        if item.kind == MOTION:
            before = self.dropped
            self.dropped += len(item.places) * sampling_grids(self.predictor, self.windows)[0].step
            if not before or int(before / DROPS_PER_NOTE) < int(self.dropped / DROPS_PER_NOTE):
                self.note(f"the networks cannot keep up: {self.dropped:.1f} s dropped so far")
        return True

    def _items(self) -> Iterator[LiveItem]:
        """Read the stream, and connect again after breaks."""
        clock = _LiveClock()
        failures = 0
        while True:
            frames_before, reason = self.frames, f"the stream ended, or gave no frame for {self.source.timeout:g} s"
            try:
                yield from self._read_connection(clock)
            except VideoError as problem:
                reason = problem.what
            failures = 0 if self.frames > frames_before else failures + 1
            ended = self.source.is_file and (self.frames > 0 or not Path(self.source.url).is_file())
            if ended or failures >= max(1, self.source.retries) or not self.source.retries or self._stop.is_set():
                if failures and self.frames:
                    self.note(f"{reason}; attempts to connect again: {failures}, the last one failed too")
                break
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2**failures)
            self.note(f"{reason}; connecting again in {wait:g} s")
            self._stop.wait(wait)
        if not self.frames and not self._stop.is_set():
            raise VideoError(reason, where=self.source.url, fix="check the address, and that something is sent there")

    def _read_connection(self, clock: _LiveClock) -> Iterator[LiveItem]:
        """Read one connection to its end. Raises VideoError for what ended it, if anything is wrong."""
        span, rate, begun = Span(), 0.0, False
        problem: VideoError | None = None
        try:
            with open_live(self.source, self.predictor.fields.transcode) as video:
                rate = video.rate
                for sample in samples_of(
                    self.predictor, video, self.windows, self.source.url, span, self._watch(clock)
                ):
                    if not begun:
                        begun = True
                        yield Started(clock.start)
                    yield sample
                    if self._stop.is_set():
                        break
        except Exception as found:  # whatever a broken stream causes, the next connection may be good
            problem = as_video_error(found, self.source.url)
        if begun:
            clock.end(span.duration(rate))
            yield Ended(span.duration(rate))
        if problem:
            raise problem

    def _watch(self, clock: _LiveClock) -> Callable[[TimedFrame], None]:
        clock.connect()

        def see(frame: TimedFrame) -> None:
            clock.see()
            self.frames += 1

        return see


class _LiveClock:
    """The time at which each connection starts, in seconds since the first frame of all."""

    def __init__(self) -> None:
        self.start = 0.0
        self._began: float | None = None
        self._earliest = 0.0
        self._waiting = False

    def connect(self) -> None:
        self._waiting = True

    def see(self) -> None:
        """Note that a frame has come."""
        if self._waiting:
            self._waiting = False
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            self.start = max(self._earliest, now - self._began)

    def end(self, duration: float) -> None:
        """Note that the connection has ended after so many seconds of the stream."""
        self._earliest = self.start + duration
