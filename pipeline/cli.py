"""The console script `moclip`: every stage in DAG order, the tools beside the DAG, then `use`, `metrics`, `store`."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import moclip
from pipeline import paths
from pipeline.commands.store import app as store_app
from pipeline.console.command import as_command, run_app, run_guarded, while_importing
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
            _stage(name).add_to(app)
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


# ------------------------------------------------------------------------------------ a stage without its imports

LIGHT = {
    "typer",
    "moclip.errors",
    *(f"pipeline.{name}" for name in ("console", "dag", "params", "paths", "recipe", "stage")),
    *sys.stdlib_module_names,
}
"""What a stage's options are made of. It imports more, PyTorch mostly, which takes seconds."""


def _stage(name: str) -> Stage:
    """A stage's command: read from its outline, while the stage itself is imported when it is to run.

    So help, completion and complaints about options come at once.
    """

    def imported() -> Stage:
        with while_importing():
            stage: Stage = getattr(importlib.import_module(f"stages.{name}"), name)
        return stage

    try:
        outlined: Stage = _outline(name)[name]
        inspect.signature(outlined.function, eval_str=True)
    except Exception:  # whatever it lacks
        return imported()

    @functools.wraps(outlined.function)
    def work(**given: Any) -> None:
        imported().function(**given)

    return type(outlined)(work, outlined.keys)


def _outline(name: str) -> dict[str, Any]:
    """What the file of a stage defines when only `LIGHT` modules are imported in it. Its functions cannot run.

    Raises anything, for one NameError, where the file itself uses what is not imported.
    """
    path = HERE.parent / "stages" / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = {"__name__": f"stages.{name}"}
    kept: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("stages."):
            other = _outline(str(statement.module).removeprefix("stages."))
            found |= {alias.asname or alias.name: other[alias.name] for alias in statement.names}
        elif not isinstance(statement, ast.Import | ast.ImportFrom) or _is_light(statement):
            kept.append(statement)
    tree.body = kept
    exec(compile(tree, path, "exec", dont_inherit=True), found)
    return found


def _is_light(statement: ast.Import | ast.ImportFrom) -> bool:
    """Drop what is not light from an import; say whether anything is left."""
    package = statement.module if isinstance(statement, ast.ImportFrom) else None

    def light(alias: ast.alias) -> bool:
        inner = f"{package}.{alias.name}" if package else alias.name
        return not LIGHT.isdisjoint((inner, package or "", (package or inner).partition(".")[0]))

    statement.names = [alias for alias in statement.names if light(alias)]
    return bool(statement.names)


if __name__ == "__main__":
    main()
