"""What a stage shows: progress (a bar on a terminal, plain lines when piped), tables, notes and errors on one style."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

LINE_EVERY = 10.0
"""Seconds between plain progress lines."""

_quiet = False
Advance = Callable[[int], None]
Log = Callable[[dict[str, float]], None]


def set_quiet(quiet: bool) -> None:
    global _quiet
    _quiet = quiet


def note(text: str) -> None:
    """A line for the reader, on stdout; silent under --quiet."""
    if not _quiet:
        print(text, flush=True)


def error(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    if _quiet:
        return
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 110).print(shown)


@contextmanager
def progress(label: str, total: int, unit: str = "clip") -> Iterator[Advance]:
    """Yield `advance(n)`: on a terminal a bar with rate and remaining time, when piped a line every 10 s."""
    if _quiet:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True) as bar:

            def step(count: int) -> None:
                bar.update(count)

            yield step
    else:
        lines = _Lines(label, total, unit)
        yield lines.advance
        lines.end()


class _Lines:
    """Progress for a log file: few lines, each whole."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.begun = self.said = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.said >= LINE_EVERY:
            self.said = time.monotonic()
            self._say()

    def end(self) -> None:
        self._say()

    def _say(self) -> None:
        seconds = time.monotonic() - self.begun
        rate = self.done / seconds if seconds > 0 else 0.0
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        print(
            f"{self.label}: {self.done}/{self.total} {self.unit}s, {rate:.1f}/s{left}",
            file=sys.stderr,
            flush=True,
        )


STREAMS = {
    "zero_shot": "zero-shot CLIP",
    "mv_image": "pictures of motion alone",
    "mv_tsn": "MV-TSN, motion alone",
    "score_sum": "sum of both scores",
    "fusion": "fusion of both",
}
"""What the streams are called wherever they are shown."""


def scores(streams: dict[str, dict[str, Any]], cost: dict[str, float]) -> None:
    """The accuracies of the streams on the test split, and the multiply-adds of a video in millions."""
    first = next(iter(streams.values()))
    left_out = sum(first["skipped"].values())
    table(
        f"test split: {first['n']} clips scored, {left_out} left out",
        ("", "views", "top-1", "95 % interval", "top-5", "mean class", "M multiply-adds"),
        [
            (
                STREAMS[name],
                score["protocol"],
                f"{score['top1']:.4f}",
                f"{score['top1_low']:.4f}-{score['top1_high']:.4f}",
                *(f"{score[key]:.4f}" for key in ("top5", "mean_class_accuracy")),
                f"{cost[name]:,.1f}",
            )
            for name, score in streams.items()
        ],
    )


def failures(rows: pd.DataFrame, most: int = 10) -> None:
    """Name the rows (columns id, status, reason) that are not ok, the first `most` of them in full."""
    bad = rows[rows["status"] != "ok"]
    for row in bad.head(most).itertuples():
        note(f"  not usable: {row.id}: {row.reason}")
    if len(bad) > most:
        note(f"  ... and {len(bad) - most} more")
