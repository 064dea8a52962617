"""What makes a function a stage: its parameter keys become options, and it runs and ends as every command does.

    @stage("fusion.lr", "fusion.epochs")
    def train_fusion(params: Params) -> None: ...

Further parameters of the function that are annotated for Typer (`workers`, say) stay options as they are. With
`params: Params | None` it also runs where no params.yaml is, and without `params` it reads none.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.command import as_command, run_app
from pipeline.dag import STAGES
from pipeline.run_lock import run_lock

if TYPE_CHECKING:
    from moclip.workers.cluster import Cluster

Workers = Annotated[
    int,
    typer.Option("--workers", "-j", min=1, help="Worker processes or threads; the result does not depend on it."),
]

OnCluster = Annotated[
    str | None,
    typer.Option(
        "--ray",
        envvar="MOCLIP_RAY",
        metavar="ADDRESS",
        help="Work on a Ray cluster: auto, HOST:6379, or local; the result does not depend on it.",
    ),
]


@contextmanager
def machines(address: str | None) -> Iterator[Cluster | None]:
    """The cluster that a command was given, connected meanwhile; None without one."""
    if not address:
        yield None
        return
    from moclip.workers.cluster import Cluster

    with Cluster(address) as cluster:
        yield cluster


def cpu_count() -> int:
    """Cores this process may use (a container's share, not the host's; on macOS, which tells no share, all)."""
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
        run_app(app, f"python -m stages.{self.name}")

    def add_to(self, app: typer.Typer) -> None:
        app.command(self.name, help=inspect.getdoc(self.function))(self._command())

    def _command(self) -> Callable[..., None]:
        """The function that Typer reads: an option a key, then the function's own options."""
        own = dict(inspect.signature(self.function, eval_str=True).parameters)
        wanted = own.pop("params", None)
        raw = _raw_defaults() if self.keys else {}

        def work(**given: Any) -> None:
            overrides = {
                key: parameters.option_value(text) for key in self.keys if (text := given.pop(_slug(key))) is not None
            }
            read = {} if wanted is None else {"params": _params(wanted, overrides)}
            with run_lock(self.name) if self.name in STAGES else nullcontext():
                self.function(**read, **given)

        options = [self._option(key, raw) for key in self.keys] + list(own.values())
        work.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
        )
        return as_command(work)

    def _option(self, key: str, raw: dict[str, Any]) -> inspect.Parameter:
        description, allowed = parameters.describe(key)
        default = parameters.value_at(raw, key)
        said = "missing in params.yaml" if default is None else f"params.yaml: {shown(default)}"
        option = typer.Option(
            f"--{key.replace('.', '-').replace('_', '-')}",
            help=f"{description + '; ' if description else ''}{allowed}  [{said}]",
            show_default=False,
            metavar=key.rsplit(".", 1)[-1].upper(),
            autocompletion=lambda incomplete: [word for word in _choices(allowed) if word.startswith(incomplete)],
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


def _params(wanted: inspect.Parameter, overrides: dict[str, Any]) -> parameters.Params | None:
    """What the stage's argument `params` gets: None only where it allows that, and nothing can be or need be read."""
    may_lack = type(None) in typing.get_args(wanted.annotation)
    if may_lack and not overrides and not paths.PARAMS.exists():
        return None
    return parameters.load(paths.PARAMS, overrides)


def _choices(allowed: str) -> list[str]:
    """The words of "false | grid | pixel", for the shell to complete."""
    return [word for word in allowed.split(" | ") if " " not in word] if " | " in allowed else []


def _slug(key: str) -> str:
    return key.replace(".", "__")


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _raw_defaults() -> dict[str, Any]:
    """What params.yaml says, for `--help`; whether it is right is told when the stage runs."""
    try:
        return parameters.read_raw(paths.PARAMS)
    except MoclipError:
        return {}
