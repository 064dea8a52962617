"""Stage `index`: the folder of videos and its split lists -> data/index.parquet, a row per clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_failures, print_note, print_table
from pipeline.console.progress import show_progress
from pipeline.io import write_json
from pipeline.params import Params
from pipeline.stage import Workers, cpu_count, stage

if TYPE_CHECKING:
    import pandas as pd


@stage(
    "seed",
    "dataset.root",
    "dataset.splits",
    "dataset.split",
    "dataset.val_fraction",
    "dataset.test_fraction",
    "index.transcode",
)
def index(params: Params, workers: Workers = cpu_count()) -> None:
    """Find the clips, their classes and splits, and probe each file.

    Reads <root>/<class>/<clip> and the official lists (trainlist01.txt, testlist01.txt, classInd.txt) or, where there
    are none, splits by group with the seed. A broken or unsupported file keeps a row with its reason. Hidden files and
    folders, and those that a system keeps (__MACOSX, @eaDir), are left out and counted. Where index.transcode asks for
    it, a row tells of the transcoded file, which motion is read from.
    Writes data/index.parquet and metrics/counts/index.json.
    """
    with while_importing():
        from moclip.data.clip_folder import scan_folder
        from moclip.data.index import build_index
        from moclip.data.list_notes import list_notes
        from moclip.data.selection import index_counts
        from moclip.data.split_lists import read_splits
        from moclip.files.local_copies import local_text_files
        from pipeline.index_file import write_index

    given = params.dataset
    root = given.root
    folder = scan_folder(root)
    with local_text_files(given.splits) as lists:
        splits = read_splits(lists, given.split)
    if splits is None and given.splits != root:
        print_note(f"  no split lists in {given.splits}: the clips are split by group, with the seed")
    for line in list_notes(root, folder, splits):
        print_note(f"  {line}")
    with show_progress("index", len(folder.clips)) as advance:
        table = build_index(
            root,
            folder,
            splits,
            given.val_fraction,
            given.test_fraction,
            params.seed,
            workers,
            advance,
            transcoded=paths.TRANSCODED if params.index.transcode else None,
        )
    counts = index_counts(table, folder)
    counts["split_source"] = f"official split {given.split}" if splits else f"seeded by group, seed {params.seed}"
    with local_text_files(given.splits) as lists:
        write_index(table, params, lists)
    write_json(paths.INDEX_COUNTS, counts)
    _show(table, counts)


def _show(table: pd.DataFrame, counts: dict) -> None:
    from moclip.data.selection import class_names, usable_clips

    rows = [
        ("clips", counts["clips"]),
        ("classes", counts["classes"]),
        *((f"split: {name}", count) for name, count in counts["splits"].items()),
        *((f"codec: {name}", count) for name, count in counts["codecs"].items()),
        ("damaged, used as far as they decode", counts["damaged"]),
        ("not usable", counts["clips"] - counts["usable"]),
        ("covered of the clips in a split", f"{counts['usable_of_listed'] / counts['listed']:.1%}"),
        ("other files, ignored", counts["ignored_files"]),
        ("of these hidden, or a system's", counts["hidden_files"]),
    ]
    print_table(f"index ({counts['split_source']})", ("", "count"), rows)
    print_failures(table)
    for row in table[table["damage"] != ""].itertuples():
        print_note(f"  damaged: {row.id}: {row.damage}")
    ok = usable_clips(table, "train")
    if untaught := sorted(set(class_names(table)) - set(ok["class"])):
        print_note(f"  no clip to train on: {', '.join(untaught)}")


if __name__ == "__main__":
    index()
