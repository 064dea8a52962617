"""How a command ends: exit codes, and one message instead of a traceback."""

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
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from moclip.errors import MoclipError
from moclip.files.atomic import write_error

if TYPE_CHECKING:
    pass
from pipeline.console.output import Value, print_error, screen, set_verbosity, tells

FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
"""Exit codes; the last two as a shell has them for a program that ends by the signals INT and PIPE."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; results and errors remain.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log, and show tracebacks.")]
UsageError: Any = typer.BadParameter.__base__  # click's, wherever this version of Typer has it from


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as Typer is to read it: with --quiet and --verbose, and ending as every command does."""

    def run(quiet: bool, verbose: bool, **given: Any) -> None:
        set_verbosity(quiet, verbose)
        run_guarded(lambda: function(**given))

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


def run_app(app: typer.Typer, program: str | None = None) -> None:
    """Run a command line and exit; wrong usage is told as all other errors are."""
    try:
        sys.exit(run_guarded(lambda: _invoke(app, program)))
    finally:
        gc.freeze()  # else Python looks through all that was imported once more before it ends: a second, for nothing


def _invoke(app: typer.Typer, program: str | None) -> int | None:
    try:
        return app(prog_name=program, standalone_mode=False)
    except UsageError as problem:
        print_error(_misuse(problem, program or Path(sys.argv[0]).name))
        return MISUSED


def run_guarded(work: Callable[[], Value]) -> Value:
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
        print_error(_GO_ON)
        sys.exit(INTERRUPTED)
    except BrokenPipeError as problem:
        if not _reader_is_gone():
            _fail(_fault(problem))
        sys.exit(PIPE_CLOSED)
    except ModuleNotFoundError as problem:
        _fail(_missing(problem) or _fault(problem))
    except OSError as problem:
        _fail(str(write_error(problem) or _fault(problem)))
    except sqlite3.OperationalError as problem:  # DVC keeps some of what it knows in such files
        _fail(_unwritten_database(problem) or _fault(problem))
    except Exception as problem:
        _fail(_fault(problem))


_GO_ON = "interrupted; run the same command again to go on from here"


@contextmanager
def while_importing() -> Iterator[None]:
    """Put slow imports within: no garbage collection, and an interrupt ends the program at once.

    Collecting garbage takes a quarter of the time and finds none. A KeyboardInterrupt within PyTorch's import would
    crash the process.
    """
    before = signal.signal(signal.SIGINT, _stop_at_once)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays: never look through it again
        gc.set_threshold(100_000, 50, 50)
        gc.enable()
        signal.signal(signal.SIGINT, before)


def _stop_at_once(number: int, frame: object) -> NoReturn:
    print_error(_GO_ON)
    os._exit(INTERRUPTED)


def _fail(text: str) -> NoReturn:
    if screen.verbose and tells():
        traceback.print_exc()
    print_error(text)
    sys.exit(FAILED)


def _fault(problem: Exception) -> str:
    """One line on an error that nobody foresaw."""
    said = " ".join(str(problem).split())
    text = f"a fault in the program: {type(problem).__name__}{f': {said}' if said else ''}"
    return text if screen.verbose else f"{text}\n  run it again with --verbose to see where"


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
    if screen.verbose:
        logging.basicConfig(level=logging.INFO)
        return
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("dvclive", "transformers", "timm", "libav"):
        logging.getLogger(name).setLevel(logging.ERROR)
