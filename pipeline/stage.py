"""What makes a function a stage: its parameter keys become options, errors become one message and exit code 1.

    @stage("fusion.lr", "fusion.epochs")
    def train_fusion(params: Params) -> None: ...

Further parameters of the function that are annotated for Typer (`workers`, say) stay options as they are.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import typing
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from moclip.errors import MoclipError
from pipeline import console, paths
from pipeline import params as parameters

Workers = Annotated[
    int,
    typer.Option("--workers", "-j", min=1, help="Worker processes or threads; the result does not depend on it."),
]


def cpu_count() -> int:
    """Cores this process may use (a container's share, not the host's)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Stage:
    """A stage's function, the keys of params.yaml that it reads, and its Typer command."""

    def __init__(self, function: Callable[..., None], keys: tuple[str, ...]) -> None:
        self.function = function
        self.keys = keys
        self.name = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self) -> None:
        """Run as a program: `python -m stages.<name>`."""
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        self.add_to(app)
        app(prog_name=f"python -m stages.{self.name}")

    def add_to(self, app: typer.Typer) -> None:
        app.command(self.name, help=inspect.getdoc(self.function))(self._command())

    def _command(self) -> Callable[..., None]:
        """The function that Typer reads: an option a key, then the function's own options."""
        own = {
            name: parameter
            for name, parameter in inspect.signature(self.function, eval_str=True).parameters.items()
            if name != "params"
        }
        raw = _raw_defaults()

        def run(**given: Any) -> None:
            console.set_quiet(given.pop("quiet"))
            verbose = given.pop("verbose")
            overrides = {
                key: parameters.option_value(text) for key in self.keys if (text := given.pop(_slug(key))) is not None
            }
            guarded(lambda: self.function(parameters.load(paths.PARAMS, overrides), **given), verbose)

        options = [self._option(key, raw) for key in self.keys] + list(own.values())
        options += [
            _flag("quiet", "-q", "No progress, no tables."),
            _flag("verbose", "-v", "Log, and show tracebacks."),
        ]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
        )
        run.__annotations__ = {option.name: option.annotation for option in options}
        return run

    def _option(self, key: str, raw: dict[str, Any]) -> inspect.Parameter:
        description, allowed = parameters.describe(key)
        default = _dig(raw, key)
        said = "missing in params.yaml" if default is None else f"params.yaml: {shown(default)}"
        option = typer.Option(
            f"--{key.replace('.', '-').replace('_', '-')}",
            help=f"{description + '; ' if description else ''}{allowed}  [{said}]",
            show_default=False,
            metavar=key.rsplit(".", 1)[-1].upper(),
        )
        return inspect.Parameter(
            _slug(key), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
        )


def stage(*keys: str) -> Callable[[Callable[..., None]], Stage]:
    """Declare a stage and every key of params.yaml that it reads (dvc.yaml lists the same; a test compares)."""
    unknown = set(keys) - set(parameters.every_key())
    if unknown:
        raise KeyError(f"no such parameter: {sorted(unknown)}")
    return lambda function: Stage(function, keys)


def guarded(work: Callable[[], None], verbose: bool = False) -> None:
    """Run `work`; a user's error becomes one message and exit code 1, an interrupt exit code 130."""
    _hush(verbose)
    try:
        work()
    except MoclipError as problem:
        if verbose:
            raise
        console.error(str(problem))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.error("interrupted; run the same command again to go on from here")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(1) from None


def _hush(verbose: bool) -> None:
    """Other libraries' chatter is for --verbose."""
    if verbose:
        logging.basicConfig(level=logging.INFO)
        return
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("dvclive", "transformers", "timm", "libav"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _flag(name: str, short: str, text: str) -> inspect.Parameter:
    annotation = Annotated[bool, typer.Option(f"--{name}", short, help=text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _slug(key: str) -> str:
    return key.replace(".", "__")


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _dig(raw: dict[str, Any], key: str) -> Any:
    value: typing.Any = raw
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _raw_defaults() -> dict[str, Any]:
    """What params.yaml says, for `--help`; whether it is right is told when the stage runs."""
    try:
        return parameters.read_raw(paths.PARAMS)
    except MoclipError:
        return {}
