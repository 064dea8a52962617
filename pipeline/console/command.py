"""How a command runs and ends: exit codes, and one message instead of a traceback."""

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
from typing import Annotated, Any, NoReturn

import typer

from moclip.errors import MoclipError
from moclip.files.atomic import write_error
from pipeline.console.output import Value, print_error, reports_errors, screen, set_verbosity

FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
"""Exit codes. The last two are those that a shell gives for the signals INT and PIPE."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only: no progress, no notes.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print log messages and tracebacks.")]
UsageError: Any = typer.BadParameter.__base__  # click's class, from whichever click this version of Typer uses


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function for Typer: with --quiet and --verbose, and with errors reported by `run_guarded`."""

    def run(quiet: bool, verbose: bool, **given: Any) -> None:
        set_verbosity(quiet, verbose)
        run_guarded(lambda: function(**given))

    own = inspect.signature(function, eval_str=True).parameters.values()
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    options = [*(option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in own), *flags]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def run_app(app: typer.Typer, program: str | None = None) -> None:
    """Run a command line and exit. Usage errors look like all other errors."""
    try:
        sys.exit(run_guarded(lambda: _invoke(app, program)))
    finally:
        gc.freeze()  # or the garbage collector checks all imports again at exit, which takes a second


def _invoke(app: typer.Typer, program: str | None) -> int | None:
    try:
        return app(prog_name=program, standalone_mode=False)
    except UsageError as problem:
        print_error(_usage_error_text(problem, program or Path(sys.argv[0]).name))
        return MISUSED


def run_guarded(work: Callable[[], Value]) -> Value:
    """Run `work`. Print one message for any exception, and exit with its code."""
    _prepare_output()
    try:
        value = work()
        sys.stdout.flush()
        return value
    except (typer.Exit, typer.Abort, UsageError):
        raise
    except MoclipError as problem:
        _fail(str(problem))
    except KeyboardInterrupt:
        print_error(_INTERRUPTED)
        sys.exit(INTERRUPTED)
    except BrokenPipeError as problem:
        if not _reader_closed_output():
            _fail(_unexpected_error(problem))
        sys.exit(PIPE_CLOSED)
    except ModuleNotFoundError as problem:
        _fail(_missing_package(problem) or _unexpected_error(problem))
    except OSError as problem:
        _fail(str(write_error(problem) or _unexpected_error(problem)))
    except MemoryError as problem:
        what = f"memory ran out ({problem})" if str(problem) else "memory ran out"
        _fail(str(MoclipError(what, fix="use fewer workers (--workers), or a machine with more memory")))
    except sqlite3.OperationalError as problem:  # DVC keeps some state in SQLite files
        _fail(_database_error(problem) or _unexpected_error(problem))
    except Exception as problem:
        _fail(_unexpected_error(problem))


_INTERRUPTED = "interrupted; run the same command again to resume"


@contextmanager
def while_importing() -> Iterator[None]:
    """Run slow imports without garbage collection, and let an interrupt end the program at once.

    Collecting garbage takes a quarter of the time and finds none. A KeyboardInterrupt while PyTorch is imported would
    crash the process.
    """
    previous_handler = signal.getsignal(signal.SIGINT)
    if previous_handler != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _exit_at_once)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # do not check the imports again in later collections
        gc.set_threshold(100_000, 50, 50)
        gc.enable()
        signal.signal(signal.SIGINT, previous_handler)


def _exit_at_once(number: int, frame: object) -> NoReturn:
    print_error(_INTERRUPTED)
    os._exit(INTERRUPTED)


def _fail(text: str) -> NoReturn:
    if screen.verbose and reports_errors():
        traceback.print_exc()
    print_error(text)
    sys.exit(FAILED)


def _unexpected_error(problem: Exception) -> str:
    """Return one line on an error that the program does not handle."""
    message = " ".join(str(problem).split())
    text = f"internal error: {type(problem).__name__}{f': {message}' if message else ''}"
    return text if screen.verbose else f"{text}\n  run it again with --verbose for the traceback"


def _database_error(problem: sqlite3.OperationalError) -> str | None:
    text = str(problem)
    if not re.search("disk|readonly|unable to open", text):
        return None
    return str(
        MoclipError(
            f"cannot be written: {text}",
            where="a database of DVC (.dvc/tmp, or its cache)",
            fix="free disk space or check permissions, then run the same command again",
        )
    )


def _missing_package(problem: ModuleNotFoundError) -> str | None:
    """Return the message for a package that is not installed; some commands need fewer packages than others."""
    package = (problem.name or "").partition(".")[0]
    if package in ("", "moclip", "pipeline", "stages"):
        return None
    fix = "pip install 'moclip[pipeline]'; moclip doctor lists what else is missing"
    return f"{package}: this command needs the package, which is not installed\n  {fix}"


def _usage_error_text(problem: Any, program: str) -> str:
    """Reword click's errors: "No such option: --lrr (Possible options: --lr)"."""
    words = problem.format_message().rstrip(".")
    what, *similar = re.split(r"\. (?=Did you mean)| \((?=Possible options)", words)
    hint = re.sub(r"^Possible options: (.*)\)$", r"did you mean \1?", similar[0]) if similar else ""
    what, hint = (text[:1].lower() + text[1:] for text in (what, hint))
    where = problem.ctx.command_path if problem.ctx else program
    return f"{where}: {what}\n  {f'{hint} ' if hint else ''}see: {where} --help"


def _reader_closed_output() -> bool:
    """Return whether the reader of stdout or stderr closed it. If so, redirect it, so that exiting writes nothing."""
    closed = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream, 0)
        if poll.poll(0):  # an error, or the other end hung up
            os.dup2(_open_devnull(), stream.fileno())
            closed = True
    return closed


def _open_devnull() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _prepare_output() -> None:
    """Escape what the terminal cannot show, such as names of clips. Silence libraries unless --verbose is given."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the parent process closed it
            setattr(sys, name, os.fdopen(_open_devnull(), "w"))
        getattr(sys, name).reconfigure(errors="backslashreplace")
    if screen.verbose:
        logging.basicConfig(level=logging.INFO)
        return
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("dvclive", "transformers", "timm", "libav"):
        logging.getLogger(name).setLevel(logging.ERROR)
