"""`moclip new`: make a project for your clips in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moclip.errors import MoclipError
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.stage import command

ClipsFolder = Annotated[
    str | None,
    typer.Option(
        "--clips",
        metavar="DIR",
        help="Folder of the clips: <folder>/<class>/<clip>; with a table, the folder that its paths start from.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--clip", metavar="NAME", help="Encoder of pictures: hub id, local folder or timm:NAME.  [default: none]"
    ),
]


@command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the project: a new one, or an empty one.")],
    clips: ClipsFolder = None,
    manifest: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Table of clips (.csv, .parquet, .jsonl) with the columns path and label."),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of split lists.  [default: folders train and test, else random]"),
    ] = None,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Preset of `moclip use`: folder, hmdb51 or ucf101.")
    ] = "folder",
    clip: Encoder = None,
    update: Annotated[
        bool, typer.Option("--update", help="Bring the project in DIR up to the installed version of moclip.")
    ] = False,
) -> None:
    """Make a project for your clips in a folder of its own.

    It has params.yaml, dvc.yaml, git and DVC, and no code: its stages run from the installed moclip. So one moclip
    serves many projects. With --update, dvc.yaml gets the stages of the installed version and params.yaml its new keys;
    your values stay.
    """
    with while_importing():
        from pipeline.new_project import clip_source, make_project, update_project

    if update:
        if any(option is not None for option in (clips, manifest, splits, clip)):
            raise MoclipError("--update takes no clips", where="moclip new", fix="edit params.yaml for other clips")
        update_project(folder)
        return
    make_project(folder, clip_source(clips, manifest, splits, preset, clip))
    print_note(f"next: cd {folder}; dvc repro")


if __name__ == "__main__":
    new()
