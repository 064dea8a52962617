"""Decorators that make a function a command: keys of params.yaml become its options.

    @stage("fusion.lr", "fusion.epochs")  # a stage of the DAG, in stages/
    def train_fusion(params: Params) -> None: ...

    @command("dataset.root")  # any other command, in pipeline/commands/
    def export(params: Params, folder: Path) -> None: ...

Other parameters of the function (`folder`) become arguments and options as Typer reads them. With
`params: Params | None` the function also runs where there is no params.yaml. Without `params` it does not read it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import typer

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline import paths
from pipeline.code_digests import running_code
from pipeline.console.command import as_command, run_app
from pipeline.console.help import SectionedCommand
from pipeline.options import key_argument, key_option
from pipeline.run_lock import explain_running_stage, run_lock

Function = Callable[..., None]


def stage(*keys: str) -> Callable[[Function], Command]:
    """Declare a stage and every key of params.yaml that it reads; `make sync` copies the keys to dvc.yaml.

    A project runs one run of a stage at a time.
    """
    return lambda function: Command(function, keys, "stages", locked=True)


def command(*keys: str, name: str | None = None) -> Callable[[Function], Command]:
    """Declare a command that is not a stage, and every key of params.yaml that it reads.

    `name` is that of the command where it is not the function's.
    """
    return lambda function: Command(function, keys, "pipeline.commands", locked=False, name=name)


class Command:
    """A function, the keys of params.yaml that it reads, and the Typer command made of both."""

    def __init__(
        self, function: Function, keys: tuple[str, ...], package: str, locked: bool, name: str | None = None
    ) -> None:
        if unknown := set(keys) - set(parameters.all_keys()):
            raise KeyError(f"no such parameter: {sorted(unknown)}")
        self.function = function
        self.keys = keys
        self.name = name or function.__name__
        self.package = package
        self.locked = locked
        self.__doc__ = function.__doc__

    def __call__(self) -> None:
        """Run as a program: `python -m stages.train_fusion`."""
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        self.add_to(app)
        run_app(app, f"python -m {self.package}.{self.function.__name__}")

    def add_to(self, app: typer.Typer) -> None:
        name = self.name if self.locked else self.name.replace("_", "-")
        app.command(name, cls=SectionedCommand, help=inspect.getdoc(self.function))(
            as_command(self._with_key_options())
        )

    def _with_key_options(self) -> Function:
        """Return the function that Typer calls: it takes the function's own options, then one for each key."""
        own = dict(inspect.signature(self.function, eval_str=True).parameters)
        params = own.pop("params", None)

        def run(**options: Any) -> None:
            given = {key: options.pop(key_argument(key)) for key in self.keys}
            overrides = {key: parameters.parse_value(text) for key, text in given.items() if text is not None}
            if params is not None:
                optional = type(None) in typing.get_args(params.annotation)
                options["params"] = _load_params(overrides, optional)
            if self.locked:
                running_code()  # now, because the files may change while it runs
            with run_lock(self.name) if self.locked else explain_running_stage():
                self.function(**options)

        in_file = _params_for_help() if self.keys else {}
        signature = [
            *own.values(),
            *(key_option(key, in_file) for key in sorted(self.keys, key=parameters.all_keys().index)),
        ]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in signature]
        )
        return run


def _load_params(overrides: dict[str, Any], optional: bool) -> parameters.Params | None:
    """Return the parameters. Where they are optional and there is no params.yaml, return None, unless a key is set."""
    if optional and not overrides and not paths.PARAMS.exists():
        return None
    return parameters.load(paths.PARAMS, overrides)


def _params_for_help() -> dict[str, Any]:
    """Return what params.yaml holds, for `--help`; nothing without one. It is checked when the command runs."""
    try:
        return parameters.read_raw(paths.PARAMS)
    except MoclipError:
        return {}
