"""Show progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moclip.wording import time_text
from pipeline.console.output import print_lines, screen

LINE_INTERVAL = 10.0
"""Seconds between plain progress lines."""

SHORT_WORK = 1.0
"""Work that takes fewer seconds leaves no progress line: the stage's own line is enough."""

Advance = Callable[[int], None]
Log = Callable[[dict[str, float]], None]


@contextmanager
def show_progress(label: str, total: int, unit: str = "clip") -> Iterator[Advance]:
    """Yield `advance(count)`. On a terminal it moves a bar with rate and remaining time, elsewhere a line every 10 s.

    With --verbose there are lines too, because a bar and log messages would mix.
    """
    if screen.quiet:
        yield lambda count: None
    elif sys.stderr.isatty() and not screen.verbose:
        with _progress_bar(label, total, unit) as advance:
            yield advance
    else:
        lines = _ProgressLines(label, total, unit)
        yield lines.advance
        lines.end()


def show_hub_progress() -> None:
    """Show the bars of the hub's library on a terminal. Call it before anything imports the library."""
    if sys.stderr.isatty() and not screen.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "0"


class _Rate:
    """The rate of work, measured on the later half of the time so far, and never on the first step.

    A run that resumes reports at its start, in one step or in many, what an earlier run did. That must not count.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.done = 0
        self.steps = deque([(self.started, 0)])
        self.first: tuple[float, int] | None = None

    def advance(self, count: int) -> None:
        self.done += count
        self.steps.append((time.monotonic(), self.done))
        self.first = self.first or self.steps[-1]

    def per_second(self) -> float:
        """Return units per second, 0 while it is unknown."""
        now = time.monotonic()
        while len(self.steps) > 1 and self.steps[1][0] <= (self.started + now) / 2:
            self.steps.popleft()
        if self.first is None or self.done == self.first[1]:
            return 0.0
        return min((self.done - done) / max(now - then, 1e-9) for then, done in (self.steps[0], self.first))

    def seconds(self) -> float:
        return time.monotonic() - self.started


@contextmanager
def _progress_bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    from tqdm import tqdm

    rate = _Rate()

    class Bar(tqdm):
        @property
        def format_dict(self) -> dict[str, Any]:
            return {**super().format_dict, "rate": rate.per_second()}

    def advance(count: int) -> None:
        rate.advance(count)
        bar.update(count)

    with Bar(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True) as bar:
        screen.bar = bar
        try:
            yield advance
            bar.leave = rate.seconds() >= SHORT_WORK
        finally:
            screen.bar = None


def _rate_text(per_second: float) -> str:
    return f"{per_second:.1f}/s" if per_second >= 0.1 else f"{60 * per_second:.1f}/min"


class _ProgressLines:
    """Progress as few whole lines, for a log file."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.rate = _Rate()
        self.printed_at = self.rate.started

    def advance(self, count: int) -> None:
        self.rate.advance(count)
        if time.monotonic() - self.printed_at >= LINE_INTERVAL and self.rate.done < self.total:
            self.printed_at = time.monotonic()
            rate = self.rate.per_second()
            left = (self.total - self.rate.done) / rate if rate else None
            self._print("time left unknown" if left is None else f"{_rate_text(rate)}, {time_text(left)} left")

    def end(self) -> None:
        if self.rate.seconds() >= SHORT_WORK:
            self._print(time_text(self.rate.seconds()))

    def _print(self, text: str) -> None:
        print_lines(f"{self.label}: {self.rate.done:,}/{self.total:,} {self.unit}s, {text}", sys.stderr)
