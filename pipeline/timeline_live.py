"""`moclip timeline --live`: print events of a stream as they happen."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moclip.errors import MoclipError
from moclip.inference.events import Event, EventRules
from moclip.inference.live_timeline import LiveTimeline
from moclip.inference.predictor import Predictor
from moclip.inference.windows import Windows
from moclip.video.live import LiveSource
from pipeline.console.output import print_lines, screen
from pipeline.io import rounded
from pipeline.timeline_files import event_row
from pipeline.timeline_page import clock


def watch_stream(
    predictor: Predictor, source: LiveSource, windows: Windows, rules: EventRules, stream: str | None, as_json: bool
) -> None:
    """Print each event when it has ended, until the stream ends or Ctrl-C. Notes on breaks go to stderr."""
    streams = predictor.streams
    chosen = stream or (predictor.trusted if predictor.trusted in streams else streams[0])
    if chosen not in streams:
        fix = f"use one of: {', '.join(streams)}"
        raise MoclipError(f"these models have no stream {chosen}", where="--stream", fix=fix)
    live = LiveTimeline(predictor, source, windows, rules, chosen, _note)
    with _ctrl_c(live):
        for event in live.events():
            print(_json_line(event) if as_json else _line(event), flush=True)
    if live.dropped:
        _note(f"{live.dropped:.1f} s were dropped, because the networks could not keep up")


@contextmanager
def _ctrl_c(live: LiveTimeline) -> Iterator[None]:
    """Let the first Ctrl-C end the stream; a second one interrupts the program."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, previous)
        live.stop()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _note(text: str) -> None:
    if not screen.quiet:
        print_lines(f"timeline: {text}", sys.stderr)


def _line(event: Event) -> str:
    return f"{clock(event.start, 1)}  {clock(event.end, 1)}  {event.name}  {event.probability:.2f}"


def _json_line(event: Event) -> str:
    return json.dumps(rounded(event_row(event)))
