"""What the page tells of a visitor's clip. It knows nothing of Gradio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moclip.drawing.thumbnails import Thumbnail
from moclip.errors import VideoError, as_video_error
from moclip.inference.clip_input import ClipInput, ClipJob
from moclip.inference.events import Event, EventRules
from moclip.inference.predictor import Prediction, Predictor
from moclip.inference.sample_decoding import Finished, Opened
from moclip.inference.smoothing import Smoothing
from moclip.inference.timeline import Timeline, gather_timeline, sample_settings
from moclip.inference.untrusted_clip import Found, Limits, MotionPicture, Part, ReadJob, read_parts
from moclip.inference.window_scores import Scores, WindowScorer
from moclip.inference.windows import SMALLEST, Windows
from moclip.workers.processes import WorkerDiedError, stream_from_worker
from pipeline.app.models import SEVERAL_LABELS, OfferedModel
from pipeline.ask.answer import Row
from pipeline.predict_answers import rejected, top_classes
from pipeline.timeline_files import event_row

Advance = Callable[[float, str], object]
"""Is told the share of the video that is done, and what happens."""


@dataclass(frozen=True)
class Settings:
    """How clips are answered: the limits, the classes shown of each stream, the windows, the nearest clips shown."""

    limits: Limits
    top: int = 5
    windows: Windows = field(default_factory=lambda: Windows(2.0, 0.5))
    nearest: int = 5


@dataclass(frozen=True)
class VideoStrip:
    """The timeline of a video, the events of each stream, the stream to trust, small pictures of the video."""

    timeline: Timeline
    events: dict[str, list[Event]]
    stream: str
    thumbnails: list[Thumbnail]


@dataclass(frozen=True)
class Answer:
    """What is told of a clip.

    motion : the picture of its motion, or why there is none.
    strip : None for a video that is not longer than a window, or if the models make none.
    nearest : the nearest clips of the training.
    notes : sentences on what was done in another way, or not at all.
    """

    name: str
    model: OfferedModel
    found: Found
    prediction: Prediction
    motion: MotionPicture | VideoError
    strip: VideoStrip | None
    nearest: list[Row]
    notes: list[str]


def answer_clip(
    model: OfferedModel,
    path: Path,
    name: str,
    settings: Settings,
    reject: bool = False,
    advance: Advance = lambda share, what: None,
) -> Answer:
    """Answer for a file by the models, which read it in a worker process of its own.

    `name` is what the visitor calls the file. With `reject` the answer may be unknown, and a timeline leaves that out.
    Raises VideoError where the file cannot be used.
    """
    predictor = model.answering(reject)
    windows = None if model.several_labels else settings.windows
    clip = ClipJob(path, predictor.fields, predictor.views)
    samples = None if windows is None else sample_settings(predictor, windows)
    job = ReadJob(clip, settings.limits, samples, settings.windows.length)
    advance(0, "reading")
    try:
        with closing(stream_from_worker(read_parts, job, seconds=settings.limits.patience)) as parts:
            found, clip_input, motion = _next(parts, Found), _next(parts, ClipInput), next(parts)
            assert isinstance(motion, MotionPicture | VideoError)
            prediction = predictor.classify(clip_input)
            strip = None if windows is None else _read_strip(predictor, model, windows, parts, found, advance)
    except WorkerDiedError as reason:
        raise VideoError(str(reason), where=path) from None
    except VideoError:
        raise
    except Exception as problem:  # such as pictures that an encoder cannot take
        raise as_video_error(problem, path) from None
    nearest = model.nearest(prediction, settings.nearest)
    notes = _notes(model, found, settings, reject)
    return Answer(name, model, found, prediction, motion, strip, nearest, notes)


def _next(parts: Iterator[Part], kind: type[Any]) -> Any:
    part = next(parts)
    assert isinstance(part, kind)
    return part


def _read_strip(
    predictor: Predictor, model: OfferedModel, windows: Windows, parts: Iterator[Part], found: Found, advance: Advance
) -> VideoStrip | None:
    """Return the timeline of the rest of the parts, as `read_timeline` does; None where there is no rest."""
    video = next(parts, None)
    if not isinstance(video, Opened):
        return None
    scorer = WindowScorer(predictor, windows)
    scores: list[Scores] = []
    for part in parts:
        if isinstance(part, Finished):
            duration = part.span.duration(video.rate)
            if duration <= windows.length + SMALLEST:
                return None
            scores += scorer.finish(duration)
            timeline = gather_timeline(predictor, video, windows, part.span, scores)
            return _strip_of(timeline, model, part.observer.kept)
        assert isinstance(part, list)
        scores += scorer.add(part)
        advance(min(part[-1].time / found.seconds, 1.0), "timeline")
    return None


def _strip_of(timeline: Timeline, model: OfferedModel, thumbnails: list[Thumbnail]) -> VideoStrip:
    windows = timeline.windows
    rules = EventRules(Smoothing(overlap=windows.length / windows.every), background=model.background)
    events = {stream: timeline.events(rules, stream) for stream in timeline.probabilities}
    return VideoStrip(timeline, events, timeline.trusted, thumbnails)


def _notes(model: OfferedModel, found: Found, settings: Settings, reject: bool) -> list[str]:
    notes = []
    if not found.has_vectors:
        what = "these are of a copy that was re-encoded to MPEG-4"
        notes.append(f"Videos of the codec {found.codec} have no motion vectors: {what}.")
    if model.several_labels:
        if found.seconds > settings.windows.length:
            notes.append(f"No timeline: {SEVERAL_LABELS}.")
        if reject:
            notes.append("Not “unknown”: a clip of which no label reaches its threshold has no predicted class.")
    elif reject and not model.can_reject:
        notes.append("These models do not say when a clip is unknown.")
    if model.training_clips is None:
        notes.append(f"Nearest training clips: not here: {model.no_training_clips}.")
    return notes


def answer_row(answer: Answer, top: int) -> dict[str, Any]:
    """Return what programs get: the row of `moclip predict --json`, and the model, events, nearest clips and notes."""
    row = {"clip": answer.name} | top_classes(answer.prediction, top)
    if answer.prediction.unknown is not None:
        row |= rejected(answer.prediction)
    row |= {"model": answer.model.name, "seconds": answer.found.seconds}
    if answer.strip:
        windows = answer.strip.timeline.windows
        row["windows"] = {"length": windows.length, "every": windows.every}
        row["events"] = {
            stream: [event_row(event) for event in events] for stream, events in answer.strip.events.items()
        }
    if answer.model.training_clips is not None:
        row["nearest"] = answer.nearest
    return row | {"notes": answer.notes}


def error_row(name: str, problem: VideoError) -> dict[str, Any]:
    """Return what programs get of a file that cannot be used."""
    return {"clip": name, "error": problem.what}
