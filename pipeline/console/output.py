"""Print results, notes, tables and errors in one style.

Results and notes go to stdout, progress and errors to stderr. A result is what the command was asked for. Notes and
tables report on a stage's work, and --quiet silences them.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from moclip.wording import counted
from pipeline.console.label_scores import COLUMNS, label_score_rows
from pipeline.console.tables import table_lines

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


def print_damage(clip: object, damage: str) -> None:
    """Warn on stderr of a clip of which only a part decodes."""
    print_lines(f"warning: {clip}: damaged, used as far as it decodes: {damage}", sys.stderr)


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
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    styles: Mapping[str, str] | None = None,
    repeated: int = 1,
) -> None:
    """Print a table on stdout, with headers, and with columns of numbers aligned right.

    It fits the width of the terminal (`table_lines`). If stdout is not a terminal, it is as wide as needed and has no
    colours. `styles` maps the text of a cell to the name of one of rich's styles.
    """
    from rich.console import Console  # rich takes longer to import than `moclip --help` to run

    terminal = sys.stdout.isatty()
    console = Console(
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        force_terminal=terminal,
        width=None if terminal else _NO_WIDTH,
    )
    print_lines("\n".join(table_lines(title, columns, rows, console, styles, repeated)) + "\n", sys.stdout)


_NO_WIDTH = 1 << 16  # characters: nothing is cut or wrapped

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


FEW_CLASSES = 10
"""Up to this many classes top-5 tells little: half of them or more are among the five."""


def print_scores(
    streams: dict[str, dict[str, Any]], cost: dict[str, float], show: Callable[..., None] = print_table
) -> None:
    """Print the accuracies of the streams on the test split, and the multiply-adds of a video in millions.

    Top-5 is shown for more than `FEW_CLASSES` classes. With several labels a clip the scores are the mean average
    precisions.
    """
    first = next(iter(streams.values()))
    skipped = sum(first["skipped"].values())
    title = f"test split: {counted(first['n'], 'clip')} scored, {skipped:,} left out"
    if "map" in first:
        show(title, COLUMNS, label_score_rows(streams, cost, STREAM_LABELS))
        return
    top5 = len(first["per_class"]) > FEW_CLASSES
    show(
        title,
        ("", "views", "top-1", "mean class", "95 % interval", *(["top-5"] if top5 else []), "M multiply-adds"),
        [
            (
                STREAM_LABELS[name],
                score["protocol"],
                *(f"{score[key]:.3f}" for key in ("top1", "mean_class_accuracy")),
                f"{score['top1_low']:.3f}-{score['top1_high']:.3f}",
                *([f"{score['top5']:.3f}"] if top5 else []),
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

    for sentence in (*unbalanced_sentence(majority), *verdict_sentences(verdict, STREAM_LABELS)):
        show(wrapped(sentence))


def wrapped(sentence: str, indent: str = "") -> str:
    """Return a sentence in lines of the terminal's width, with `indent` before all but the first; else as it is."""
    if not sys.stdout.isatty():
        return sentence
    width = shutil.get_terminal_size().columns
    return textwrap.fill(sentence, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def print_rejection(found: Mapping[str, Any], show: Callable[[str], None] = print_note) -> None:
    """Print what `moclip predict --reject` does to the test clips; `found` is what metrics/reject.json holds."""
    test, clips, sentence = found["test"], found["validation"]["clips"], "moclip predict --reject: "
    if not found["validation"]["enough"]:
        sentence += f"cannot tell with {counted(clips, 'validation clip')} which to reject; "
        sentence += f"with the lowest {found['score']}, it "
    sentence += f"answers {_percent(test['answered'])} of the {counted(test['clips'], 'test clip')}"
    if test["right_of_answered"] is not None:
        sentence += f", {_percent(test['right_of_answered'])} of them right"
    for name in ("background", "unknown"):
        if other := found.get(name):
            sentence += f", and {_percent(other['answered'])} of the {other['clips']} of {', '.join(other['classes'])}"
    show(wrapped(sentence))


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"


def print_calibration(streams: dict[str, dict[str, Any]]) -> None:
    """Print the calibration error of each stream, before and after its logits are divided by its temperature."""
    errors = [
        f"{STREAM_LABELS[name]} {score['calibration_error']:.3f} -> {score['calibration_error_after']:.3f}"
        for name, score in streams.items()
        if "temperature" in score
    ]
    print_note(wrapped(f"calibration error, before and after the temperature: {'; '.join(errors)}"))


def print_failures(rows: pd.DataFrame, most: int = 10) -> None:
    """Print the id and reason of rows (columns id, status, reason) that are not ok, at most `most`."""
    failed = rows[rows["status"] != "ok"]
    for row in failed.head(most).itertuples():
        print_note(f"  not usable: {row.id}: {row.reason}")
    if len(failed) > most:
        print_note(f"  ... and {len(failed) - most:,} more")
