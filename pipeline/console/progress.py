"""Progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass
from pipeline.console.output import BRIEF, say, screen

LINE_EVERY = 10.0
"""Seconds between plain progress lines."""

Advance = Callable[[int], None]
Log = Callable[[dict[str, float]], None]


@contextmanager
def show_progress(label: str, total: int, unit: str = "clip") -> Iterator[Advance]:
    """Yield `advance(n)`: on a terminal a bar with rate and remaining time, elsewhere a line every 10 s.

    Lines also under --verbose, where a bar and the log would run into each other.
    """
    if screen.quiet:
        yield lambda count: None
    elif sys.stderr.isatty() and not screen.verbose:
        with _bar_on_screen(label, total, unit) as advance:
            yield advance
    else:
        lines = _Lines(label, total, unit)
        yield lines.advance
        lines.end()


class _Pace:
    """How fast work goes, by what was told of it.

    A run that was killed and goes on tells at its beginning, in one step or in many, what it finds done. That was not
    done in this time: so only the later half of the time counts, nor ever the first step.
    """

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.done = 0
        self.steps = deque([(self.begun, 0)])
        self.first: tuple[float, int] | None = None

    def advance(self, count: int) -> None:
        self.done += count
        self.steps.append((time.monotonic(), self.done))
        self.first = self.first or self.steps[-1]

    def rate(self) -> float:
        """Units a second; 0 as long as it is not known."""
        now = time.monotonic()
        while len(self.steps) > 1 and self.steps[1][0] <= (self.begun + now) / 2:
            self.steps.popleft()
        if self.first is None or self.done == self.first[1]:
            return 0.0
        return min((self.done - done) / max(now - then, 1e-9) for then, done in (self.steps[0], self.first))

    def seconds(self) -> float:
        return time.monotonic() - self.begun


@contextmanager
def _bar_on_screen(label: str, total: int, unit: str) -> Iterator[Advance]:
    from tqdm import tqdm

    pace = _Pace()

    class Bar(tqdm):
        @property
        def format_dict(self) -> dict[str, Any]:
            return {**super().format_dict, "rate": pace.rate()}

    def advance(count: int) -> None:
        pace.advance(count)
        bar.update(count)

    with Bar(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True) as bar:
        screen.bar = bar
        try:
            yield advance
            bar.leave = pace.seconds() >= BRIEF
        finally:
            screen.bar = None


class _Lines:
    """Progress for a log file: few lines, each whole."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.pace = _Pace()
        self.said = self.pace.begun

    def advance(self, count: int) -> None:
        self.pace.advance(count)
        if time.monotonic() - self.said >= LINE_EVERY and self.pace.done < self.total:
            self.said = time.monotonic()
            rate = self.pace.rate()
            left = f"{(self.total - self.pace.done) / rate:.0f} s left" if rate else "time left unknown"
            self._say(f"{rate:.1f}/s, {left}")

    def end(self) -> None:
        if self.pace.seconds() >= BRIEF:
            self._say(f"{self.pace.seconds():.0f} s")

    def _say(self, text: str) -> None:
        say(f"{self.label}: {self.pace.done}/{self.total} {self.unit}s, {text}", sys.stderr)
