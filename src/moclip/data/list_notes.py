"""What to tell the user about a folder and its split lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from moclip.data.clip_folder import (
    LINKS_OUT_FIX,
    ClipFolder,
    describe_broken_links,
    describe_links_out,
    describe_misplaced,
    first_name,
    misplaced_fix,
    printable_name,
)
from moclip.data.folder_layout import split_named
from moclip.data.list_matching import match_lists
from moclip.data.name_spelling import fold_name, group_by
from moclip.data.split_lists import Splits
from moclip.wording import counted


def layout_notes(folder: ClipFolder) -> list[str]:
    """Return notes on folders that are not just <class>/<clip>: how they are understood."""
    notes = []
    if folder.splits:
        notes.append(f"the splits are those of the folders {', '.join(folder.splits)}{_made_splits(folder)}")
    if nested := [clip for clip in folder.clips if folder.inner_folders(clip)]:
        clip = nested[0]
        note = f"{counted(len(nested), 'clip lies', 'clips lie')} in a folder within a class folder, such as "
        note += f"{printable_name(clip)}: its class is {printable_name(folder.class_of(clip))}"
        if folder.sources:
            note += f", its source {printable_name(folder.inner_folders(clip)[0])}, unless gNN names one"
        notes.append(note)
    notes += _divided_sources(folder)
    if links := folder.repeated_links:
        note = counted(len(links), "link leads to a folder that is", "links lead to folders that are")
        notes.append(f"{note} read already, such as {first_name(links)}: not read again")
    return notes


def _divided_sources(folder: ClipFolder) -> list[str]:
    """Return a note on folders of sources that lie in more than one folder of a split, in whatever classes."""
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in folder.clips if folder.splits else []:
        if source := folder.folder_source_of(clip):
            splits[source].add(folder.split_of(clip))
    divided = sorted(map(printable_name, (source for source, own in splits.items() if len(own) > 1)))
    if not divided:
        return []
    names = ", ".join(divided[:3]) + ", ..." * (len(divided) > 3)
    note = f"{len(divided)} of {len(splits)} sources {'is' if len(divided) == 1 else 'are'} in more than one split"
    return [f"{note} ({names}): their clips are alike, so the scores are too good; move each source into one split"]


def _made_splits(folder: ClipFolder) -> str:
    """Say how a split without a folder is made."""
    if any(split_named(name) != split for name, split in folder.splits.items()):
        return ": val is the test split, because there is no folder test, and clips of train are held out as val"
    return "" if "val" in folder.splits.values() else ": clips of train are held out as val"


def folder_problems(folder: ClipFolder) -> list[str]:
    """Return notes on what is not read of a folder, and on classes and sources of the same name, with what to do."""
    notes = []
    if folder.misplaced:
        notes.append(f"{describe_misplaced(folder)}: not read; {misplaced_fix(folder)}")
    if folder.links_out:
        notes.append(f"{describe_links_out(folder)}: not read; {LINKS_OUT_FIX}")
    if folder.broken_links:
        notes.append(f"{describe_broken_links(folder)}: not read; remove them, because `dvc repro` stops at them")
    if folder.empty:
        note = counted(len(folder.empty), "folder holds", "folders hold")
        notes.append(f"{note} no clips, such as {first_name(folder.empty)}: no class is made of it")
    notes += [
        f"the classes {' and '.join(alike)} have the same name but for case, accents or spaces: merge them?"
        for alike in _alike(folder.classes)
    ]
    sources = sorted({source for clip in folder.clips if (source := folder.folder_source_of(clip))})
    if pairs := _alike(sources):
        names = " and ".join(map(printable_name, pairs[0]))
        more = f" (and {len(pairs) - 1} more such {'group' if len(pairs) == 2 else 'groups'})" * (len(pairs) > 1)
        notes.append(f"the sources {names} have the same name but for case, accents or spaces{more}: merge them?")
    return notes


def _alike(names: Iterable[str]) -> list[list[str]]:
    return [alike for alike in group_by(lambda name: fold_name(name.strip()), names).values() if len(alike) > 1]


def list_notes(folder: ClipFolder, splits: Splits | None) -> list[str]:
    """Return notes for the user, a line each: what is not read, and names that differ from the lists."""
    notes = match_lists(folder, splits).notes if splits else []
    if splits and splits.contradictions:
        first, count = splits.contradictions[0], len(splits.contradictions)
        notes = [f"{first}; such lines: {count}; a clip's class is its folder, whatever the number", *notes]
    return [*folder_problems(folder), *notes]
