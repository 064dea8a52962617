"""Stage `index`: the folder of videos and its split lists -> data/index.parquet, a row per clip."""

from __future__ import annotations

import pandas as pd

from moclip import dataset, storage
from pipeline import console, paths
from pipeline.io import write_json
from pipeline.made import write_index
from pipeline.params import Params
from pipeline.stage import Workers, cpu_count, stage


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
    given = params.dataset
    root = given.root
    folder = dataset.scan(root)
    with storage.texts(given.splits) as lists:
        splits = dataset.read_splits(lists, given.split)
    if splits is None and given.splits != root:
        console.note(f"  no split lists in {given.splits}: the clips are split by group, with the seed")
    for line in dataset.notes(root, folder, splits):
        console.note(f"  {line}")
    with console.progress("index", len(folder.clips)) as advance:
        table = dataset.index(
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
    counts = dataset.counts(table, folder)
    counts["split_source"] = f"official split {given.split}" if splits else f"seeded by group, seed {params.seed}"
    with storage.texts(given.splits) as lists:
        write_index(table, params, lists)
    write_json(paths.INDEX_COUNTS, counts)
    _show(table, counts)


def _show(table: pd.DataFrame, counts: dict) -> None:
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
    console.table(f"index ({counts['split_source']})", ("", "count"), rows)
    console.failures(table)
    for row in table[table["damage"] != ""].itertuples():
        console.note(f"  damaged: {row.id}: {row.damage}")
    ok = dataset.usable(table, "train")
    if untaught := sorted(set(dataset.class_names(table)) - set(ok["class"])):
        console.note(f"  no clip to train on: {', '.join(untaught)}")


if __name__ == "__main__":
    index()
