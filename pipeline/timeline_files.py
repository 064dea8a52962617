"""What `moclip timeline` writes for each video: events as CSV, JSON and subtitles, and a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moclip.data.clip_folder import printable_name
from moclip.drawing.thumbnails import Thumbnail
from moclip.inference.event_files import events_csv, events_srt, events_vtt
from moclip.inference.events import Event
from moclip.inference.timeline import Timeline
from pipeline.io import DIGITS, rounded, write_text
from pipeline.timeline_page import page_text


@dataclass(frozen=True)
class VideoTimeline:
    """A video with its timeline, the events of each stream, and the stream that was asked for."""

    video: Path
    timeline: Timeline
    events: dict[str, list[Event]]
    stream: str
    thumbnails: list[Thumbnail]

    @property
    def chosen(self) -> list[Event]:
        return self.events[self.stream]


def write_files(found: VideoTimeline, path: Path) -> None:
    """Write `path` with the suffixes .csv, .json, .vtt, .srt and .html, atomically each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {
        ".csv": events_csv(found.chosen),
        ".vtt": events_vtt(found.chosen),
        ".srt": events_srt(found.chosen),
        ".json": json.dumps(describe(found), ensure_ascii=False)
        + "\n",  # thousands of windows: no line for each number
        ".html": page_text(found.video, found.timeline, found.events, found.stream, found.thumbnails, path.parent),
    }
    for suffix, text in texts.items():
        write_text(path.with_name(path.name + suffix), text)


def describe(found: VideoTimeline) -> dict[str, Any]:
    """Return what the JSON file holds: the events of each stream, and the scores of every window."""
    timeline = found.timeline
    return {
        "video": printable_name(str(found.video)),
        **({"damage": timeline.damage} if timeline.damage else {}),
        "seconds": rounded(timeline.duration),
        "start": rounded(timeline.start),
        "classes": timeline.classes,
        "stream": found.stream,
        "trusted": timeline.trusted,
        "events": {stream: [event_row(event) for event in events] for stream, events in found.events.items()},
        "windows": {
            "length": timeline.windows.length,
            "every": timeline.windows.every,
            "unknown": timeline.unknown.tolist(),
            "probabilities": {
                stream: np.round(values.astype(np.float64), DIGITS).tolist()
                for stream, values in timeline.probabilities.items()
            },
        },
    }


def event_row(event: Event) -> dict[str, Any]:
    times = {"start": round(event.start, 3), "end": round(event.end, 3)}
    return times | {"class": event.name, "probability": rounded(event.probability)}
