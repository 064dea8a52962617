"""What every command shows, in one style, and how it ends: results, notes, tables, progress, errors, exit codes.

Results and notes go to stdout, progress and errors to stderr. On a terminal there are bars and colours, elsewhere whole
lines of plain text. Two words on two kinds of output: a `result` is what the command was asked for; a `note` or a
`table` is a stage's account of its work, and --quiet leaves those out.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import re
import select
import signal
import sqlite3
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar

import typer

from moclip.errors import MoclipError
from moclip.files import cannot_write

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

LINE_EVERY = 10.0
"""Seconds between plain progress lines."""
BRIEF = 1.0
"""Seconds below which progress leaves no line: the stage's own line says it all."""

FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
"""Exit codes; the last two as a shell has them for a program that ends by the signals INT and PIPE."""

Advance = Callable[[int], None]
Log = Callable[[dict[str, float]], None]
Value = TypeVar("Value")


@dataclass
class _Screen:
    """How much this process prints, and the progress bar that is on the screen."""

    quiet: bool = False
    verbose: bool = False
    bar: tqdm | None = None


_screen = _Screen()


def speak(quiet: bool = False, verbose: bool = False) -> None:
    """Set how much is said from here on."""
    _screen.quiet, _screen.verbose = quiet, verbose


def note(text: str) -> None:
    """A line for the reader, on stdout; silent under --quiet."""
    if not _screen.quiet:
        _say(text, sys.stdout)


def error(text: str) -> None:
    """What went wrong, on stderr: "WHERE: WHAT", and what to do in an indented line below."""
    if _tells():
        _say(f"error: {text}", sys.stderr)


def _tells() -> bool:
    """Whether it is up to this process to tell of an error: of several launched together, one does."""
    if "LOCAL_RANK" not in os.environ:
        return True
    from moclip.device import first_to_fail  # and with it torch

    return first_to_fail()


def _say(text: str, stream: TextIO) -> None:
    """Print whole lines; a bar on the screen steps aside for them."""
    if _screen.bar is None:
        print(text, file=stream, flush=True)
    else:
        _screen.bar.write(text, file=stream)
        stream.flush()


# ---------------------------------------------------------------------------------------------------- tables


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A stage's account of its work as a table; silent under --quiet."""
    if not _screen.quiet:
        result(title, columns, rows)


