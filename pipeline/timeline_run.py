"""How `moclip timeline` goes through its videos, and what it prints of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from moclip.drawing.thumbnails import Thumbnails
from moclip.errors import MoclipError, VideoError, as_video_error
from moclip.inference.events import EventRules
from moclip.inference.predictor import Predictor
from moclip.inference.timeline import Timeline, read_timeline
from moclip.inference.windows import Windows
from moclip.video.timed_frames import TimedFrame, header_seconds
from pipeline.console.output import STREAM_LABELS, print_result
from pipeline.console.progress import Advance, show_progress
from pipeline.timeline_files import VideoTimeline, all_events
from pipeline.timeline_page import clock


def read_videos(
    predictor: Predictor, files: Sequence[Path], windows: Windows, rules: EventRules, stream: str | None
) -> Iterator[tuple[Path, VideoTimeline | VideoError]]:
    """Yield each video with its timeline, or the reason why there is none. Shows progress in seconds of video."""
    seconds = [int(header_seconds(path)) for path in files]
    with show_progress("timeline", sum(seconds), "second") as advance:
        for path, length in zip(files, seconds, strict=True):
            watch = _Watch(advance, length)
            try:
                result: VideoTimeline | VideoError = _read_one(predictor, path, windows, rules, stream, watch)
            except MoclipError as problem:
                if not isinstance(problem, VideoError):
                    raise
                result = problem
            except Exception as problem:  # such as pictures that an encoder cannot take
                result = as_video_error(problem, path)
            watch.finish()
            yield path, result


def _read_one(
    predictor: Predictor, path: Path, windows: Windows, rules: EventRules, stream: str | None, watch: _Watch
) -> VideoTimeline:
    timeline = read_timeline(predictor, path, windows, watch.see)
    return VideoTimeline(
        path, timeline, all_events(timeline, rules), chosen_stream(timeline, stream), watch.thumbnails.kept
    )


def chosen_stream(timeline: Timeline, stream: str | None) -> str:
    """Return the stream that is asked for, or the one to trust. Raises MoclipError where the models lack it."""
    chosen = stream or timeline.trusted
    if chosen not in timeline.probabilities:
        fix = f"use one of: {', '.join(timeline.probabilities)}"
        raise MoclipError(f"these models have no stream {chosen}", where="--stream", fix=fix)
    return chosen


class _Watch:
    """Sees every frame: keeps thumbnails, and counts whole seconds for the progress."""

    def __init__(self, advance: Advance, seconds: int) -> None:
        self.advance, self.seconds = advance, seconds
        self.thumbnails = Thumbnails()
        self._done = 0

    def see(self, frame: TimedFrame) -> None:
        self.thumbnails.see(frame.time, frame.frame.picture)
        self._advance_to(min(int(frame.time), self.seconds))

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
    title = f"{found.video}: {len(rows)} events in {length}, by {STREAM_LABELS[found.stream]}"
    print_result(title, ("start", "end", "class", "probability"), rows)
