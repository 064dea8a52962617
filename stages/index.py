"""Stage `index`: the folder of videos and its split lists, or a manifest -> data/index.parquet, a row per clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_failures, print_note
from pipeline.console.progress import show_progress
from pipeline.io import write_json
from pipeline.options import Workers, cpu_count
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    import pandas as pd


@stage(
    "seed",
    "dataset.root",
    "dataset.splits",
    "dataset.manifest",
    "dataset.follow_links",
    "dataset.split",
    "dataset.val_fraction",
    "dataset.test_fraction",
    "dataset.group",
    "dataset.unknown",
    "dataset.background",
    "index.transcode",
)
def index(params: Params, workers: Workers = cpu_count()) -> None:
    """Find the clips, their classes and splits, and probe each file.

    Reads <root>/<class>/<clip> and the official lists (trainlist01.txt, testlist01.txt, classInd.txt), or
    <root>/train/<class>/<clip> and so on, or a manifest, a table with a row per clip. A clip may be a span of a
    longer video, which is probed once. Where none of them gives the splits, it splits by group with the seed. With
    dataset.group: lookalike, clips whose middle frames look alike are one group. A broken or unsupported file keeps a
    row with the reason. Classes in dataset.unknown get no label: their test clips are in the split unknown, the others
    in none. Hidden files and folders, and those of the system (__MACOSX, @eaDir), are left out and counted, and links
    out of the root unless dataset.follow_links is true. If index.transcode is set, rows describe the transcoded files,
    which motion is read from. Writes data/index.parquet and metrics/counts/index.json.
    """
    with while_importing():
        from moclip.data.class_shortages import class_shortages
        from moclip.data.index import build_index, describe_sources, held_out_fractions
        from moclip.data.list_notes import layout_notes, list_notes
        from moclip.data.selection import class_names, index_counts
        from moclip.data.unknown_classes import check_background, leave_out
        from moclip.files.local_copies import local_text_files
        from pipeline.advice.notes import index_notes
        from pipeline.clip_source import find_clips
        from pipeline.index_file import SEEDED, write_index
        from pipeline.multi_label_limits import check_supported
        from pipeline.split_source import read_lists

    dataset = params.dataset
    root = dataset.root
    folder, manifest = find_clips(dataset)
    if manifest and manifest.is_multi_label:
        check_supported(params)  # the stages that read these keys refuse them, too, but hours later
    splits = read_lists(dataset, folder, manifest)
    for note in manifest.notes if manifest else [*layout_notes(folder), *list_notes(folder, splits)]:
        print_note(f"  {note}")
    found: list[str] = []
    compared = (len(manifest.rows) if manifest else len(folder.clips)) if dataset.group == "lookalike" else 0
    with show_progress("index", len(folder.clips) + compared) as advance:
        table = build_index(
            root,
            folder,
            splits,
            dataset.val_fraction,
            dataset.test_fraction,
            params.seed,
            workers,
            advance,
            transcoded=paths.TRANSCODED if params.index.transcode else None,
            join_scenes=dataset.group == "lookalike",
            manifest=manifest,
            tell=found.append,
            follow_links=dataset.follow_links,
        )
    for note in found:
        print_note(f"  {note}")
    if dataset.unknown:
        table = leave_out(table, dataset.unknown)
    if dataset.background:
        check_background(class_names(table), dataset.background)
    counts = index_counts(table, folder)
    split_source = f"official split {dataset.split}" if splits else f"{SEEDED}, seed {params.seed}"
    if manifest and manifest.has_splits:
        split_source = "the manifest's column split"
    if folder.splits:
        split_source = f"the folders {', '.join(folder.splits)}"
    counts["split_source"] = split_source
    with local_text_files(dataset.splits) as lists:
        write_index(table, params, lists)
    write_json(paths.INDEX_COUNTS, counts)
    _print_summary(table, counts)
    held_out = held_out_fractions(folder, splits, manifest, dataset.val_fraction, dataset.test_fraction)
    for note in class_shortages(table, held_out, describe_sources(folder, manifest, dataset.group == "lookalike")):
        print_note(f"  {note}")
    for note in index_notes(table, has_lists=not split_source.startswith(SEEDED)):
        print_note(f"  {note}")


def _print_summary(table: pd.DataFrame, counts: dict) -> None:
    """Print one line, then the clips with problems. All counts are in metrics/counts/index.json."""
    splits = ", ".join(f"{name} {count}" for name, count in counts["splits"].items())
    print_note(
        f"index: {counts['usable']} of {counts['clips']} clips usable, {counts['classes']} classes; {splits} "
        f"({counts['split_source']})"
    )
    if missing := counts["listed"] - counts["usable_of_listed"]:
        print_note(f"  {missing} of the {counts['listed']} clips in a split are missing or not usable")
    if counts["ignored_files"]:
        print_note(
            f"  {counts['ignored_files']} other files ignored, {counts['hidden_files']} of them hidden or a system's"
        )
    print_failures(table)
    from moclip.video.messages import NO_VECTORS

    if transcoding := int(table["reason"].str.contains(NO_VECTORS).sum()):
        print_note(f"  set index.transcode: mpeg4 to use {transcoding} of these (iPhones record HEVC by default)")
    for row in table[table["damage"] != ""].drop_duplicates("path").itertuples():
        print_note(f"  damaged, used as far as it decodes: {row.id}: {row.damage}")


if __name__ == "__main__":
    index()