def result(
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
    _say("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n", sys.stdout)


_NO_WIDTH = 1 << 16  # characters: nothing is cut or wrapped
_NUMBER = re.compile(r"-?|[-+]?\d[\d.,]*([-x±][\d.,]+)?( ?%)?")  # a range, "8x1", "0.91±0.02" too; or nothing


# -------------------------------------------------------------------------------------------------- progress


@contextmanager
def progress(label: str, total: int, unit: str = "clip") -> Iterator[Advance]:
    """Yield `advance(n)`: on a terminal a bar with rate and remaining time, elsewhere a line every 10 s.

    Lines also under --verbose, where a bar and the log would run into each other.
    """
    if _screen.quiet:
        yield lambda count: None
    elif sys.stderr.isatty() and not _screen.verbose:
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
        _screen.bar = bar
        try:
            yield advance
            bar.leave = pace.seconds() >= BRIEF
        finally:
            _screen.bar = None


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
        _say(f"{self.label}: {self.pace.done}/{self.total} {self.unit}s, {text}", sys.stderr)


# ------------------------------------------------------------------------------------------------ the streams

STREAMS = {
    "zero_shot": "zero-shot CLIP",
    "mv_image": "pictures of motion alone",
    "mv_tsn": "MV-TSN, motion alone",
    "score_sum": "sum of both scores",
    "fusion": "fusion of both",
}
"""What the streams are called wherever they are shown."""


def scores(streams: dict[str, dict[str, Any]], cost: dict[str, float], show: Callable[..., None] = table) -> None:
    """The accuracies of the streams on the test split, and the multiply-adds of a video in millions."""
    first = next(iter(streams.values()))
    left_out = sum(first["skipped"].values())
    show(
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


# ------------------------------------------------------------------------------------- how a command runs, and ends

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; results and errors remain.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log, and show tracebacks.")]
UsageError: Any = typer.BadParameter.__base__  # click's, wherever this version of Typer has it from


def command(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as Typer is to read it: with --quiet and --verbose, and ending as every command does."""

    def run(quiet: bool, verbose: bool, **given: Any) -> None:
        speak(quiet, verbose)
        guarded(lambda: function(**given))

    own = inspect.signature(function, eval_str=True).parameters.values()
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    options = [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *flags]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def run(app: typer.Typer, program: str | None = None) -> None:
    """Run a command line and exit; wrong usage is told as all other errors are."""
    try:
        sys.exit(guarded(lambda: _invoke(app, program)))
    finally:
        gc.freeze()  # else Python looks through all that was imported once more before it ends: a second, for nothing


def _invoke(app: typer.Typer, program: str | None) -> int | None:
    try:
        return app(prog_name=program, standalone_mode=False)
    except UsageError as problem:
        error(_misuse(problem, program or Path(sys.argv[0]).name))
        return MISUSED


def guarded(work: Callable[[], Value]) -> Value:
    """Run `work`; what goes wrong in it becomes one message and an exit code."""
    _prepare()
    try:
        value = work()
        sys.stdout.flush()
        return value
    except (typer.Exit, typer.Abort, UsageError):
        raise
    except MoclipError as problem:
        _fail(str(problem))
    except KeyboardInterrupt:
        error(_GO_ON)
        sys.exit(INTERRUPTED)
    except BrokenPipeError as problem:
        if not _reader_is_gone():
            _fail(_fault(problem))
        sys.exit(PIPE_CLOSED)
    except ModuleNotFoundError as problem:
        _fail(_missing(problem) or _fault(problem))
    except OSError as problem:
        _fail(str(cannot_write(problem) or _fault(problem)))
    except sqlite3.OperationalError as problem:  # DVC keeps some of what it knows in such files
        _fail(_unwritten_database(problem) or _fault(problem))
    except Exception as problem:
        _fail(_fault(problem))


_GO_ON = "interrupted; run the same command again to go on from here"


@contextmanager
def loading() -> Iterator[None]:
    """Around imports: an interrupt ends the program on the spot (within PyTorch's it would crash it), and no garbage is
    looked for, which takes a quarter of the time and finds none."""

    def stop(number: int, frame: object) -> NoReturn:
        error(_GO_ON)
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, stop)
    gc.disable()
    try:
        yield
    finally:
        loaded()
        signal.signal(signal.SIGINT, before)


def loaded() -> None:
    """Look for garbage from here on, though never among what has been imported, which stays; and seldom, for what is
    imported later."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    gc.enable()


def _fail(text: str) -> NoReturn:
    if _screen.verbose and _tells():
        traceback.print_exc()
    error(text)
    sys.exit(FAILED)


def _fault(problem: Exception) -> str:
    """One line on an error that nobody foresaw."""
    said = " ".join(str(problem).split())
    text = f"a fault in the program: {type(problem).__name__}{f': {said}' if said else ''}"
    return text if _screen.verbose else f"{text}\n  run it again with --verbose to see where"


def _unwritten_database(problem: sqlite3.OperationalError) -> str | None:
    text = str(problem)
    if not re.search("disk|readonly|unable to open", text):
        return None
    return str(
        MoclipError(
            f"cannot be written: {text}",
            where="a database of DVC's (.dvc/tmp, or its cache)",
            fix="make room, or see who may write there, then run the same command again",
        )
    )


def _missing(problem: ModuleNotFoundError) -> str | None:
    """A package that is not installed: some commands run without those that others need."""
    package = (problem.name or "").partition(".")[0]
    if package in ("", "moclip", "pipeline", "stages"):
        return None
    fix = "pip install 'moclip[pipeline]'; moclip doctor says what else is absent"
    return f"{package}: this command needs the package, which is not installed\n  {fix}"


def _misuse(problem: Any, program: str) -> str:
    """A usage error of click's in this style: "No such option: --lrr (Possible options: --lr)"."""
    words = problem.format_message().rstrip(".")
    what, *near = re.split(r"\. (?=Did you mean)| \((?=Possible options)", words)
    hint = re.sub(r"^Possible options: (.*)\)$", r"did you mean \1?", near[0]) if near else ""
    what, hint = (text[:1].lower() + text[1:] for text in (what, hint))
    where = problem.ctx.command_path if problem.ctx else program
    return f"{where}: {what}\n  {f'{hint} ' if hint else ''}see: {where} --help"


def _reader_is_gone() -> bool:
    """Whether somebody closed stdout or stderr; if so nothing more is written there, not even at the exit."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        look = select.poll()
        look.register(stream, 0)
        if look.poll(0):  # in error, or hung up
            os.dup2(_nowhere(), stream.fileno())
            gone = True
    return gone


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _prepare() -> None:
    """Let no name of a clip stop a command where it cannot be shown; other libraries' chatter is for --verbose."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, os.fdopen(_nowhere(), "w"))
        getattr(sys, name).reconfigure(errors="backslashreplace")
    if _screen.verbose:
        logging.basicConfig(level=logging.INFO)
        return
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("dvclive", "transformers", "timm", "libav"):
        logging.getLogger(name).setLevel(logging.ERROR)
