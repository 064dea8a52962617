"""`moclip timeline --live`: print events of a stream as they happen."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moclip.inference.events import Event
from moclip.inference.live_timeline import LiveTimeline
from moclip.inference.predictor import Predictor
from moclip.video.live import LiveSource
from pipeline.console.output import print_lines, screen
from pipeline.timeline_files import event_row
from pipeline.timeline_page import clock
from pipeline.timeline_run import Request


def watch_stream(predictor: Predictor, request: Request, source: LiveSource, as_json: bool) -> None:
    """Print each event when it has ended, until the stream ends or Ctrl-C. Notes on breaks go to stderr."""
    live = LiveTimeline(predictor, source, request.windows, request.rules, request.stream, _note)
    has_events = False
    with _ctrl_c(live):
        for event in live.events():
            has_events = True
            print(_json_line(event) if as_json else _line(event), flush=True)
    if not has_events:
        _note("the stream has ended, and had no event")
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
    return json.dumps(event_row(event))
