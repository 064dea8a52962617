"""The page of a video's timeline: the video, its events on a strip, and a table of them."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from moclip.data.clip_folder import printable_name
from moclip.drawing.thumbnails import Thumbnail
from moclip.inference.events import Event
from moclip.inference.timeline import Timeline
from pipeline.console.output import STREAM_LABELS
from pipeline.pages import template

PLAYED = {
    ".mp4": ("h264", "vp9", "av1"),
    ".m4v": ("h264",),
    ".mov": ("h264",),
    ".webm": ("vp8", "vp9", "av1"),
}
"""Files that browsers play, with their codecs."""

COLOURS = 8
"""Classes with a colour of the page's own palette; further ones get a hue."""

TICKS = 8
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""Seconds between the marks of the time axis."""


def page_text(
    video: Path,
    timeline: Timeline,
    events: Mapping[str, Sequence[Event]],
    stream: str,
    thumbnails: Sequence[Thumbnail],
    folder: Path,
) -> str:
    """Return the page as HTML. It loads the video from where it lies, seen from `folder`, and nothing else."""
    plays = timeline.codec in PLAYED.get(video.suffix.lower(), ())
    return template("timeline.html", clock=clock).render(
        name=printable_name(video.name),
        offset=timeline.offset,
        windows=timeline.windows,
        trusted=STREAM_LABELS[timeline.trusted],
        shown=STREAM_LABELS[stream],
        source=quote(os.fsencode(os.path.relpath(video, folder))) if plays else None,
        pictures=[] if plays else [_picture(one) for one in thumbnails],
        events=events[stream],
        **strip_parts(timeline, events, stream),
    )


def strip_parts(timeline: Timeline, events: Mapping[str, Sequence[Event]], stream: str) -> dict[str, Any]:
    """Return what the template strips.html draws: the events of each stream, `stream` first, and the time axis."""
    end = float(timeline.edges[-1])
    names = sorted({event.name for found in events.values() for event in found}, key=timeline.classes.index)
    colours = {name: _colour(number) for number, name in enumerate(names)}
    order = sorted(events, key=lambda name: (name != stream, name != timeline.trusted))
    return {
        "end": end,
        "strips": [_strip(name, events[name], timeline, colours, end) for name in order],
        "ticks": [{"at": 100 * tick / end, "text": clock(tick)} for tick in _ticks(end)],
        "colours": colours,
    }


def clock(seconds: float, digits: int = 0) -> str:
    """Return a time as people write it: 1:05, 1:00:05, or 1:05.3 with a digit."""
    units = round(seconds * 10**digits)
    whole, rest = divmod(units, 10**digits)
    minutes, second = divmod(whole, 60)
    fraction = f".{rest:0{digits}d}" if digits else ""
    front = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else str(minutes)
    return f"{front}:{second:02d}{fraction}"


def _strip(
    stream: str, events: Sequence[Event], timeline: Timeline, colours: Mapping[str, str], end: float
) -> dict[str, Any]:
    """Return a stream's events as boxes, in percent of the time."""
    title = STREAM_LABELS[stream] + (" (trusted)" if stream == timeline.trusted else "")
    boxes = [
        {
            "left": 100 * event.start / end,
            "width": 100 * (event.end - event.start) / end,
            "colour": colours[event.name],
            "name": event.name,
            "title": f"{event.name} {event.probability:.2f}, {clock(event.start, 1)} to {clock(event.end, 1)}",
        }
        for event in events
    ]
    return {"title": title, "boxes": boxes, "stream": stream}


def _ticks(end: float) -> list[float]:
    step = next((step for step in STEPS if end / step <= TICKS), math.ceil(end / TICKS))
    return [float(step * number) for number in range(int(end / step) + 1)]


def _colour(number: int) -> str:
    """Return a colour of CSS: the page's palette, then hues that are far from each other (golden angle)."""
    return f"var(--c{number})" if number < COLOURS else f"hsl({137.5 * number % 360:.0f} 45% 55%)"


def _picture(thumbnail: Thumbnail) -> dict[str, Any]:
    return {
        "time": round(thumbnail.time, 3),
        "source": "data:image/jpeg;base64," + base64.b64encode(thumbnail.jpeg).decode(),
    }
