"""How `moclip timeline` goes through its videos, and what it prints of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moclip.drawing.thumbnails import Thumbnails
from moclip.errors import MoclipError, VideoError, as_video_error
from moclip.inference.events import EventRules
from moclip.inference.predictor import Predictor
from moclip.inference.timeline import observe_timeline
from moclip.inference.windows import Windows
from moclip.video.timed_frames import header_seconds
from moclip.wording import counted
from moclip.workers.processes import SingleWorker, WorkerDiedError
from pipeline.console.output import STREAM_LABELS, print_result
from pipeline.console.progress import Advance, show_progress
from pipeline.timeline_files import VideoTimeline
from pipeline.timeline_page import clock


@dataclass(frozen=True)
class Request:
    """What is asked for: windows, which events are told, and the stream whose events are printed."""

    windows: Windows
    rules: EventRules
    stream: str


def checked_stream(predictor: Predictor, stream: str | None) -> str:
    """Return the stream that is asked for, or the one to trust. Raises MoclipError where the models lack it."""
    streams = predictor.streams
    if stream is not None and stream not in streams:
        fix = f"use one of: {', '.join(streams)}"
        raise MoclipError(f"these models have no stream {stream}", where="--stream", fix=fix)
    return stream or (predictor.trusted if predictor.trusted in streams else streams[0])


def checked_class(predictor: Predictor, name: str | None) -> str | None:
    """Return the class of the background. Raises MoclipError where the models do not know it."""
    if name is not None and name not in predictor.classes:
        fix = f"use one of: {', '.join(predictor.classes)}"
        raise MoclipError(f"{name!r} is not a class of the models", where="--background", fix=fix)
    return name


def read_videos(
    predictor: Predictor, request: Request, files: Sequence[Path]
) -> Iterator[tuple[Path, VideoTimeline | VideoError]]:
    """Yield each video with its timeline, or the reason why there is none. Shows progress in seconds of video."""
    with SingleWorker() as worker:
        seconds = [_whole_seconds(worker, path) for path in files]
        yield from _read_in_worker(predictor, request, files, seconds, worker)


def _whole_seconds(worker: SingleWorker, path: Path) -> int:
    try:
        return int(worker.run(header_seconds, path))
    except WorkerDiedError:
        return 0


def _read_in_worker(
    predictor: Predictor, request: Request, files: Sequence[Path], seconds: Sequence[int], worker: SingleWorker
) -> Iterator[tuple[Path, VideoTimeline | VideoError]]:
    with show_progress("timeline", sum(seconds), "second") as advance:
        for path, length in zip(files, seconds, strict=True):
            counter = _SecondCounter(advance, length)
            result: VideoTimeline | VideoError
            try:
                timeline, thumbnails = observe_timeline(
                    predictor, path, request.windows, Thumbnails(), worker, counter.reach
                )
                events = {stream: timeline.events(request.rules, stream) for stream in timeline.probabilities}
                result = VideoTimeline(path, timeline, events, request.stream, thumbnails.kept)
            except Exception as problem:  # one bad video must not stop the others
                result = as_video_error(problem, path)
            counter.finish()
            yield path, result


class _SecondCounter:
    """Counts whole seconds of a video for the progress."""

    def __init__(self, advance: Advance, seconds: int) -> None:
        self.advance, self.seconds = advance, seconds
        self._done = 0

    def reach(self, time: float) -> None:
        self._advance_to(min(int(time), self.seconds))

    def finish(self) -> None:
        """Count what the header announced and the video does not have."""
        self._advance_to(self.seconds)

    def _advance_to(self, seconds: int) -> None:
        if seconds > self._done:
            self.advance(seconds - self._done)
            self._done = seconds


def print_events(found: VideoTimeline) -> None:
    """Print the events of a video as a table."""
    rows = [
        (clock(event.start, 1), clock(event.end, 1), event.name, f"{event.probability:.2f}") for event in found.chosen
    ]
    length = clock(found.timeline.edges[-1], 1)
    title = f"{found.video}: {counted(len(rows), 'event')} in {length}, by {STREAM_LABELS[found.stream]}"
    print_result(title, ("start", "end", "class", "probability"), rows)
