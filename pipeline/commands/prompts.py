"""`moclip prompts`: the texts that stand for each class in the text encoder."""

from __future__ import annotations

import csv
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from moclip.errors import DatasetError, MoclipError
from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note, print_result
from pipeline.params import NO_FILE, Params
from pipeline.stage import command


@command("dataset.phrases", "clip.prompts")
def prompts(
    params: Params,
    only: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Show only this class. Can be given several times."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show every text, not only the first one of each class.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: a row per text.")] = False,
) -> None:
    """Show the texts that stand for each class in the text encoder: its phrases, each in every template.

    Templates are in the file `clip.prompts`. Phrases are in the file `dataset.phrases`; without it, or for a class that
    it leaves out, the phrase is the class name. Class names come from data/index.parquet. Needs no encoder.
    """
    if as_json and as_csv:
        raise MoclipError("--json and --csv exclude each other")
    with while_importing():
        from moclip.data.selection import class_names
        from moclip.models.class_texts import fill_templates, phrase, read_phrases, read_prompts
        from pipeline.index_file import read_index

    phrases_file = params.dataset.phrases
    classes = _chosen_classes(class_names(read_index(params)), only)
    templates = read_prompts(Path(params.clip.prompts))
    phrases = read_phrases(None if phrases_file == NO_FILE else Path(phrases_file), classes)
    texts = {name: fill_templates(phrases[name], templates) for name in classes}
    if as_json:
        of_classes = {name: {"phrases": phrases[name], "texts": texts[name]} for name in classes}
        print(json.dumps({"templates": templates, "classes": of_classes}, indent=2))
        return
    rows = [(name, text) for name in classes for text in texts[name]]
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([("class", "text"), *rows])
        return
    source = "class names" if phrases_file == NO_FILE else phrases_file
    title = (
        f"{counted(len(rows), 'text')} of {counted(len(classes), 'class', 'classes')}: {source}, "
        f"in {counted(len(templates), 'template')} of {params.clip.prompts}"
    )
    if show:
        print_result(title, ("class", "text"), rows)
    else:
        summary = [(name, len(phrases[name]), len(templates), len(texts[name]), texts[name][0]) for name in classes]
        print_result(title, ("class", "phrases", "templates", "texts", "first text"), summary)
    by_name = [name for name in classes if phrases[name] == [phrase(name)]]
    if phrases_file != NO_FILE and by_name:
        print_note(f"{phrases_file}: the name is the only phrase of {', '.join(by_name)}")


def _chosen_classes(classes: list[str], only: Sequence[str] | None) -> list[str]:
    """Return the classes in `only`, or all of them, in label order. Raises DatasetError for an unknown class."""
    for name in only or ():
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "moclip prompts lists the classes"
            raise DatasetError(f"no class {name!r}", where=paths.INDEX, fix=fix)
    return [name for name in classes if not only or name in only]


if __name__ == "__main__":
    prompts()
