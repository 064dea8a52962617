"""What a command prints: results, notes, tables and errors, in one style.

Results and notes go to stdout, progress and errors to stderr. A result is what the command was asked for; notes and
tables tell about a stage's work, and --quiet leaves them out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm


BRIEF = 1.0
"""Seconds below which progress leaves no line: the stage's own line says it all."""
Value = TypeVar("Value")


@dataclass
class _Screen:
    """How much this process prints, and the progress bar that is on the screen."""

    quiet: bool = False
    verbose: bool = False
    bar: tqdm | None = None


screen = _Screen()


def set_verbosity(quiet: bool = False, verbose: bool = False) -> None:
    """Set how much is said from here on."""
    screen.quiet, screen.verbose = quiet, verbose


def print_note(text: str) -> None:
    """A line for the reader, on stdout; silent under --quiet."""
    if not screen.quiet:
        say(text, sys.stdout)


def print_error(text: str) -> None:
    """What went wrong, on stderr: "WHERE: WHAT", and what to do in an indented line below."""
    if tells():
        say(f"error: {text}", sys.stderr)


def tells() -> bool:
    """Whether it is up to this process to tell of an error: of several launched together, one does."""
    if "LOCAL_RANK" not in os.environ:
        return True
    from moclip.training.distributed import first_to_fail  # and with it torch

    return first_to_fail()


def say(text: str, stream: TextIO) -> None:
    """Print whole lines; a bar on the screen steps aside for them."""
    if screen.bar is None:
        print(text, file=stream, flush=True)
    else:
        screen.bar.write(text, file=stream)
        stream.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A stage's account of its work as a table; silent under --quiet."""
    if not screen.quiet:
        print_result(title, columns, rows)


def print_result(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], styles: Mapping[str, str] | None = None
) -> None:
    """Print a table that was asked for, on stdout: headers, columns of numbers to the right.

    As wide as the terminal; where stdout is none, as wide as it takes, without colours. `styles` maps a cell's whole
    text to rich's name of a style.
    """
    from rich.box import Box  # rich takes longer to import than `moclip --help` to run
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    ruled = Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)  # a line below the headers, nothing else
    shown = Table(box=ruled, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        right = all(_NUMBER.fullmatch(row[number]) for row in cells)
        shown.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in cells:
        shown.add_row(*(Text(cell, (styles or {}).get(cell, "")) for cell in row))  # Text: no markup in [brackets]
    terminal = sys.stdout.isatty()
    console = Console(
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        force_terminal=terminal,
        width=None if terminal else _NO_WIDTH,
    )
    with console.capture() as captured:
        console.print(Text(title, "bold"), soft_wrap=True)
        console.print(shown)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n", sys.stdout)


_NO_WIDTH = 1 << 16  # characters: nothing is cut or wrapped
_NUMBER = re.compile(r"-?|[-+]?\d[\d.,]*([-x±][\d.,]+)?( ?%)?")  # a range, "8x1", "0.91±0.02" too; or nothing

STREAM_LABELS = {
    "zero_shot": "zero-shot CLIP",
    "mv_image": "pictures of motion alone",
    "mv_tsn": "MV-TSN, motion alone",
    "score_sum": "sum of both scores",
    "fusion": "fusion of both",
}
"""What the streams are called wherever they are shown."""


def print_scores(
    streams: dict[str, dict[str, Any]], cost: dict[str, float], show: Callable[..., None] = print_table
) -> None:
    """The accuracies of the streams on the test split, and the multiply-adds of a video in millions."""
    first = next(iter(streams.values()))
    left_out = sum(first["skipped"].values())
    show(
        f"test split: {first['n']} clips scored, {left_out} left out",
        ("", "views", "top-1", "95 % interval", "top-5", "mean class", "M multiply-adds"),
        [
            (
                STREAM_LABELS[name],
                score["protocol"],
                f"{score['top1']:.4f}",
                f"{score['top1_low']:.4f}-{score['top1_high']:.4f}",
                *(f"{score[key]:.4f}" for key in ("top5", "mean_class_accuracy")),
                f"{cost[name]:,.1f}",
            )
            for name, score in streams.items()
        ],
    )


def print_failures(rows: pd.DataFrame, most: int = 10) -> None:
    """Name the rows (columns id, status, reason) that are not ok, the first `most` of them in full."""
    bad = rows[rows["status"] != "ok"]
    for row in bad.head(most).itertuples():
        print_note(f"  not usable: {row.id}: {row.reason}")
    if len(bad) > most:
        print_note(f"  ... and {len(bad) - most} more")
