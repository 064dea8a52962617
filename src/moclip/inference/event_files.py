"""Events as text: CSV, and subtitles in WebVTT and SubRip that players show over the video."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from moclip.inference.events import Event

COLUMNS = ("start", "end", "class", "probability")


def events_csv(events: Sequence[Event]) -> str:
    """Return a row per event: start and end in seconds, class, probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for event in events:
        writer.writerow((f"{event.start:.3f}", f"{event.end:.3f}", event.name, f"{event.probability:.4f}"))
    return text.getvalue()


def events_vtt(events: Sequence[Event]) -> str:
    """Return WebVTT, the subtitles of web pages."""
    cues = [f"{clock_time(event.start)} --> {clock_time(event.end)}\n{_cue(event)}\n" for event in events]
    return "\n".join(["WEBVTT\n", *cues])


def events_srt(events: Sequence[Event]) -> str:
    """Return SubRip, the subtitles of players."""
    cues = [
        f"{number}\n{clock_time(event.start, ',')} --> {clock_time(event.end, ',')}\n{_cue(event)}\n"
        for number, event in enumerate(events, 1)
    ]
    return "\n".join(cues)


def clock_time(seconds: float, point: str = ".") -> str:
    """Return a time as hours, minutes, seconds and milliseconds: 01:02:03.456."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _cue(event: Event) -> str:
    """Return the text of a cue, without what means something in WebVTT: "-->", "&", "<" and line breaks."""
    name = " ".join(event.name.split()).replace("&", "+").replace("<", "(").replace(">", ")")
    return f"{name} {event.probability:.2f}"
