"""Print results, notes, tables and errors in one style.

Results and notes go to stdout, progress and errors to stderr. A result is what the command was asked for. Notes and
tables report on a stage's work, and --quiet silences them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from pipeline.console.label_scores import COLUMNS, label_score_rows

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

Value = TypeVar("Value")


@dataclass
class _Screen:
    """How much this process prints, and the progress bar on the screen."""

    quiet: bool = False
    verbose: bool = False
    bar: tqdm | None = None


screen = _Screen()


def set_verbosity(quiet: bool = False, verbose: bool = False) -> None:
    """Set how much this process prints."""
    screen.quiet, screen.verbose = quiet, verbose


def print_note(text: str) -> None:
    """Print a line on stdout, unless --quiet is given."""
    if not screen.quiet:
        print_lines(text, sys.stdout)


def print_error(text: str) -> None:
    """Print an error on stderr: "WHERE: WHAT", then what to do in an indented line."""
    if reports_errors():
        print_lines(f"error: {text}", sys.stderr)


def print_clip_errors(failed: Iterable[tuple[Any, str, str | None]]) -> None:
    """Print an error for each clip: its name, the reason, and below the first clip of each reason what to do."""
    told: set[str] = set()
    for clip, reason, fix in failed:
        print_error(f"{clip}: {reason}" + (f"\n  {fix}" if fix and reason not in told else ""))
        told.add(reason)


def reports_errors() -> bool:
    """Return whether this process prints errors. Of several processes that train together, only one does."""
    if "LOCAL_RANK" not in os.environ:
        return True
    from moclip.training.distributed import first_to_fail  # imports torch

    return first_to_fail()


def print_lines(text: str, stream: TextIO) -> None:
    """Print whole lines, above the progress bar if there is one."""
    if screen.bar is None:
        print(text, file=stream, flush=True)
    else:
        screen.bar.write(text, file=stream)
        stream.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table about a stage's work on stdout, unless --quiet is given."""
    if not screen.quiet:
        print_result(title, columns, rows)


def print_result(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], styles: Mapping[str, str] | None = None
) -> None:
    """Print a table on stdout, with headers, and with columns of numbers aligned right.

    It fits the width of the terminal. If stdout is not a terminal, it is as wide as needed and has no colours. `styles`
    maps the text of a cell to the name of one of rich's styles.
    """
    from rich.box import Box  # rich takes longer to import than `moclip --help` to run
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    rule_below_headers = Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)
    table = Table(box=rule_below_headers, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        right = all(_NUMBER.fullmatch(row[number]) for row in cells)
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, (styles or {}).get(cell, "")) for cell in row))  # Text: [brackets] are not markup
    terminal = sys.stdout.isatty()
    console = Console(
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        force_terminal=terminal,
        width=None if terminal else _NO_WIDTH,
    )
    with console.capture() as captured:
        console.print(Text(title, "bold"), soft_wrap=True)
        console.print(table)
    print_lines("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n", sys.stdout)


_NO_WIDTH = 1 << 16  # characters: nothing is cut or wrapped
_NUMBER = re.compile(r"-?|[-+]?\d[\d.,]*([-x±][\d.,]+)?( ?%)?")  # also a range, "8x1", "0.91±0.02", or an empty cell

STREAM_LABELS = {
    "majority": "commonest class",
    "zero_shot": "zero-shot CLIP",
    "still": "fusion head, still alone",
    "mv_image": "pictures of motion alone",
    "motion_probe": "linear probe, motion alone",
    "mv_tsn": "MV-TSN, motion alone",
    "score_sum": "sum of both scores",
    "fusion": "fusion head",
}
"""The names of the streams in tables, plots and the report."""


def print_scores(
    streams: dict[str, dict[str, Any]], cost: dict[str, float], show: Callable[..., None] = print_table
) -> None:
    """Print the accuracies of the streams on the test split, and the multiply-adds of a video in millions.

    With several labels a clip they are the mean average precisions.
    """
    first = next(iter(streams.values()))
    skipped = sum(first["skipped"].values())
    title = f"test split: {first['n']} clips scored, {skipped} left out"
    if "map" in first:
        show(title, COLUMNS, label_score_rows(streams, cost, STREAM_LABELS))
        return
    show(
        title,
        ("", "views", "top-1", "mean class", "95 % interval", "top-5", "M multiply-adds"),
        [
            (
                STREAM_LABELS[name],
                score["protocol"],
                *(f"{score[key]:.4f}" for key in ("top1", "mean_class_accuracy")),
                f"{score['top1_low']:.4f}-{score['top1_high']:.4f}",
                f"{score['top5']:.4f}",
                f"{cost[name]:,.1f}",
            )
            for name, score in streams.items()
        ],
    )


def print_verdict(
    verdict: Mapping[str, Any], majority: Mapping[str, Any], show: Callable[[str], None] = print_note
) -> None:
    """Print the verdict in words, after a warning if the classes are unbalanced; `majority` is that stream's scores."""
    from moclip.evaluation.verdict import unbalanced_sentence, verdict_sentences  # imports numpy

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for sentence in (*unbalanced_sentence(majority), *verdict_sentences(verdict, STREAM_LABELS)):
        show(textwrap.fill(sentence, width) if width else sentence)


def print_rejection(found: Mapping[str, Any], show: Callable[[str], None] = print_note) -> None:
    """Print what `moclip predict --reject` does to the test clips; `found` is what metrics/reject.json holds."""
    test, clips, sentence = found["test"], found["validation"]["clips"], "with --reject: "
    if not found["validation"]["enough"]:
        sentence += f"cannot tell with {clips} validation clips which to reject; with the lowest {found['score']}, it "
    sentence += f"answers {_percent(test['answered'])} of the {test['clips']} test clips"
    if test["right_of_answered"] is not None:
        sentence += f", {_percent(test['right_of_answered'])} of them right"
    for name in ("background", "unknown"):
        if other := found.get(name):
            sentence += f", and {_percent(other['answered'])} of the {other['clips']} of {', '.join(other['classes'])}"
    show(sentence)


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"


def print_calibration(streams: dict[str, dict[str, Any]]) -> None:
    """Print the calibration error of each stream, before and after its logits are divided by its temperature."""
    errors = [
        f"{STREAM_LABELS[name]} {score['calibration_error']:.4f} -> {score['calibration_error_after']:.4f}"
        for name, score in streams.items()
        if "temperature" in score
    ]
    print_note(f"calibration error: {'; '.join(errors)}")


def print_failures(rows: pd.DataFrame, most: int = 10) -> None:
    """Print the id and reason of rows (columns id, status, reason) that are not ok, at most `most`."""
    failed = rows[rows["status"] != "ok"]
    for row in failed.head(most).itertuples():
        print_note(f"  not usable: {row.id}: {row.reason}")
    if len(failed) > most:
        print_note(f"  ... and {len(failed) - most} more")
