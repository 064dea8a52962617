"""`moclip import`: turn lists of other projects into a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moclip.errors import DatasetError, MoclipError
from moclip.wording import counted
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.io import write_text
from pipeline.stage import command


@command(name="import")
def import_lists(
    files: Annotated[
        list[Path], typer.Argument(help="Lists: Kinetics (.csv), ActivityNet (.json), MMAction2 (others).")
    ],
    out: Annotated[Path, typer.Option("--out", help="The manifest to write, a .csv file.")],
    classes: Annotated[
        Path | None, typer.Option("--classes", help="MMAction2: file with the name of a class per line, from number 0.")
    ] = None,
    trimmed: Annotated[
        bool, typer.Option("--trimmed", help="Kinetics: the files are trimmed clips, ID_000010_000020.mp4.")
    ] = False,
    test_on_val: Annotated[
        bool, typer.Option("--test-on-val", help="Write the split test where the lists say val; they have no test.")
    ] = False,
) -> None:
    """Turn lists of other projects into a manifest, for dataset.manifest.

    Kinetics: label, youtube_id, time_start, time_end, split. MMAction2: "path number"; the split is the word train, val
    or test in the list's name. ActivityNet: its JSON. Rows of Kinetics and ActivityNet are spans of whole videos, by
    start and end; with --trimmed, those of Kinetics are files that are cut already.
    """
    with while_importing():
        import pandas as pd

        from moclip.data.foreign_lists import read_class_names, read_foreign_list, spans_without_duration
        from moclip.data.label_sets import SEPARATOR

    if out.suffix.lower() != ".csv":
        raise MoclipError("the manifest that is written ends in .csv", where=f"--out {out}")
    if out.resolve() in {file.resolve() for file in files}:
        raise MoclipError("it is one of the lists", where=f"--out {out}", fix="name another file for the manifest")
    names = read_class_names(classes) if classes else None
    table = pd.concat([read_foreign_list(file, names, trimmed) for file in files], ignore_index=True)
    if table.empty:
        raise DatasetError("no clips are listed", where=", ".join(map(str, files)))
    if (several := table["label"].astype(str).str.contains(SEPARATOR, regex=False)).any():
        what = (
            f"the label {table['label'][several].iloc[0]!r} has {SEPARATOR}, which stands between labels in a manifest"
        )
        raise DatasetError(what, where=str(out), fix="rename the class in the lists")
    if "split" in table and table["split"].isna().any():
        fix = "name each list with train, val or test, or import lists without a split alone"
        raise DatasetError("some of the lists have a split, others have none", where=str(out), fix=fix)
    if test_on_val and "split" in table:
        if (table["split"] == "test").any():
            raise MoclipError("the lists have a test split", where="--test-on-val", fix="leave the option out")
        table["split"] = table["split"].replace("val", "test")
    empty = spans_without_duration(table)
    table = table[~empty]
    write_text(out, table.to_csv(index=False, lineterminator="\n"))
    print_note(
        f"{out}: {counted(len(table), 'clip')}, {counted(table['label'].nunique(), 'class', 'classes')}; "
        f"next: moclip use folder --manifest {out}"
    )
    if "start" in table:
        print_note("  rows are spans of whole videos, from start to end; for Kinetics' trimmed files: --trimmed")
    if empty.any():
        print_note(f"  left out, as their end is not after their start: {counted(int(empty.sum()), 'row')}")
    if "split" in table and not (table["split"] == "test").any():
        print_note("  no clip has the split test: with --test-on-val, those of val get it")


if __name__ == "__main__":
    import_lists()
