"""The console script `moclip`: every stage in DAG order, then the tools beside the DAG, then `use`."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

from pipeline import console, paths, presets
from pipeline.dag import STAGES, TOOLS
from pipeline.io import read_json
from pipeline.stage import Stage, guarded


def main() -> None:
    """Build the command line and run it. Only the stage that is called gets imported: torch is slow to load."""
    called = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    app = typer.Typer(
        help="MoCLIP-Lite: action recognition from motion vectors and a frozen CLIP.\n\n"
        "The stages, in the order of the DAG that `dvc repro` runs; each also runs alone.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for name, summary in (STAGES | TOOLS).items():
        if name == called:
            stage: Stage = getattr(importlib.import_module(f"stages.{name}"), name)
            stage.add_to(app)
        else:
            app.command(name, help=summary)(_uncalled)
    app.command(help=use.__doc__)(use)
    app.command(help=metrics.__doc__)(metrics)
    if called == "store":
        app.add_typer(importlib.import_module("pipeline.store_cli").app, name="store")
    else:
        app.command("store", help="Look into the store of motion fields, and check it.")(_uncalled)
    app()


def use(
    preset: Annotated[str, typer.Argument(help=f"One of: {', '.join(presets.names())}.")],
    root: Annotated[str | None, typer.Option(help="Folder of videos: <root>/<class>/<clip>.")] = None,
    splits: Annotated[
        str | None, typer.Option(help="Folder of split lists (trainlist01.txt ...); without: a seeded split.")
    ] = None,
    split: Annotated[int | None, typer.Option(help="Which official split.")] = None,
) -> None:
    """Write params.yaml from a preset."""

    def work() -> None:
        presets.write(preset, paths.PARAMS, root, splits, split)
        console.note(f"{paths.PARAMS} written from preset {preset!r}; next: dvc repro")

    guarded(work)


def metrics() -> None:
    """Print the accuracies and cost of the last run."""

    def work() -> None:
        cost = read_json(paths.COST_JSON, "evaluate")["multiply_adds_m"]["video"]
        streams = {name: read_json(path, "evaluate") for name, path in paths.STREAM_JSON.items()}
        console.scores({name: scores for name, scores in streams.items() if scores}, cost)

    guarded(work)


def _uncalled() -> None:
    """Stands for a stage in the list of `moclip --help`."""


if __name__ == "__main__":
    main()
