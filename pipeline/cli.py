"""The console script `moclip`: every stage, the other commands, and `use`, `metrics` and `store`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import moclip
from moclip.errors import MoclipError
from pipeline import paths
from pipeline.commands.store import app as store_app
from pipeline.console.command import as_command, run_app, run_guarded
from pipeline.console.help import ListingGroup, SectionedCommand
from pipeline.console.output import print_note, set_verbosity
from pipeline.dag import COMMANDS, MODULES, SECTIONS, STAGES

if TYPE_CHECKING:
    from pipeline.stage import Command

PRESETS = sorted(path.stem for path in (Path(__file__).parent / "presets").glob("*.yaml"))


class GroupedCommands(ListingGroup):
    """The commands of `moclip`."""

    def sections(self) -> dict[str, tuple[str, ...]]:
        return SECTIONS


def main() -> None:
    """Run the command line."""
    set_verbosity(verbose=not {"-v", "--verbose"}.isdisjoint(sys.argv))  # for errors before options are read
    run_app(run_guarded(lambda: build_app(_named_command())))


def build_app(named: str | None) -> typer.Typer:
    """Build the command line. Only the command `named` gets its options: reading those of all takes a second."""
    app = typer.Typer(cls=GroupedCommands, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(show_version_or_help)
    for name, summary in (STAGES | COMMANDS).items():
        if name == named:
            _load_command(name).add_to(app)
        else:
            app.command(name, help=summary)(_placeholder)
    app.command(cls=SectionedCommand)(as_command(use))
    app.command(cls=SectionedCommand)(as_command(metrics))
    app.add_typer(store_app, name="store")
    return app


def _named_command() -> str | None:
    """Return the command's name on the command line, or on the line that a shell asks to complete."""
    words = sys.argv[1:]
    if "_MOCLIP_COMPLETE" in os.environ:  # bash or another shell
        line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
        words = line.split()[1:]
    return next((word for word in words if not word.startswith("-")), None)


# ------------------------------------------------------------------------------------------------- the commands


def show_version_or_help(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """MoCLIP-Lite: action recognition from motion vectors and a frozen CLIP.

    A project is a folder with params.yaml and dvc.yaml. `dvc repro` runs its stages; each stage also runs alone.
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
    root: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of videos: <root>/<class>/<clip>.")] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of split lists (trainlist01.txt ...). [default: folders train and test, else random]",
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Table of clips (.csv, .parquet, .jsonl) with the columns path and label."),
    ] = None,
    split: Annotated[int | None, typer.Option(help="Number of the official split, from 1.")] = None,
    clip: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Encoder of pictures: hub id, local folder or timm:NAME; false: none."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace params.yaml even if you edited it.")] = False,
) -> None:
    """Write params.yaml from a preset; your edited one is kept.

    It is kept as params.yaml.bak. At a terminal you are asked first; elsewhere this needs --force.
    """
    from pipeline import params as parameters
    from pipeline import presets
    from pipeline.code_digests import made_with
    from pipeline.io import write_text
    from pipeline.params_edits import keep_edited
    from pipeline.results import warn_of_demo_clip

    if preset == "demo" and made_with() is not None:
        what = "the demo renders its clips with code that is not installed"
        raise MoclipError(what, where="moclip use demo", fix="run it in moclip's repository")
    text = presets.params_text(preset, root, splits, split, clip, manifest)
    if paths.PARAMS.exists():
        keep_edited(paths.PARAMS, force)
    write_text(paths.PARAMS, text)
    print_note(f"{paths.PARAMS} written from preset {preset!r}; next: dvc repro")
    if parameters.value_at(parameters.read_raw(paths.PARAMS), "clip.model") is False:
        print_note("  clip.model is false: motion alone; to use pictures too, add --clip openai/clip-vit-base-patch32")
    warn_of_demo_clip(print_note)
    if not Path("dvc.yaml").exists():
        print_note("  this folder has no dvc.yaml: to make a whole project, run: moclip new DIR --clips DIR")
    if above := parameters.project_above():
        print_note(f"  this folder is inside another project, {above}")


def metrics() -> None:
    """Print the results of the last run, and which stream to trust.

    The table has the accuracy and the cost of each stream on the test clips. The verdict below it says which stream to
    trust, and whether it beats always answering the commonest class.
    """
    from pipeline.results import print_results
    from pipeline.run_lock import explain_running_stage

    with explain_running_stage():
        print_results()


def _placeholder() -> None:
    """Stand for a command whose options are not needed, in the list of `moclip --help`."""


def _load_command(name: str) -> Command:
    package = "stages" if name in STAGES else "pipeline.commands"
    module = MODULES.get(name, name.replace("-", "_"))
    command: Command = getattr(importlib.import_module(f"{package}.{module}"), module)
    return command


if __name__ == "__main__":
    main()
