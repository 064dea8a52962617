"""The console script `moclip`: every stage in DAG order, the tools beside the DAG, then `use`, `metrics`, `store`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import moclip
from pipeline import paths
from pipeline.commands.store import app as store_app
from pipeline.console.command import as_command, run_app, run_guarded
from pipeline.console.output import print_note, print_result, print_scores, set_verbosity
from pipeline.dag import STAGES, TOOLS

if TYPE_CHECKING:
    from pipeline.stage import Stage

HERE = Path(__file__).parent
PRESETS = sorted(path.stem for path in (HERE / "presets").glob("*.yaml"))


def main() -> None:
    """Run the command line."""
    set_verbosity(verbose=not {"-v", "--verbose"}.isdisjoint(sys.argv))  # of what goes wrong before they are read
    run_app(run_guarded(lambda: build(_called())))


def build(called: str | None) -> typer.Typer:
    """The command line. Only the command `called` gets its options: reading all of them takes a second."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(moclip_)
    for name, summary in (STAGES | TOOLS).items():
        if name == called:
            _command(name).add_to(app)
        else:
            app.command(name, help=summary)(_uncalled)
    app.command()(as_command(use))
    app.command()(as_command(metrics))
    app.add_typer(store_app, name="store")
    return app


def _called() -> str | None:
    """The command's name, on the command line or in the one that a shell asks to complete."""
    words = sys.argv[1:]
    if "_MOCLIP_COMPLETE" in os.environ:  # bash, and the other shells
        line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
        words = line.split()[1:]
    return next((word for word in words if not word.startswith("-")), None)


# ------------------------------------------------------------------------------------------------- the commands


def moclip_(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """MoCLIP-Lite: action recognition from motion vectors and a frozen CLIP.

    The stages, in the order of the DAG that `dvc repro` runs; each also runs alone.
    """
    if version:
        print(f"moclip {moclip.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def use(
    preset: Annotated[
        str,
        typer.Argument(
            help=f"One of: {', '.join(PRESETS)}.",
            autocompletion=lambda incomplete: [name for name in PRESETS if name.startswith(incomplete)],
        ),
    ],
    root: Annotated[str | None, typer.Option(help="Folder of videos: <root>/<class>/<clip>.")] = None,
    splits: Annotated[
        str | None, typer.Option(help="Folder of split lists (trainlist01.txt ...); without: a seeded split.")
    ] = None,
    split: Annotated[int | None, typer.Option(help="Which official split.")] = None,
) -> None:
    """Write params.yaml from a preset."""
    from pipeline import params as parameters
    from pipeline import presets

    presets.write(preset, paths.PARAMS, root, splits, split)
    print_note(f"{paths.PARAMS} written from preset {preset!r}; next: dvc repro")
    if above := parameters.project_above():
        print_note(f"  this folder lies in another project, {above}")


def metrics() -> None:
    """Print the accuracies and cost of the last run."""
    from pipeline.io import read_json

    cost = read_json(paths.COST_JSON, "evaluate")["multiply_adds_m"]["video"]
    streams = {name: read_json(path, "evaluate") for name, path in paths.STREAM_JSON.items()}
    print_scores({name: scores for name, scores in streams.items() if scores}, cost, print_result)


def _uncalled() -> None:
    """Stands for a stage in the list of `moclip --help`."""


def _command(name: str) -> Stage:
    """A stage's or a command's function with its options; its module imports little before it runs."""
    package = "stages" if name in STAGES else "pipeline.commands"
    command: Stage = getattr(importlib.import_module(f"{package}.{name}"), name)
    return command


if __name__ == "__main__":
    main()
