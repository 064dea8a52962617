"""One bar for a whole run of stages, from the estimate of each and from the lines of progress that they print."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from pipeline.console.output import print_lines, screen

PROGRESS = re.compile(r"(?P<label>[a-z_]+(, .*)?): (?P<done>[\d,]+)/(?P<total>[\d,]+) \w+, ")
"""What `pipeline.console.progress` prints where there is no terminal."""

Parts = Mapping[str, tuple[float, int]]
"""Seconds of each stage, and how often its progress begins anew."""


class WholeProgress:
    """How far a run of stages is, in seconds of the estimate."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.total = sum(seconds for seconds, _ in parts.values())
        self.before = 0.0  # of the stages that have ended
        self.stage: str | None = None
        self.labels: list[str] = []
        self.share = 0.0

    def start(self, stage: str) -> None:
        """A stage begins, or is up to date."""
        self.before += self._seconds()
        self.stage, self.labels, self.share = stage, [], 0.0

    def read(self, line: str) -> bool:
        """Return whether a line of a stage is one of progress, and note it."""
        found = PROGRESS.match(line)
        if found is None:
            return False
        if found["label"] not in self.labels:
            self.labels.append(found["label"])
        parts = max(self.parts.get(self.stage or "", (0.0, 1))[1], len(self.labels))
        done = len(self.labels) - 1 + int(found["done"].replace(",", "")) / max(1, int(found["total"].replace(",", "")))
        self.share = max(self.share, min(1.0, done / parts))
        return True

    @property
    def seconds(self) -> float:
        return self.before + self.share * self._seconds()

    @property
    def percent(self) -> int:
        return int(100 * self.seconds / self.total) if self.total else 0

    def _seconds(self) -> float:
        return self.parts.get(self.stage or "", (0.0, 1))[0]


def has_bar() -> bool:
    """Return whether a run shows one bar: on a terminal, unless it prints log messages or nothing."""
    return sys.stderr.isatty() and not (screen.verbose or screen.quiet)


@contextmanager
def whole_bar(progress: WholeProgress) -> Iterator[None]:
    """Show the progress as a bar while the block runs. It moves by the clock, too, as far as the stage's estimate."""
    ended = threading.Event()
    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    with tqdm(total=round(progress.total, 1) or None, bar_format=layout, dynamic_ncols=True, leave=False) as bar:
        screen.bar = bar

        def move() -> None:
            stage, began = None, time.monotonic()
            while not ended.wait(0.5):
                if stage != progress.stage:
                    stage, began = progress.stage, time.monotonic()
                own = progress.parts.get(stage or "", (0.0, 1))[0]
                by_clock = progress.before + min(time.monotonic() - began, 0.9 * own)
                shown = progress.seconds if progress.share else by_clock
                bar.set_description_str(stage or "dvc", refresh=False)
                bar.update(max(0.0, min(shown, bar.total or shown) - bar.n))
                bar.refresh()

        thread = threading.Thread(target=move, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            screen.bar = None


def show_errors(stream: Iterator[str], progress: WholeProgress) -> None:
    """Print the lines that stages write to stderr, above the bar, but for those of progress."""
    for line in stream:
        if not progress.read(line):
            print_lines(line.rstrip("\n"), sys.stderr)
