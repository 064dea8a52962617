"""What to tell the user about a folder and its split lists."""

from __future__ import annotations

from pathlib import Path

from moclip.data.clip_folder import ClipFolder, misplaced, where_they_belong
from moclip.data.list_matching import match_lists
from moclip.data.split_lists import Splits


def list_notes(root: str | Path, folder: ClipFolder, splits: Splits | None) -> list[str]:
    """What to tell a user of a folder and its lists, a line each: clips that are not read, names that differ."""
    found = match_lists(folder, splits).notes if splits else []
    if splits and splits.contradictions:
        first, count = splits.contradictions[0], len(splits.contradictions)
        found = [f"{first}; such lines: {count}; a clip's class is its folder, whatever the number", *found]
    if folder.misplaced:
        found = [f"{misplaced(folder)}: not read; {where_they_belong(root, folder)}", *found]
    return found
