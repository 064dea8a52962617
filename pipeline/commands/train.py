"""`moclip train`: from a folder of clips to trained models and a report, in one command."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moclip.errors import MoclipError
from moclip.files.folders import home_expanded, is_url
from pipeline import params as parameters
from pipeline import paths
from pipeline.commands.new import ClipsFolder, Encoder
from pipeline.console.command import while_importing
from pipeline.console.output import print_note, screen
from pipeline.options import cpu_count
from pipeline.stage import command

if TYPE_CHECKING:
    from pipeline.estimate.run import Estimate
    from pipeline.new_project import Source

RESULTS = ("dvc.lock", "params.yaml", "metrics", "data/code.json")
"""What is committed after a run, so that `dvc metrics diff` compares with it."""


@command()
def train(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CLIPS", help="Folder of the clips, <folder>/<class>/<clip>; or a table with path and label."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the project.  [default: NAME-moclip, here]", show_default=False),
    ] = None,
    clips: ClipsFolder = None,
    clip: Encoder = None,
) -> None:
    """Train on a folder of clips: make a project, run all stages, and print the results.

    Says first how long it takes (`moclip estimate`; with --verbose each stage). The same command again continues an
    interrupted run, or takes changed clips into account. `moclip new` makes the project without running it.
    """
    with while_importing():
        from pipeline.new_project import check_clips, commit, is_for_same_clips, make_project
        from pipeline.repro import run_stages

    wanted = _wanted(source, clips, clip)
    folder = out if out is not None else _default_folder(source, wanted)
    if is_for_same_clips(folder, wanted):
        check_clips(folder)
        print_note(f"{folder}: a project for these clips; continuing it")
    else:
        make_project(folder, wanted)
    found = _estimate(folder)
    run_stages(folder, found.parts if found else {})
    commit(folder, [name for name in RESULTS if (folder / name).exists()], "Results of moclip train")
    with contextlib.chdir(folder):
        _print_results(folder)


def _wanted(source: str, clips: str | None, encoder: str | None) -> Source:
    """Return what the project is to be made for. Raises DatasetError if `source` is neither a folder nor a table."""
    from moclip.data.clip_folder import is_video
    from pipeline.new_project import clip_source

    if not is_url(source) and home_expanded(source).is_file():
        if is_video(source):
            fix = "name the folder that holds a folder of clips for each class"
            raise MoclipError("one clip, not a folder of clips", where=source, fix=fix)
        return clip_source(clips, source, None, "folder", encoder)
    if clips is not None:
        fix = "leave --clips out; it is for a table, whose paths start from that folder"
        raise MoclipError("CLIPS is the folder of the clips already", where="--clips", fix=fix)
    return clip_source(source, None, None, "folder", encoder, "CLIPS")


def _default_folder(source: str, wanted: Source) -> Path:
    """Return NAME-moclip in this folder, or beside the folder of the clips if that holds this folder."""
    path, root = Path.cwd() / home_expanded(source), str(wanted.root)
    path = path.resolve() if path.name == ".." else path  # a link keeps its own name
    folder = Path(f"{path.stem if wanted.manifest else path.name}-moclip")
    if is_url(root) or not folder.resolve().is_relative_to(root):
        return folder
    return Path(root).parent / folder


def _estimate(folder: Path) -> Estimate | None:
    """Print how long the stages take, with --verbose each of them. None if a stage will say what is wrong."""
    from pipeline.commands.estimate import run_estimate
    from pipeline.estimate.answer import note_total, print_estimate

    try:
        with contextlib.chdir(folder):
            found = run_estimate(cpu_count())
    except Exception as problem:  # it must not stop the training, which may well go on
        if screen.verbose or not isinstance(problem, MoclipError):
            print_note(f"no estimate: {problem}")
        return None
    if screen.verbose and found.running:
        print_estimate(found)
    else:
        note_total(found)
    return found


def _print_results(folder: Path) -> None:
    """Print the results and the verdict, as `moclip metrics` does, and what to do next. The current folder is it."""
    from pipeline.io import read_parquet
    from pipeline.results import next_steps, print_results

    print_results()
    print_note(f"\nopen in a browser: {Path(paths.REPORT).absolute()}")
    print_note(f"next: cd {shlex.quote(str(folder))}")
    for line in next_steps(parameters.load(paths.PARAMS), read_parquet(paths.INDEX, "index")):
        print_note(f"      {line}")


if __name__ == "__main__":
    train()
